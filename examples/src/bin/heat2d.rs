//! Heat spreading over a picture: bright is hot, the rim is insulated.
//!
//! Each rank has a strip of rows. In every step it exchanges its first and last row with its neighbours, and computes
//! the rows in between meanwhile, with as many threads as its share of the processors. The result is the same to the
//! last bit for any number of ranks and threads.
//!
//! `mpirun -n 4 heat2d --out warm.png`

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use std::{io, mem};

use indicatif::ProgressBar;
use rayon::prelude::*;
use selvedge::{Communicator, Op, World, wait_all};
use selvedge_examples::{Failure, agree, field::Field};

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

fn heat(world: &World, args: Args) -> Result<(), Failure> {
    let lead = world.rank() == 0;
    // Rank 0 opens both files first: if one is no good, all leave before anything was computed.
    let start = agree(world, if lead { read(&args, world.size()) } else { Ok(Field::default()) })?;
    let out = agree(world, if lead { create(&args) } else { Ok(None) })?;
    let threads = (world.local_processors() / world.local_ranks()).max(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread();
    agree(world, pool.build_global().map_err(|error| format!("cannot start {threads} threads: {error}")))?;

    let mut strip = Strip::scatter(world, &start)?;
    let energy_before = strip.energy(world)?;
    let bar = if lead { ProgressBar::new(args.steps) } else { ProgressBar::hidden() };
    let clock = Instant::now();
    for step in 1..=args.steps {
        strip.step(world)?;
        bar.inc(1);
        if lead && !io::stderr().is_terminal() && step % args.steps.div_ceil(10) == 0 {
            eprintln!("heat2d: {step} of {} steps", args.steps);
        }
    }
    bar.finish();
    let seconds = clock.elapsed().as_secs_f64();
    let (energy, residual) = (strip.energy(world)?, strip.residual(world)?);

    let end = strip.gather(world, start.height)?;
    let (Field { width, height, .. }, steps, ranks) = (&end, args.steps, world.size());
    let report = format!(
        "{width} x {height} cells, {steps} steps on {ranks} ranks: {seconds:.2} s\n\
         energy   {energy_before:.6} before, {energy:.6} after\n\
         residual {residual:.9} (largest change in the last step)\n"
    );
    agree(world, if lead { finish(&args, &start, &end, &report, out) } else { Ok(()) })
}

/// The picture, if there is a row for every rank.
fn read(args: &Args, ranks: usize) -> Result<Field, String> {
    let field = Field::read(args.picture.as_deref())?;
    let (rows, enough) = (field.height, field.height >= ranks);
    if enough { Ok(field) } else { Err(format!("{rows} rows are too few for {ranks} ranks")) }
}

/// The file for the result, if one is wanted.
fn create(args: &Args) -> Result<Option<File>, String> {
    let file = args.out.as_ref().map(|path| (path, File::create(path)));
    file.map(|(path, file)| file.map_err(|error| format!("cannot write {}: {error}", path.display())))
        .transpose()
}

/// Prints the report, compares with a serial run and writes the picture, where that is wanted.
fn finish(args: &Args, start: &Field, end: &Field, report: &str, out: Option<File>) -> Result<(), String> {
    let print = |text: &str| {
        let printed = io::stdout().write_all(text.as_bytes());
        printed.map_err(|error| format!("cannot write the report: {error}"))
    };
    print(report)?;
    if args.check {
        match end.differences(&start.spread_alone(args.steps, RATE)) {
            0 => print("check    identical to the serial run\n")?,
            wrong => return Err(format!("{wrong} cells differ from the serial run")),
        }
    }
    out.map_or(Ok(()), |out| end.write(out)).map_err(|error| format!("cannot write the picture: {error}"))
}

/// Some rows of the field between a row of the rank above and one of the rank below; now, and a step before.
struct Strip {
    width: usize,
    now: Vec<f64>,
    before: Vec<f64>,
}

/// The strip of a rank, as cells of the whole field.
fn cells(rank: usize, ranks: usize, width: usize, height: usize) -> Range<usize> {
    height * rank / ranks * width..height * (rank + 1) / ranks * width
}

impl Strip {
    /// Collective: to every rank its part of the field of rank 0.
    fn scatter(world: &Communicator, field: &Field) -> selvedge::Result<Strip> {
        let (rank, ranks) = (world.rank(), world.size());
        let mut shape = [field.width, field.height];
        world.broadcast(&mut shape, 0)?;
        let [width, height] = shape;
        let cells = |rank| cells(rank, ranks, width, height);
        let now = vec![0.0; cells(rank).len() + 2 * width];
        let mut strip = Strip { width, before: now.clone(), now };
        if rank == 0 {
            strip.rows_mut().copy_from_slice(&field.cells[cells(0)]);
            (1..ranks).try_for_each(|other| world.send(&field.cells[cells(other)], other, 0))?;
        } else {
            world.recv(strip.rows_mut(), 0, 0)?;
        }
        Ok(strip)
    }

    /// Collective: the field of all strips, on rank 0. The others get an empty one.
    fn gather(&self, world: &Communicator, height: usize) -> selvedge::Result<Field> {
        if world.rank() != 0 {
            world.send(self.rows(), 0, 0)?;
            return Ok(Field::default());
        }
        let mut field = Field { width: self.width, height, cells: self.rows().to_vec() };
        field.cells.resize(self.width * height, 0.0);
        for other in 1..world.size() {
            world.recv(&mut field.cells[cells(other, world.size(), self.width, height)], other, 0)?;
        }
        Ok(field)
    }

    fn rows(&self) -> &[f64] {
        &self.now[self.width..self.now.len() - self.width]
    }

    fn rows_mut(&mut self) -> &mut [f64] {
        let end = self.now.len() - self.width;
        &mut self.now[self.width..end]
    }

    /// Exchanges the outermost rows with the neighbours, computes those in between meanwhile, then the outermost.
    fn step(&mut self, world: &Communicator) -> selvedge::Result<()> {
        let above = world.rank().checked_sub(1);
        let below = Some(world.rank() + 1).filter(|below| *below < world.size());
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
    fn energy(&self, world: &Communicator) -> selvedge::Result<f64> {
        let mine: i64 = self.rows().iter().map(|cell| (cell * UNIT).round() as i64).sum();
        let mut sum = [0];
        world.allreduce(&[mine], &mut sum, &Op::sum())?;
        Ok(sum[0] as f64 / UNIT)
    }

    /// Collective: the largest change of a cell in the last step.
    fn residual(&self, world: &Communicator) -> selvedge::Result<f64> {
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
