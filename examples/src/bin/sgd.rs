//! Learns to tell irises apart, by stochastic gradient descent: every rank has the same model, works on its share of
//! each batch, and one allreduce adds up the gradients. The model does not depend on the number of ranks but for the last
//! bits, in which sums differ.
//!
//! `mpirun -n 4 sgd --epochs 100`

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use selvedge::{Communicator, Op, World};
use selvedge_examples::samples::{Sample, Samples};
use selvedge_examples::{Failure, agree};

/// Trains a linear classifier on a table of numbers with a name at the end of each line.
#[derive(clap::Parser)]
#[command(name = "sgd")]
struct Args {
    /// CSV with a line of titles [default: Fisher's irises]
    table: Option<PathBuf>,
    /// How often all samples are seen
    #[arg(long, default_value_t = 50)]
    epochs: u64,
    /// Samples between two steps, of all ranks together
    #[arg(long, default_value = "24")]
    batch: NonZero<usize>,
    /// Length of a step
    #[arg(long, default_value_t = 0.5)]
    rate: f64,
}

fn main() -> ExitCode {
    selvedge_examples::main(sgd)
}

fn sgd(world: &World, args: Args) -> Result<(), Failure> {
    let Samples { all, classes } = agree(world, Samples::read(args.table.as_deref()))?;
    // Every fifth sample is kept for the examination.
    let (exam, lessons): (Vec<_>, Vec<_>) = (0..).zip(&all).partition(|(place, _)| place % 5 == 0);
    let mut lessons: Vec<&Sample> = lessons.into_iter().map(|(_, sample)| sample).collect();
    let mut model = Model { weights: vec![0.0; classes.len() * all[0].features.len()] };
    let mut loss = 0.0;
    for epoch in 0..args.epochs {
        shuffle(&mut lessons, epoch);
        let steps = lessons.chunks(args.batch.get()).map(|batch| model.step(world, batch, args.rate));
        loss = steps.sum::<selvedge::Result<f64>>()? / lessons.len() as f64;
    }

    let mine = exam.iter().skip(world.rank()).step_by(world.size());
    let right = mine.filter(|(_, sample)| model.guess(sample) == sample.class).count();
    let mut all_right = [0];
    world.allreduce(&[right], &mut all_right, &Op::sum())?;
    if world.rank() == 0 {
        println!("{} samples of {} classes, {} ranks", all.len(), classes.len(), world.size());
        println!("after {} epochs: loss {loss:.6}, |weights| {:.6}", args.epochs, model.norm());
        println!("{} of {} samples named right that it never saw", all_right[0], exam.len());
    }
    Ok(())
}

/// The same order on every rank, another one in every epoch (Fisher and Yates; numbers from Knuth's MMIX).
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(last, (state >> 33) as usize % (last + 1));
    }
}

/// Multinomial logistic regression.
struct Model {
    /// For each class one for each feature.
    weights: Vec<f64>,
}

impl Model {
    /// Collective: one step down the gradient of `batch`, of which each rank works on its share. Returns the sum of the
    /// losses, which travels behind the gradient.
    fn step(&mut self, world: &Communicator, batch: &[&Sample], rate: f64) -> selvedge::Result<f64> {
        let mut mine = vec![0.0; self.weights.len() + 1];
        let (loss, gradient) = mine.split_last_mut().expect("there is room for the loss");
        for sample in batch.iter().skip(world.rank()).step_by(world.size()) {
            *loss += self.loss(sample, gradient);
        }
        let mut sum = vec![0.0; mine.len()];
        world.allreduce(&mine, &mut sum, &Op::sum())?;
        let step = rate / batch.len() as f64;
        self.weights.iter_mut().zip(&sum).for_each(|(weight, slope)| *weight -= step * slope);
        Ok(sum[mine.len() - 1])
    }

    /// The loss of one sample; adds its gradient to `gradient`.
    fn loss(&self, sample: &Sample, gradient: &mut [f64]) -> f64 {
        let likely = self.likely(sample);
        for (class, gradient) in gradient.chunks_mut(sample.features.len()).enumerate() {
            let wrong = likely[class] - if class == sample.class { 1.0 } else { 0.0 };
            gradient.iter_mut().zip(&sample.features).for_each(|(slope, feature)| *slope += wrong * feature);
        }
        -likely[sample.class].ln()
    }

    /// How likely a sample is of each class.
    fn likely(&self, sample: &Sample) -> Vec<f64> {
        let score = |weights: &[f64]| weights.iter().zip(&sample.features).map(|(w, f)| w * f).sum();
        let scores: Vec<f64> = self.weights.chunks(sample.features.len()).map(score).collect();
        let highest = scores.iter().copied().fold(f64::MIN, f64::max);
        let shares: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
        shares.iter().map(|share| share / shares.iter().sum::<f64>()).collect()
    }

    /// The most likely class of a sample.
    fn guess(&self, sample: &Sample) -> usize {
        let likely = self.likely(sample);
        (0..likely.len()).max_by(|&a, &b| likely[a].total_cmp(&likely[b])).expect("there is a class")
    }

    fn norm(&self) -> f64 {
        self.weights.iter().map(|weight| weight * weight).sum::<f64>().sqrt()
    }
}
