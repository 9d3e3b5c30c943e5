//! Communicators whose ranks have places and neighbours (MPI 5.0 chapter 8).

use std::ops::Deref;

use crate::communicator::Communicator;
use crate::error::{Misuse, Result};

/// A communicator whose ranks lie in a grid, the last dimension running fastest (MPI_Cart_create).
///
/// ```
/// use selvedge::balanced_dims;
/// selvedge::local::run(6, |world| {
///     let dims = balanced_dims(world.size(), &[0, 0]).unwrap();
///     assert_eq!(dims, [3, 2]);
///     let grid = world.cartesian(&dims, &[true, false]).unwrap().unwrap();
///     let here = grid.coords(grid.rank());
///     assert_eq!(grid.rank_at(&[here[0] as isize, here[1] as isize]), Some(grid.rank()));
///
///     // What lies beyond the edge is `None`, which is also nobody: PROC_NULL.
///     let (left, right) = grid.shift(1, 1);
///     let mut halo = [-1];
///     grid.sendrecv(&[here[1] as i32], right, 0, &mut halo, left, 0).unwrap();
///     assert_eq!(halo[0], here[1] as i32 - 1);
/// });
/// ```
#[doc(alias = "MPI_Cart_create")]
#[derive(Debug)]
pub struct Cartesian {
    communicator: Communicator,
    dims: Vec<usize>,
    periodic: Vec<bool>,
}

/// A communicator whose ranks have named from whom they receive and to whom they send (MPI_Dist_graph_create_adjacent).
///
/// ```
/// selvedge::local::run(3, |world| {
///     // A star: the first rank hears of all others, which it does not answer.
///     let others: Vec<usize> = (1..world.size()).collect();
///     let (sources, destinations) = if world.rank() == 0 { (&others[..], &[][..]) } else { (&[][..], &[0][..]) };
///     let star = world.neighborhood(sources, destinations).unwrap();
///     star.destinations().iter().for_each(|&to| star.send(&[star.rank()], to, 0).unwrap());
///     for &from in star.sources() {
///         assert_eq!(star.recv_vec::<usize>(from, 0).unwrap().0, [from]);
///     }
/// });
/// ```
#[doc(alias = "MPI_Dist_graph_create_adjacent")]
#[derive(Debug)]
pub struct Neighborhood {
    communicator: Communicator,
    sources: Vec<usize>,
    destinations: Vec<usize>,
}

/// Fills in the dimensions that are 0, so that their product is `ranks` and they are as equal as can be, in falling order
/// (MPI_Dims_create). Local.
///
/// # Errors
/// [`Misuse::Grid`] when the dimensions that are given do not divide `ranks`.
#[doc(alias = "MPI_Dims_create")]
pub fn balanced_dims(ranks: usize, dims: &[usize]) -> Result<Vec<usize>> {
    let fixed: usize = dims.iter().filter(|&&dim| dim != 0).product();
    let open = dims.iter().filter(|&&dim| dim == 0).count();
    if ranks == 0 || !ranks.is_multiple_of(fixed) || (open == 0 && fixed != ranks) {
        return Err(Misuse::Grid { dims: dims.to_vec(), ranks }.into());
    }
    let mut filled = vec![1; open];
    best_factors(ranks / fixed, &mut filled, &mut None);
    let mut filled = filled.into_iter();
    Ok(dims.iter().map(|&dim| if dim == 0 { filled.next().unwrap_or(1) } else { dim }).collect())
}

/// Of all falling factors of `product`, those with the smallest first, of these those with the smallest second, and so on.
fn best_factors(product: usize, factors: &mut [usize], at_most: &mut Option<usize>) -> bool {
    let Some((first, rest)) = factors.split_first_mut() else { return product == 1 };
    let most = at_most.unwrap_or(product);
    let root = (1..).find(|root: &usize| root.saturating_pow(1 + rest.len() as u32) >= product).unwrap_or(1);
    for factor in (root..=most).filter(|factor| product.is_multiple_of(*factor)) {
        *first = factor;
        if best_factors(product / factor, rest, &mut Some(factor)) {
            return true;
        }
    }
    false
}

impl Communicator {
    /// Lays the first ranks of this communicator out in a grid, in their order; the others get `None`. `periodic` says along
    /// which dimensions the last is the first one's neighbour. Collective; costs a [`split`](Communicator::split).
    ///
    /// # Errors
    /// [`Misuse::Grid`] when the grid has no place or more places than there are ranks; [`Misuse::Length`].
    pub fn cartesian(&self, dims: &[usize], periodic: &[bool]) -> Result<Option<Cartesian>> {
        let (given, expected) = (periodic.len(), dims.len());
        if given != expected {
            let why = "one for each dimension";
            return Err(self.refuse(Misuse::Length { what: "periodic", given, expected, why }));
        }
        let places = dims.iter().try_fold(1_usize, |places, &dim| places.checked_mul(dim));
        let Some(places) = places.filter(|places| (1..=self.size()).contains(places)) else {
            return Err(self.refuse(Misuse::Grid { dims: dims.to_vec(), ranks: self.size() }));
        };
        let grid = self.split((self.rank() < places).then_some(0), 0)?;
        let (dims, periodic) = (dims.to_vec(), periodic.to_vec());
        Ok(grid.map(|communicator| Cartesian { communicator, dims, periodic }))
    }

    /// The same ranks, each with the neighbours that it names: whom it receives from and whom it sends to, in its own order.
    /// Collective; costs a [`dup`](Communicator::dup). What two ranks say of each other is not compared.
    ///
    /// ```
    /// selvedge::local::run(4, |world| {
    ///     let (me, n) = (world.rank(), world.size());
    ///     let ring = world.neighborhood(&[(me + n - 1) % n], &[(me + 1) % n]).unwrap();
    ///     ring.send(&[me], ring.destinations()[0], 0).unwrap();
    ///     let mut left = [0];
    ///     ring.recv(&mut left, ring.sources()[0], 0).unwrap();
    ///     assert_eq!(left[0], ring.sources()[0]);
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::RankOutOfRange`], on the rank that names such a neighbour, before the others are met.
    pub fn neighborhood(&self, sources: &[usize], destinations: &[usize]) -> Result<Neighborhood> {
        for (what, ranks) in [("source", sources), ("destination", destinations)] {
            ranks.iter().try_for_each(|&rank| self.checked_peer(what, rank).map(drop))?;
        }
        let communicator = self.dup()?;
        Ok(Neighborhood { communicator, sources: sources.to_vec(), destinations: destinations.to_vec() })
    }

    /// The same ranks with the edges that anybody names, each from a rank to a rank; two of them may name edges of a third
    /// (MPI_Dist_graph_create, MPI 5.0 section 8.5.4). Neighbours come in the order of the ranks that named them, and of their
    /// lists; an edge that is named twice counts twice. Collective; costs an
    /// [`all_to_all_values`](Communicator::all_to_all_values) of the edges and a [`dup`](Communicator::dup).
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     // The first rank knows the whole graph.
    ///     let edges: &[(usize, usize)] = if world.rank() == 0 { &[(0, 1), (1, 2), (0, 2)] } else { &[] };
    ///     let graph = world.graph(edges).unwrap();
    ///     match world.rank() {
    ///         0 => assert_eq!((graph.sources(), graph.destinations()), (&[][..], &[1, 2][..])),
    ///         1 => assert_eq!((graph.sources(), graph.destinations()), (&[0][..], &[2][..])),
    ///         _ => assert_eq!((graph.sources(), graph.destinations()), (&[1, 0][..], &[][..])),
    ///     }
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::RankOutOfRange`] on the rank that names such an edge, [`Misuse::NothingGiven`] on the others.
    #[doc(alias = "MPI_Dist_graph_create")]
    pub fn graph(&self, edges: &[(usize, usize)]) -> Result<Neighborhood> {
        let mut ends = edges.iter().flat_map(|&(from, to)| [("source", from), ("destination", to)]);
        let fits = ends.try_for_each(|(what, rank)| self.checked_peer(what, rank).map(drop));
        // Of each rank the sources and the destinations that it hears of from here. With an edge that leads nowhere there is
        // nothing for anybody, which they are told.
        let mut told = vec![(Vec::new(), Vec::new()); if fits.is_ok() { self.size() } else { 0 }];
        if fits.is_ok() {
            for &(from, to) in edges {
                told[to].0.push(from);
                told[from].1.push(to);
            }
        }
        let heard = self.all_to_all_values(told);
        fits?;
        let (sources, destinations): (Vec<_>, Vec<_>) = heard?.into_iter().unzip();
        self.neighborhood(&sources.concat(), &destinations.concat())
    }
}

impl Cartesian {
    /// Places along each dimension (MPI_Cart_get).
    #[doc(alias = "MPI_Cart_get")]
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Along which dimensions the last is the first one's neighbour.
    pub fn periodic(&self) -> &[bool] {
        &self.periodic
    }

    /// The place of a rank (MPI_Cart_coords). Panics when there is no such rank.
    #[doc(alias = "MPI_Cart_coords")]
    pub fn coords(&self, rank: usize) -> Vec<usize> {
        assert!(rank < self.size(), "rank {rank} of {}", self.size());
        let mut left = rank;
        let mut coords: Vec<usize> = self
            .dims
            .iter()
            .rev()
            .map(|&dim| {
                let coord = left % dim;
                left /= dim;
                coord
            })
            .collect();
        coords.reverse();
        coords
    }

    /// The rank at a place (MPI_Cart_rank); coordinates beyond the edge count on from the other side where the dimension is
    /// periodic, and lead to nobody where it is not. Panics when there is not one for each dimension.
    #[doc(alias = "MPI_Cart_rank")]
    pub fn rank_at(&self, coords: &[isize]) -> Option<usize> {
        assert_eq!(coords.len(), self.dims.len(), "a coordinate for each dimension");
        let places = coords.iter().zip(&self.dims).zip(&self.periodic);
        places.into_iter().try_fold(0, |rank, ((&coord, &dim), &periodic)| {
            let coord = if periodic { coord.rem_euclid(dim as isize) } else { coord };
            let coord = usize::try_from(coord).ok().filter(|&coord| coord < dim)?;
            Some(rank * dim + coord)
        })
    }

    /// From whom and to whom everybody sends when all send `by` places along a dimension (MPI_Cart_shift), as arguments for
    /// [`sendrecv`](Communicator::sendrecv): `None` is nobody. Panics when there is no such dimension.
    #[doc(alias = "MPI_Cart_shift")]
    pub fn shift(&self, dimension: usize, by: isize) -> (Option<usize>, Option<usize>) {
        let here: Vec<isize> = self.coords(self.rank()).into_iter().map(|coord| coord as isize).collect();
        let at = |by: isize| {
            let mut there = here.clone();
            there[dimension] += by;
            self.rank_at(&there)
        };
        (at(-by), at(by))
    }

    /// Grids of the dimensions that are kept, one for each place along the others (MPI_Cart_sub). Collective; costs a
    /// [`split`](Communicator::split).
    ///
    /// ```
    /// selvedge::local::run(6, |world| {
    ///     let grid = world.cartesian(&[2, 3], &[false, true]).unwrap().unwrap();
    ///     let row = grid.sub(&[false, true]).unwrap();
    ///     assert_eq!((row.dims(), row.periodic(), row.rank()), (&[3][..], &[true][..], world.rank() % 3));
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::Length`] when `keep` has not one entry for each dimension.
    #[doc(alias = "MPI_Cart_sub")]
    pub fn sub(&self, keep: &[bool]) -> Result<Cartesian> {
        let (given, expected) = (keep.len(), self.dims.len());
        if given != expected {
            let why = "one for each dimension";
            return Err(self.refuse(Misuse::Length { what: "keep", given, expected, why }));
        }
        let here = self.coords(self.rank());
        let places = here.iter().zip(&self.dims).zip(keep);
        let color =
            places.filter(|(_, keep)| !**keep).fold(0, |color, ((coord, dim), _)| color * dim + coord);
        let communicator = self.split(Some(color as u32), 0)?.expect("every rank has its colour");
        let dims = self.dims.iter().zip(keep).filter(|(_, keep)| **keep).map(|(&dim, _)| dim).collect();
        let periodic = self.periodic.iter().zip(keep).filter(|(_, keep)| **keep).map(|(&is, _)| is).collect();
        Ok(Cartesian { communicator, dims, periodic })
    }
}

impl Neighborhood {
    /// Whom this rank receives from, as it said (MPI_Dist_graph_neighbors).
    #[doc(alias = "MPI_Dist_graph_neighbors")]
    pub fn sources(&self) -> &[usize] {
        &self.sources
    }

    /// Whom this rank sends to, as it said.
    pub fn destinations(&self) -> &[usize] {
        &self.destinations
    }
}

impl Deref for Cartesian {
    type Target = Communicator;

    fn deref(&self) -> &Communicator {
        &self.communicator
    }
}

impl Deref for Neighborhood {
    type Target = Communicator;

    fn deref(&self) -> &Communicator {
        &self.communicator
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_as_equal_as_can_be_and_those_given_stay() {
        let dims = |ranks, dims: &[usize]| balanced_dims(ranks, dims).unwrap();
        assert_eq!(dims(12, &[0, 0]), [4, 3]);
        assert_eq!(dims(12, &[0, 0, 0]), [3, 2, 2]);
        assert_eq!(dims(7, &[0, 0]), [7, 1]);
        assert_eq!(dims(24, &[0, 3, 0]), [4, 3, 2]);
        assert_eq!(dims(1, &[0]), [1]);
        assert_eq!(dims(6, &[2, 3]), [2, 3]);
        for (ranks, wrong) in [(7, &[2, 0][..]), (6, &[2, 2]), (0, &[0])] {
            assert!(balanced_dims(ranks, wrong).is_err(), "{ranks} in {wrong:?}");
        }
    }
}
