//! Solves a x = b by conjugate gradients, for any symmetric positive definite matrix of Matrix Market. Each rank has
//! some rows and that part of each vector; before a product it gets the elements of others that its rows need, and
//! multiplies its own meanwhile.
//!
//! `mpirun -n 4 cg examples/data/cantilever.mtx`

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use selvedge::{Communicator, Op, World, wait_all};
use selvedge_examples::matrix::{self, Element, Rows};
use selvedge_examples::{Failure, agree};

/// Solves a linear system whose solution is known, all ones, by conjugate gradients.
#[derive(clap::Parser)]
#[command(name = "cg")]
struct Args {
    /// Matrix Market file of a symmetric positive definite matrix
    matrix: PathBuf,
    /// How small the residual has to be, beside the right-hand side
    #[arg(long, default_value_t = 1e-10)]
    tolerance: f64,
    /// Iterations after which to give up
    #[arg(long, default_value_t = 10_000)]
    limit: usize,
}

fn main() -> ExitCode {
    selvedge_examples::main(cg)
}

fn cg(world: &World, args: Args) -> Result<(), Failure> {
    let file = if world.rank() == 0 { matrix::read(&args.matrix).map(Some) } else { Ok(None) };
    let a = Matrix::scatter(world, agree(world, file)?)?;
    let mut b = vec![0.0; a.diagonal.len()];
    a.multiply(world, &vec![1.0; b.len()], &mut b)?;
    let solved = solve(world, &a, &b, args.tolerance, args.limit)?;
    let (x, iterations, residual) = agree(world, solved)?;
    let mut error = [0.0];
    world.allreduce(&[x.iter().map(|x| (x - 1.0).abs()).fold(0.0, f64::max)], &mut error, &Op::max())?;
    if world.rank() == 0 {
        println!("{} unknowns, {iterations} iterations on {} ranks", a.size, world.size());
        println!("residual {residual:.1e}, error {:.1e}", error[0]);
    }
    Ok(())
}

/// Collective: x, the number of iterations, and what is left of |b|. Preconditioned with the diagonal (Saad, Iterative
/// Methods for Sparse Linear Systems, 2nd edition, algorithm 9.1). All ranks get the same sums, so all take the same way.
#[expect(clippy::type_complexity, reason = "the inner error is one that all ranks see")]
fn solve(
    world: &Communicator,
    a: &Matrix,
    b: &[f64],
    tolerance: f64,
    limit: usize,
) -> selvedge::Result<Result<(Vec<f64>, usize, f64), String>> {
    let (mut x, mut r, mut ap) = (vec![0.0; b.len()], b.to_vec(), vec![0.0; b.len()]);
    let mut z: Vec<f64> = r.iter().zip(&a.diagonal).map(|(r, d)| r / d).collect();
    let mut p = z.clone();
    let [mut rz, bb] = dots(world, [(&r, &z), (b, b)])?;
    for iteration in 1..=limit {
        a.multiply(world, &p, &mut ap)?;
        let [pap] = dots(world, [(&p, &ap)])?;
        if pap.is_nan() || pap <= 0.0 {
            return Ok(Err("the matrix is not positive definite".to_owned()));
        }
        let alpha = rz / pap;
        for i in 0..b.len() {
            x[i] += alpha * p[i];
            r[i] -= alpha * ap[i];
            z[i] = r[i] / a.diagonal[i];
        }
        let [next, rr] = dots(world, [(&r, &z), (&r, &r)])?;
        let residual = (rr / bb).sqrt();
        if residual <= tolerance {
            return Ok(Ok((x, iteration, residual)));
        }
        p.iter_mut().zip(&z).for_each(|(p, z)| *p = z + next / rz * *p);
        rz = next;
    }
    Ok(Err(format!("not solved after {limit} iterations")))
}

/// Collective: some dot products in one message.
fn dots<const N: usize>(world: &Communicator, pairs: [(&[f64], &[f64]); N]) -> selvedge::Result<[f64; N]> {
    let mine = pairs.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum());
    let mut sums = [0.0; N];
    world.allreduce(&mine, &mut sums, &Op::sum())?;
    Ok(sums)
}

/// This rank's rows of a matrix.
struct Matrix {
    size: usize,
    diagonal: Vec<f64>,
    /// What is multiplied with this rank's elements of a vector, and what with the halo.
    own: Rows,
    far: Rows,
    /// How many elements of the halo come from which rank, in order.
    from: Vec<(usize, usize)>,
    /// Which elements of this rank go to which other.
    to: Vec<(usize, Vec<usize>)>,
}

/// The rows of a rank.
fn rows(size: usize, rank: usize, ranks: usize) -> Range<usize> {
    size * rank / ranks..size * (rank + 1) / ranks
}

impl Matrix {
    /// Collective: to every rank its rows of what rank 0 has read.
    fn scatter(world: &Communicator, file: Option<(usize, Vec<Element>)>) -> selvedge::Result<Matrix> {
        let (rank, ranks) = (world.rank(), world.size());
        let mut size = [file.as_ref().map_or(0, |file| file.0)];
        world.broadcast(&mut size, 0)?;
        let [size] = size;
        let ends: Vec<usize> = (0..ranks).map(|rank| rows(size, rank, ranks).end).collect();
        let owner = |row: usize| ends.partition_point(|end| *end <= row);
        let parts = file.map(|(_, elements)| {
            let mut parts = vec![Vec::new(); ranks];
            elements.into_iter().for_each(|element| parts[owner(element.0)].push(element));
            parts
        });
        let mine: Vec<Element> = world.scatter_values(parts, 0)?;

        // The columns of others that these rows need; their owners are told.
        let rows = rows(size, rank, ranks);
        let mut halo: Vec<usize> =
            mine.iter().map(|element| element.1).filter(|column| !rows.contains(column)).collect();
        halo.sort_unstable();
        halo.dedup();
        let mut needed = vec![Vec::new(); ranks];
        halo.iter().for_each(|&column| needed[owner(column)].push(column));
        let from = needed.iter().map(Vec::len).enumerate().filter(|(_, count)| *count > 0).collect();
        let wanted = world.all_to_all_values(needed)?.into_iter().enumerate();
        let places = |columns: Vec<usize>| columns.into_iter().map(|column| column - rows.start).collect();
        let to =
            wanted.filter(|(_, columns)| !columns.is_empty()).map(|(rank, columns)| (rank, places(columns)));

        // Rows and columns by their places in this rank's part of a vector, and in the halo.
        let (mut own, mut far) = (Vec::new(), Vec::new());
        for (row, column, value) in mine {
            match halo.binary_search(&column) {
                Ok(place) => far.push((row - rows.start, place, value)),
                Err(_) => own.push((row - rows.start, column - rows.start, value)),
            }
        }
        let (own, far) = (Rows::new(rows.len(), own), Rows::new(rows.len(), far));
        Ok(Matrix { size, diagonal: own.diagonal(), own, far, from, to: to.collect() })
    }

    /// Collective: `y = self * x`.
    fn multiply(&self, world: &Communicator, x: &[f64], y: &mut [f64]) -> selvedge::Result<()> {
        let pick = |places: &Vec<usize>| places.iter().map(|&place| x[place]).collect();
        let out: Vec<Vec<f64>> = self.to.iter().map(|(_, places)| pick(places)).collect();
        let mut halo = vec![0.0; self.from.iter().map(|(_, count)| count).sum()];
        world.scope(|scope| {
            let (mut rest, mut requests) = (&mut halo[..], Vec::new());
            for &(rank, count) in &self.from {
                let part = rest.split_off_mut(..count).expect("the halo has room for all");
                requests.push(scope.irecv(part, rank, 0)?);
            }
            for ((rank, _), out) in self.to.iter().zip(&out) {
                requests.push(scope.isend(out, *rank, 0)?);
            }
            y.fill(0.0);
            self.own.add_product(x, y);
            wait_all(requests)
        })?;
        self.far.add_product(&halo, y);
        Ok(())
    }
}
