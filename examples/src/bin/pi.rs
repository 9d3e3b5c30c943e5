//! Pi, the smallest program: each rank adds up its part of the area under 4 / (1 + x²), one reduction does the rest.
//!
//! `mpirun -n 4 pi`

use selvedge::Op;

/// Strips of the area; the error is that of the midpoint rule, 1 / (12 STEPS²).
const STEPS: usize = 1_000_000;

fn main() -> selvedge::Result<()> {
    let world = selvedge::init()?;
    let width = 1.0 / STEPS as f64;
    let heights = (world.rank()..STEPS).step_by(world.size()).map(|step| {
        let x = (step as f64 + 0.5) * width;
        4.0 / (1.0 + x * x)
    });
    let mut pi = [0.0];
    world.allreduce(&[heights.sum::<f64>() * width], &mut pi, &Op::sum())?;
    if world.rank() == 0 {
        println!("pi is {:.10}, by {} ranks", pi[0], world.size());
    }
    Ok(())
}
