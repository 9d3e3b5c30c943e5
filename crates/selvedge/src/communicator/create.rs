//! Communicators out of communicators (MPI 5.0 section 7.4).

use std::sync::Arc;

use selvedge_coll::Rank;

use crate::collective::algorithms::Wanted;
use crate::collective::compare::Called;
use crate::collective::op::Op;
use crate::communicator::contexts::{Agreement, Company, Next, Offer};
use crate::communicator::group::Group;
use crate::communicator::members::Members;
use crate::communicator::{Collecting, Communicator, Core};
use crate::error::{ErrorHandler, Misuse, Refused, Result};
use crate::runtime::Started;
use crate::runtime::agreement::{Agree, agreement_shape};
use crate::runtime::station::Entrance;
use crate::world::job::MEETING_CONTEXT;
use crate::world::locality::{self, Level};

/// The tag of meetings of all ranks, among those of the groups of the first world.
const EVERYBODY: i32 = i32::MAX;

impl Communicator {
    /// Divides the ranks by `color`; within a colour they are ordered by `key`, then by their rank here
    /// (MPI_Comm_split). A rank that says `None` gets `None`. Collective; costs one allgather of 32 bytes a rank.
    ///
    /// ```
    /// selvedge::local::run(5, |world| {
    ///     let half = world.split(Some((world.rank() % 2) as u32), 0).unwrap().unwrap();
    ///     assert_eq!(half.size(), if world.rank() % 2 == 0 { 3 } else { 2 });
    ///     assert_eq!(half.rank(), world.rank() / 2);
    /// });
    /// ```
    #[doc(alias = "MPI_Comm_split")]
    pub fn split(&self, color: Option<u32>, key: i64) -> Result<Option<Communicator>> {
        const NO_COLOR: u64 = u64::MAX;
        let offer = self.offer(Company::None);
        let [serial, has_company] = offer.words();
        let mine = [color.map_or(NO_COLOR, u64::from), key as u64, serial, has_company];
        let mut all = vec![[0; 4]; self.size()];
        self.allgather(&[mine], &mut all)?;
        let offered = all.iter().fold([0; 2], |most: [u64; 2], [_, _, serial, has_company]| {
            [most[0].max(*serial), most[1].max(*has_company)]
        });
        // Groups of different colours have no rank in common, so they can share a context.
        let context = self.agree_on_context(offer, Some(offered))?;
        let mut members: Vec<usize> = (0..self.size()).filter(|&rank| all[rank][0] == mine[0]).collect();
        members.sort_by_key(|&rank| (all[rank][1] as i64, rank));
        let members = members.iter().map(|&rank| self.peer_of(rank)).collect();
        Ok(self.with_members(color.map(|_| Arc::new(Members::of(members))), context))
    }

    /// A communicator of the ranks on this host, in the same order (MPI_Comm_split_type with MPI_COMM_TYPE_SHARED).
    /// Collective.
    #[doc(alias("MPI_Comm_split_type", "MPI_COMM_TYPE_SHARED"))]
    pub fn split_by_host(&self) -> Result<Communicator> {
        let color = self.core.job.host_index(self.peer_of(self.rank()));
        Ok(self.split(Some(color), 0)?.expect("every rank has a host"))
    }

    /// A communicator of the ranks of this host that are bound to the same part of it as this one, in the same order
    /// (MPI_Comm_split_type with MPI_COMM_TYPE_HW_GUIDED). `None` for a rank that may run on processors of several such parts:
    /// bind ranks with `mpirun --bind-to`. Collective. The parts are those that Linux tells of under `/sys/devices/system`.
    ///
    /// ```
    /// use selvedge::Level;
    /// selvedge::local::run(2, |world| {
    ///     if let Some(near) = world.split_by(Level::Numa).unwrap() {
    ///         assert!(near.size() <= world.split_by_host().unwrap().size());
    ///     } else {
    ///         world.split_by_host().unwrap();
    ///     }
    /// });
    /// ```
    #[doc(alias("MPI_Comm_split_type", "MPI_COMM_TYPE_HW_GUIDED"))]
    pub fn split_by(&self, level: Level) -> Result<Option<Communicator>> {
        let host = self.core.job.host_index(self.peer_of(self.rank()));
        let part = locality::part_here(level);
        self.split(part.map(|part| host * locality::PARTS_MAX + part), 0)
    }

    /// A communicator of the ranks of `group`, which is a subset of this one's, in that order (MPI_Comm_create). Ranks that
    /// are not in it get `None`. Collective over this communicator: all give the same group, or groups that have no rank in
    /// common. Costs one allreduce of 16 bytes.
    ///
    /// ```
    /// selvedge::local::run(3, |world| {
    ///     let backwards = world.group().include((0..3).rev()).unwrap();
    ///     let mirror = world.create(&backwards).unwrap().unwrap();
    ///     assert_eq!(mirror.rank(), 2 - world.rank());
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::NotAMember`] when the group has a process that this communicator has not.
    #[doc(alias = "MPI_Comm_create")]
    pub fn create(&self, group: &Group) -> Result<Option<Communicator>> {
        self.check_subset(group)?;
        let context = self.agree_on_context(self.offer(Company::None), None)?;
        Ok(self.with_members(group.rank().map(|_| Arc::clone(group.members())), context))
    }

    /// As [`Communicator::create`], called by the ranks of `group` only (MPI_Comm_create_group). Threads that do so at the same
    /// time use different tags. Costs two messages a rank, in a tree.
    ///
    /// ```
    /// selvedge::local::run(4, |world| {
    ///     let outer = world.group().include([0, 3]).unwrap();
    ///     if outer.rank().is_some() {
    ///         let pair = world.create_group(&outer, 0).unwrap();
    ///         assert_eq!(pair.size(), 2);
    ///     }
    /// });
    /// ```
    ///
    /// # Errors
    /// [`Misuse::NotAMember`] when the group has a process that this communicator has not, or has not this one;
    /// [`Misuse::TagOutOfRange`].
    #[doc(alias = "MPI_Comm_create_group")]
    pub fn create_group(&self, group: &Group, tag: i32) -> Result<Communicator> {
        self.check_subset(group)?;
        let me = group.rank().ok_or(Misuse::NotAMember).refused_by(self)?;
        let meeting = self.of_this_mind(self.core.for_meetings(group.members(), me));
        let maker = u64::from(self.message_context().0) + tag as u64;
        let context = meeting.agree_by_messages(self.offer(Company::None), maker, tag)?;
        let made = self.with_members(Some(Arc::clone(group.members())), context);
        Ok(made.expect("this rank is in it"))
    }

    /// One more communicator of all ranks of the job that `runtime` is in. Collective over them, by messages that meet no others,
    /// whatever they do with the communicators that they have.
    pub(crate) fn of_everybody(runtime: Entrance) -> Result<Communicator> {
        let job = Arc::clone(runtime.enter().job());
        let (group, me) = (Arc::new(Members::World { size: job.size() }), Rank(job.me.0));
        let core = |context, owns_context| {
            let (job, group) = (Arc::clone(&job), Arc::clone(&group));
            Core::with(job, group, me, context, ErrorHandler::default(), owns_context)
        };
        let talk = Communicator::new(runtime.clone(), core(MEETING_CONTEXT, false), Wanted::default());
        let maker = u64::from(MEETING_CONTEXT) + EVERYBODY as u64;
        let context = talk.agree_by_messages(talk.offer(Company::None), maker, EVERYBODY)?;
        Ok(Communicator::new(runtime, core(context, true), Wanted::default()))
    }

    /// Another communicator, whose collectives are done as this one's.
    pub(super) fn of_this_mind(&self, core: Arc<Core>) -> Communicator {
        Communicator::new(self.runtime.clone(), core, self.plans.wanted().clone())
    }

    /// What this rank brings to an agreement. `company`: as far as this thread can say.
    pub(super) fn offer(&self, company: Company) -> Offer {
        let is_shared = self.runtime.enter().is_shared();
        self.core.job.contexts.offer(if is_shared { Company::Possible } else { company })
    }

    /// Collective, and waits: a context that no rank of this communicator has in use, claimed by all of them.
    fn agree_on_context(&self, offer: Offer, offered: Option<[u64; 2]>) -> Result<u32> {
        let _collecting = self.before_agreement()?;
        let outcome = self.finish(self.begin_agreement(offer, offered));
        outcome.map(|envelope| envelope.context.0).map_err(|trouble| self.explain(trouble))
    }

    /// What goes before an agreement that is waited for.
    pub(super) fn before_agreement(&self) -> Result<Option<Collecting<'_>>> {
        let (shape, reducer) = (agreement_shape(self.size() as u32), Op::<u64>::max().reducer());
        self.compare_calls(Called::of::<u64>(&shape, Some(&reducer)))?;
        let is_shared = self.runtime.enter().is_shared();
        is_shared.then(|| self.begin_collecting()).transpose()
    }

    /// Collective: begins to agree on a context. `offered`: the largest of all offers, where that is known.
    pub(super) fn begin_agreement(&self, offer: Offer, offered: Option<[u64; 2]>) -> Started {
        let (plan, group) = (self.plans.agreement(self.size() as u32), &self.group);
        let mut runtime = self.runtime.enter();
        let (context, sequence) = (self.collective_context(), self.next_sequence(&runtime));
        let maker = u64::from(context.0) << 32 | u64::from(sequence);
        runtime.agree(Agree { plan, group, context, sequence, maker, offer, offered })
    }

    /// As [`Communicator::agree_on_context`], by messages that keep their order, so that two meetings with the same tag do not
    /// meet.
    fn agree_by_messages(&self, offer: Offer, maker: u64, tag: i32) -> Result<u32> {
        let mut asked = offer.words();
        let mut agreement = Agreement::new(offer, maker);
        loop {
            match agreement.heard(self.max_by_messages(asked, tag)?) {
                Next::Ask(words) => asked = words,
                Next::Agreed(context) => return Ok(context),
            }
        }
    }

    /// The communicator of this rank's group with a context that was agreed on; gives the context back where it has no group.
    fn with_members(&self, group: Option<Arc<Members>>, context: u32) -> Option<Communicator> {
        let Some(group) = group else {
            self.core.job.contexts.release(context);
            return None;
        };
        let me = group.rank(self.peer_of(self.rank())).expect("a rank is in its own group");
        Some(self.of_this_mind(self.core.child(group, me, context)))
    }

    fn check_subset(&self, group: &Group) -> Result<()> {
        let members = group.members();
        let is_here = |rank| self.group.rank(members.peer(Rank(rank as u32))).is_some();
        if (0..group.size()).all(is_here) { Ok(()) } else { Err(self.refuse(Misuse::NotAMember)) }
    }

    /// The largest over all ranks, word by word: up a binomial tree and down again.
    fn max_by_messages(&self, mut most: [u64; 2], tag: i32) -> Result<[u64; 2]> {
        let (me, size) = (self.rank(), self.size());
        let mut bit = 1;
        while bit < size && me & bit == 0 {
            if me + bit < size {
                let mut theirs = [0; 2];
                self.recv(&mut theirs, me + bit, tag)?;
                most = [most[0].max(theirs[0]), most[1].max(theirs[1])];
            }
            bit *= 2;
        }
        if me != 0 {
            self.send(&most, me - bit, tag)?;
            self.recv(&mut most, me - bit, tag)?;
        }
        while bit > 1 {
            bit /= 2;
            if me + bit < size {
                self.send(&most, me + bit, tag)?;
            }
        }
        Ok(most)
    }
}

impl Core {
    /// A communicator of the same job.
    fn child(&self, group: Arc<Members>, me: Rank, context: u32) -> Arc<Core> {
        Core::with(Arc::clone(&self.job), group, me, context, self.handler(), true)
    }
}
