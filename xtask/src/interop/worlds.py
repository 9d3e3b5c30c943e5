"""Ranks that start ranks, and ranks that find each other by name: the first argument names the part that is played."""
import os, sys, time
from mpi4py import MPI

world = MPI.COMM_WORLD
me = os.path.abspath(__file__)

def say(*words):
    # In one piece: launchers mix what comes in several.
    sys.stdout.write(' '.join(map(str, words)) + '\n')
    sys.stdout.flush()

def merged(inter, high):
    both = inter.Merge(high=high)
    total = both.allreduce(both.rank)
    size = both.size
    both.Free()
    return size, total

def spawn(children, *words):
    return world.Spawn(sys.executable, [me, *words], maxprocs=children)

def parent_of_some(children):
    inter = spawn(int(children), 'child')
    say('parent', world.rank, 'of', world.size, 'beside', inter.remote_size, 'sum', *merged(inter, False))
    inter.Disconnect()

def child():
    parent = MPI.Comm.Get_parent()
    say('child', world.rank, 'of', world.size, 'beside', parent.remote_size, 'sum', *merged(parent, True))
    parent.Disconnect()

def parent_of_two_kinds():
    info = MPI.Info.Create()
    info['wdir'] = '/'
    commands = [sys.executable] * 2
    inter = world.Spawn_multiple(commands, [[me, 'kind', 'a'], [me, 'kind', 'b']], [1, 2], [MPI.INFO_NULL, info])
    say('kinds', inter.gather(None, root=MPI.ROOT if world.rank == 0 else MPI.PROC_NULL))
    inter.Disconnect()

def kind(name):
    parent = MPI.Comm.Get_parent()
    place = os.getcwd() if os.getcwd() == '/' else 'here'
    parent.gather((name, world.rank, world.Get_attr(MPI.APPNUM), place), root=0)
    parent.Disconnect()

def ancestor(generations):
    left = int(generations)
    parent = MPI.Comm.Get_parent()
    if parent != MPI.COMM_NULL:
        left = parent.bcast(None, root=0)
    say('generation', left, 'of', world.size)
    if left > 0:
        inter = spawn(1, 'ancestor', '0')
        inter.bcast(left - 1, root=MPI.ROOT if world.rank == 0 else MPI.PROC_NULL)
        inter.Disconnect()
    if parent != MPI.COMM_NULL:
        parent.Disconnect()

def server():
    half = world.Split(0, world.rank)
    port = MPI.Open_port() if half.rank == 0 else None
    if half.rank == 0:
        MPI.Publish_name('service', port)
    inter = half.Accept(port, root=0)
    say('server', half.rank, 'of', half.size, 'beside', inter.remote_size, 'sum', *merged(inter, False))
    inter.Disconnect()
    if half.rank == 0:
        MPI.Unpublish_name('service', port)
        MPI.Close_port(port)

def client():
    half = world.Split(1, world.rank)
    port = None
    while half.rank == 0 and port is None:
        try:
            port = MPI.Lookup_name('service')
        except MPI.Exception:
            time.sleep(0.05)
    inter = half.Connect(port, root=0)
    say('client', half.rank, 'of', half.size, 'beside', inter.remote_size, 'sum', *merged(inter, True))
    inter.Disconnect()

def parent_of_nobody():
    try:
        world.Spawn('./no-such-program', [], maxprocs=2)
    except MPI.Exception:
        say('rank', world.rank, 'goes on')

def parent_of_a_quitter():
    inter = spawn(2, 'quitter')
    inter.Barrier()
    inter.Barrier()

def quitter():
    parent = MPI.Comm.Get_parent()
    parent.Barrier()
    if world.rank == 1:
        world.Abort(7)
    parent.Barrier()

globals()[sys.argv[1]](*sys.argv[2:])
