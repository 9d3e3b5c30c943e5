//! What `--help` says.

/// The text of `--help`.
pub const HELP: &str = "\
Usage: mpirun [options] program [arguments] [: [options] program [arguments]]...

Starts the ranks of a parallel program, on this host or on many, and waits for them.

How many, and where
  -n, -np, -c N          number of ranks; one for each core (each slot, where hosts are named) where it is not given
  -host, -H LIST         hosts with commas: node1,node2:8,me@node3,n[05-12]:8,[fe80::1]:2. A host without a count gets
                         one rank each time it is mentioned; HOST:* one for each core. For this part of the line only
  -hosts LIST            the same for all parts that name none of their own
  -hostfile FILE         hosts out of a file, one in a line: node1 slots=8, or node1:8; one rank for each core where
                         there is no count. For this part only; -f and -machinefile: for all parts
  -ppn, -N N             ranks for each host before the next host's turn; also -perhost, --npernode
  --map-by HOW           where the next rank goes: slot (the same host until its slots are taken), node (the next host),
                         socket, numa, core, hwthread (the next of the same host), or ppr:N:WHERE (N to each).
                         After it: :SPAN :PE=N :OVERSUBSCRIBE :NOOVERSUBSCRIBE :HWTCPUS
  --rank-by HOW          how they are numbered: slot, fill, span, node, socket, numa, core, hwthread; as they were dealt
                         without it
  --rankfile FILE        lines such as: rank 0=node1 slot=1:0-2
  -rankmap LIST          the host of each rank, counted from 0: 0,1,1,0
  --bind-to WHERE        share: an even share of the cores for each rank, where there are enough (the default);
                         core, core:N, hwthread, numa, socket; none: wherever the system likes
  --display WHAT         map, allocation, bind: pictures of hosts, cores and ranks; also --report-bindings
  --nooversubscribe      refuse more ranks than slots; without it they begin again at the first host, and a line on
                         standard error says so; --oversubscribe: without that line
  -configfile, --app FILE  parts of the line out of a file, one in a line

What they find
  -x NAME                pass on this variable; all are passed on anyway, this one is missed
  -x NAME=VALUE          set a variable for all ranks; also -genv NAME VALUE. For this part only: -env NAME VALUE
  -x 'PREFIX*'           pass on all variables that start so
  -genvlist LIST         pass on only these; -genvnone: none. For this part only: -envlist, -envnone, -envall
  -wdir, -wd DIR         working directory of the ranks
  --mca NAME VALUE       a setting for programs of Open MPI's
  --pmi WHICH            how programs learn their place: auto, 1, 2 or x

Between hosts
  --agent COMMAND        what reaches other hosts, in place of ssh, or of srun inside a job of Slurm's; also
                         -launcher-exec. -launcher ssh or slurm: which of the two
  --tree-width N         agents that each agent starts, 32 without it
  --start-timeout, --host-timeout SECONDS
                         how long hosts may take to be there, and how long one may be silent before it counts as lost
  --join ADDRESS[:PORT]  without ssh: every host runs the same command and joins the first, which has this address or name;
                         auto: as AWS Batch says
  --join-hosts N, --join-index I
                         hosts of the job, and the place of this one where they have places: the first has 0. Without
                         them as AWS Batch or Kubernetes says
  --secret-file FILE     32 bytes that all of them share; --new-secret FILE makes such a file, and does nothing else
  -iface NAME            the network interface for tcp
  --transport LIST       take no other roads than these between ranks: shm, efa-direct, efa, tcp. Without it: shm
                         within a host, and the best of the others that all ranks have between hosts
  --require LIST         do not start unless one of these leads to other hosts (shm: within one); efa is also met by
                         efa-direct. Within a host shm is taken all the same, where --transport allows it

What is said, and how long
  -l, --tag-output       start every line with [rank]
  --report text          let rank 0 say at the start which roads are taken, also where shm is the only one
  --report json[=FILE]   the same for programs, on standard error or into a file
  --quiet, -q            say nothing at the start
  --timeout SECONDS      end the job after so long, with exit code 124
  -h, --help             this text
  -V, --version          the version

Options take one dash or two, and their value as the next word or after '='. Those of Open MPI's mpirun and of hydra's
mpiexec are understood; docs/guide-launcher.md has them side by side. Without hosts on the line they come from
HYDRA_HOST_FILE or from the batch system: Slurm, PBS, LSF, Grid Engine. Else all ranks are on this host.

Standard input goes to rank 0. Signals INT, TERM, HUP, QUIT, USR1, USR2, TSTP and CONT go to all ranks; a second INT,
TERM, HUP or QUIT kills them.

Exit code: 0 when all ranks left with 0; else that of the first rank that failed: its own, 128 + N when it died of
signal N, or what it gave to abort. 69 no road that --transport and --require allow, 124 time-out, 126 program not
executable, 127 program not found, 2 usage, 1 mpirun's own trouble.
";
