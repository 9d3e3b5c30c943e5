//! Heat spreading over a picture: bright is hot, the rim is insulated.
//!
//! Each rank has a strip of rows. In every step it exchanges its first and last row with its neighbours, and computes
//! the rows in between meanwhile, with as many threads as its share of the processors. The result is the same to the
//! last bit for any number of ranks and threads.
//!
//! `mpirun -n 4 heat2d --out warm.png`

use std::fs::File;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use std::{io, mem, thread};

use indicatif::ProgressBar;
use rayon::prelude::*;
use selvedge::{Communicator, Op, Result, World, wait_all};
use selvedge_examples::{Failure, agree, picture::Field};

/// Lets heat spread over a picture, bright is hot.
#[derive(clap::Parser)]
#[command(name = "heat2d")]
struct Args {
    /// PNG to start from [default: a piece of cloth]
    picture: Option<PathBuf>,
    /// Time steps
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Where to write the result, as a PNG
    #[arg(long, visible_alias = "output")]
    out: Option<PathBuf>,
    /// Compute it again on rank 0 alone, and compare bit by bit
    #[arg(long)]
    check: bool,
}

/// Tags of rows that go to the rank above and to the rank below.
const UP: i32 = 0;
const DOWN: i32 = 1;
/// How much of the difference to each neighbour a cell makes up for in a step. Small, so that the picture stays a
/// picture for some thousand steps; above 1/4 it would not be stable.
const RATE: f64 = 0.02;
/// Sums are made of integers, in units of 2^-32: a sum of floating-point numbers depends on their order.
const UNIT: f64 = (1_u64 << 32) as f64;

fn main() -> ExitCode {
    selvedge_examples::main(heat)
}

fn heat(world: &World, args: Args) -> std::result::Result<(), Failure> {
    let (rank, ranks, lead) = (world.rank(), world.size(), world.rank() == 0);

    // Rank 0 opens both files first: if one is no good, all leave before anything was computed.
    let mut field = agree(world, if lead { read(&args, ranks) } else { Ok(Field::default()) })?;
    let out = args.out.as_ref().filter(|_| lead).map(|path| {
        File::create(path).map_err(|error| format!("heat2d: cannot write {}: {error}", path.display()))
    });
    let out = agree(world, out.transpose())?;
    let mut shape = [field.width, field.height];
    world.broadcast(&mut shape, 0)?;
    let [width, height] = shape;

    // The strip of rank r, as cells of the whole field.
    let cells = |r: usize| height * r / ranks * width..height * (r + 1) / ranks * width;
    let mut strip = Strip::new(width, cells(rank).len() / width);
    if lead {
        strip.rows_mut().copy_from_slice(&field.cells[cells(0)]);
        (1..ranks).try_for_each(|other| world.send(&field.cells[cells(other)], other, 0))?;
    } else {
        world.recv(strip.rows_mut(), 0, 0)?;
    }

    let threads = thread::available_parallelism().map_or(1, usize::from) / world.local_ranks();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).use_current_thread();
    agree(world, pool.build_global())?;
    let (above, below) = (rank.checked_sub(1), Some(rank + 1).filter(|below| *below < ranks));
    let energy_before = strip.energy(world)?;
    let bar = if lead { ProgressBar::new(args.steps) } else { ProgressBar::hidden() };
    let clock = Instant::now();
    for step in 1..=args.steps {
        strip.step(world, above, below)?;
        bar.inc(1);
        if lead && !io::stderr().is_terminal() && step % args.steps.div_ceil(10) == 0 {
            eprintln!("heat2d: {step} of {} steps", args.steps);
        }
    }
    bar.finish();
    let (seconds, residual, energy) =
        (clock.elapsed().as_secs_f64(), strip.residual(world)?, strip.energy(world)?);

    if !lead {
        world.send(strip.rows(), 0, 0)?;
        return agree(world, Ok::<(), &str>(()));
    }
    let start = mem::take(&mut field.cells);
    field.cells = strip.rows().to_vec();
    field.cells.resize(width * height, 0.0);
    (1..ranks).try_for_each(|other| world.recv(&mut field.cells[cells(other)], other, 0).map(drop))?;
    println!("{width} x {height} cells, {} steps on {ranks} ranks: {seconds:.2} s", args.steps);
    println!("energy   {energy_before:.6} before, {energy:.6} after");
    println!("residual {residual:.9} (largest change in the last step)");
    agree(world, finish(&args, &start, &field, out))
}

/// The picture, if there is a row for every rank.
fn read(args: &Args, ranks: usize) -> std::result::Result<Field, String> {
    let field = Field::read(args.picture.as_deref()).map_err(|error| format!("heat2d: {error}"))?;
    match field.height {
        rows if rows < ranks => Err(format!("heat2d: {rows} rows are too few for {ranks} ranks")),
        _ => Ok(field),
    }
}

/// Compares with a serial run and writes the picture, where that is wanted.
fn finish(args: &Args, start: &[f64], end: &Field, out: Option<File>) -> std::result::Result<(), String> {
    if args.check {
        let alone = alone(start.to_vec(), end.width, args.steps);
        let wrong = end.cells.iter().zip(&alone).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        if wrong > 0 {
            return Err(format!("heat2d: {wrong} cells differ from the serial run"));
        }
        println!("check    identical to the serial run");
    }
    out.map_or(Ok(()), |out| end.write(out))
        .map_err(|error| format!("heat2d: cannot write the picture: {error}"))
}

/// Some rows of the field between a row of the rank above and one of the rank below; now, and a step before.
struct Strip {
    width: usize,
    now: Vec<f64>,
    before: Vec<f64>,
}

impl Strip {
    fn new(width: usize, rows: usize) -> Strip {
        let cells = vec![0.0; (rows + 2) * width];
        Strip { width, before: cells.clone(), now: cells }
    }

    fn rows(&self) -> &[f64] {
        &self.now[self.width..self.now.len() - self.width]
    }

    fn rows_mut(&mut self) -> &mut [f64] {
        let end = self.now.len() - self.width;
        &mut self.now[self.width..end]
    }

    fn step(&mut self, world: &Communicator, above: Option<usize>, below: Option<usize>) -> Result<()> {
        mem::swap(&mut self.now, &mut self.before);
        let (width, end) = (self.width, self.now.len());
        let (halo_above, rest) = self.before.split_at_mut(width);
        let (mine, halo_below) = rest.split_at_mut(end - 2 * width);
        let (first, last) = (&mine[..width], &mine[mine.len() - width..]);
        // Beyond the insulated rim it is as warm as on it.
        halo_above.copy_from_slice(first);
        halo_below.copy_from_slice(last);
        world.scope(|scope| {
            let mut halo = Vec::with_capacity(4);
            if let Some(above) = above {
                halo.push(scope.irecv(halo_above, above, DOWN)?);
                halo.push(scope.isend(first, above, UP)?);
            }
            if let Some(below) = below {
                halo.push(scope.irecv(halo_below, below, UP)?);
                halo.push(scope.isend(last, below, DOWN)?);
            }
            if mine.len() > 2 * width {
                spread(mine, &mut self.now[2 * width..end - 2 * width], width);
            }
            wait_all(halo)
        })?;
        spread(&self.before[..3 * width], &mut self.now[width..2 * width], width);
        spread(&self.before[end - 3 * width..], &mut self.now[end - 2 * width..end - width], width);
        Ok(())
    }

    /// Collective: the sum of all temperatures, which an insulated field keeps.
    fn energy(&self, world: &Communicator) -> Result<f64> {
        let mine: i64 = self.rows().iter().map(|cell| (cell * UNIT).round() as i64).sum();
        let mut sum = [0];
        world.allreduce(&[mine], &mut sum, &Op::sum())?;
        Ok(sum[0] as f64 / UNIT)
    }

    /// Collective: the largest change of a cell in the last step.
    fn residual(&self, world: &Communicator) -> Result<f64> {
        let changes =
            self.rows().iter().zip(&self.before[self.width..]).map(|(now, before)| (now - before).abs());
        let mut largest = [0.0];
        world.allreduce(&[changes.fold(0.0, f64::max)], &mut largest, &Op::max())?;
        Ok(largest[0])
    }
}

/// One step of all rows of `rows` but the first and the last, which are only looked at.
fn spread(rows: &[f64], next: &mut [f64], width: usize) {
    next.par_chunks_mut(width).enumerate().for_each(|(y, next)| {
        let (above, rest) = rows[y * width..(y + 3) * width].split_at(width);
        let (row, below) = rest.split_at(width);
        let cell = |left: f64, x: usize, right: f64| {
            row[x] + RATE * (above[x] + below[x] + (left + right) - 4.0 * row[x])
        };
        next[0] = cell(row[0], 0, row[1.min(width - 1)]);
        for x in 1..width - 1 {
            next[x] = cell(row[x - 1], x, row[x + 1]);
        }
        next[width - 1] = cell(row[width.max(2) - 2], width - 1, row[width - 1]);
    });
}

/// The same without ranks, threads, strips or halos.
fn alone(mut now: Vec<f64>, width: usize, steps: u64) -> Vec<f64> {
    let height = now.len() / width;
    for _ in 0..steps {
        let at = |x: usize, y: usize| now[y.min(height - 1) * width + x.min(width - 1)];
        let next = |place: usize| {
            let (x, y) = (place % width, place / width);
            let (left, right) = (at(x.saturating_sub(1), y), at(x + 1, y));
            let (above, below) = (at(x, y.saturating_sub(1)), at(x, y + 1));
            at(x, y) + RATE * (above + below + (left + right) - 4.0 * at(x, y))
        };
        now = (0..now.len()).map(next).collect();
    }
    now
}
