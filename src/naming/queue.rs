//! Jobs that wait for the namer: a line for each owner. The next turn has the owner that has been served least.
//!
//! This is start-time fair queueing: an owner that has had nothing to do resumes where the others are, so that it neither saves up time
//! nor owes more than its last record. Nothing here waits or measures.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::owner::Owner;

/// A job's number, in the order in which the jobs came.
pub(crate) type Ticket = u64;

/// How many owners are remembered that have nothing to do. If there are more, the one with the least debt is forgotten.
const IDLE_MAX: usize = 1024;

/// Owners whose service differs by less come in the order of their jobs: for one that is cheap, the turn of another is no loss.
const ALIKE: Duration = Duration::from_millis(500);

/// A job that waits.
#[derive(Debug)]
pub(super) struct Waiting<Job> {
    pub(super) ticket: Ticket,
    /// When it came.
    pub(super) since: Instant,
    pub(super) job: Job,
}

/// The jobs of one owner.
struct Line<Job> {
    jobs: VecDeque<Waiting<Job>>,
    /// The time that it has been served, on the clock of the queue.
    served: Duration,
}

/// All jobs that wait.
pub(super) struct FairQueue<Job> {
    lines: HashMap<Owner, Line<Job>>,
    /// How much an owner has been served that has always had something to do.
    clock: Duration,
}

impl<Job> Default for FairQueue<Job> {
    fn default() -> Self {
        Self { lines: HashMap::new(), clock: Duration::ZERO }
    }
}

impl<Job> FairQueue<Job> {
    /// The last of its owner.
    pub(super) fn push(&mut self, owner: Owner, waiting: Waiting<Job>) {
        let clock = self.clock;
        let line = self.lines.entry(owner).or_insert_with(|| Line { jobs: VecDeque::new(), served: clock });
        if line.jobs.is_empty() {
            line.served = line.served.max(clock);
        }
        line.jobs.push_back(waiting);
    }

    /// The job whose turn it is. Those that came before `too_old` are first: they cost nothing any more.
    pub(super) fn take(&mut self, too_old: Option<Instant>) -> Option<(Owner, Waiting<Job>)> {
        let turn = |line: &Line<Job>| {
            let first = line.jobs.front()?;
            let is_due = too_old.is_none_or(|then| first.since >= then);
            Some((is_due, line.served.as_nanos() / ALIKE.as_nanos(), first.ticket))
        };
        let turns = self.lines.iter().filter_map(|(owner, line)| Some((turn(line)?, owner)));
        let ((is_due, ..), owner) = turns.min_by_key(|(turn, _)| *turn)?;
        let owner = owner.clone();
        let line = self.lines.get_mut(&owner)?;
        if is_due {
            self.clock = self.clock.max(line.served);
        }
        let waiting = line.jobs.pop_front()?;
        Some((owner, waiting))
    }

    /// The job that was taken of this owner has cost so much.
    pub(super) fn charge(&mut self, owner: &Owner, cost: Duration) {
        if let Some(line) = self.lines.get_mut(owner) {
            line.served += cost;
        }
        let clock = self.clock;
        self.lines.retain(|_, line| !line.jobs.is_empty() || line.served > clock);
        let idle = |line: &Line<Job>| line.jobs.is_empty();
        if self.lines.values().filter(|line| idle(line)).count() > IDLE_MAX {
            let least = self.lines.iter().filter(|(_, line)| idle(line)).min_by_key(|(_, line)| line.served);
            if let Some(least) = least.map(|(owner, _)| owner.clone()) {
                self.lines.remove(&least);
            }
        }
    }

    /// Nobody wants it any more. False: it doesn't wait here.
    pub(super) fn forget(&mut self, owner: &Owner, ticket: Ticket) -> bool {
        let Some(line) = self.lines.get_mut(owner) else { return false };
        let before = line.jobs.len();
        line.jobs.retain(|waiting| waiting.ticket != ticket);
        line.jobs.len() < before
    }

    /// Does anybody else wait?
    pub(super) fn has_others(&self, owner: &Owner) -> bool {
        self.lines.iter().any(|(other, line)| other != owner && !line.jobs.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Shop {
        queue: FairQueue<u64>,
        now: Instant,
        tickets: Ticket,
    }

    impl Shop {
        fn new() -> Self {
            Self { queue: FairQueue::default(), now: Instant::now(), tickets: 0 }
        }

        /// `cost` in milliseconds.
        fn comes(&mut self, user: u32, cost: u64) {
            self.tickets += 1;
            self.queue.push(Owner::User(user), Waiting { ticket: self.tickets, since: self.now, job: cost });
        }

        fn next(&mut self) -> Option<u32> {
            let (owner, waiting) = self.queue.take(None)?;
            self.queue.charge(&owner, Duration::from_millis(waiting.job));
            let Owner::User(user) = owner else { panic!("{owner:?}") };
            Some(user)
        }

        fn rest(&mut self) -> Vec<u32> {
            std::iter::from_fn(|| self.next()).collect()
        }
    }

    #[test]
    fn who_is_cheap_waits_for_one_costly_record_and_no_more() {
        let mut shop = Shop::new();
        (0..50).for_each(|_| shop.comes(1, 5000));
        assert_eq!(shop.next(), Some(1));
        for _ in 0..10 {
            shop.comes(2, 30);
        }
        let rest = shop.rest();
        assert_eq!(rest[..10], [2; 10]);
        assert_eq!(rest[10..], [1; 49]);
    }

    #[test]
    fn those_that_cost_the_same_take_turns() {
        let mut shop = Shop::new();
        (0..3).for_each(|_| shop.comes(1, 1000));
        (0..3).for_each(|_| shop.comes(2, 1000));
        assert_eq!(shop.rest(), [1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn those_that_are_cheap_come_in_their_order() {
        let mut shop = Shop::new();
        for user in [1, 1, 2, 1, 2, 3, 3, 1] {
            shop.comes(user, 20);
        }
        assert_eq!(shop.rest(), [1, 1, 2, 1, 2, 3, 3, 1]);
    }

    #[test]
    fn nobody_saves_up_time() {
        let mut shop = Shop::new();
        shop.comes(2, 1);
        for _ in 0..20 {
            shop.comes(1, 5000);
        }
        assert_eq!(shop.rest().len(), 21);
        // User 2 was away for long: user 1 has its turns again after as much.
        (0..20).for_each(|_| shop.comes(2, 1000));
        shop.comes(1, 5000);
        let at = shop.rest().iter().position(|&user| user == 1).unwrap();
        assert!(at <= 6, "{at}");
    }

    #[test]
    fn who_has_just_cost_much_comes_after_those_that_have_not() {
        let mut shop = Shop::new();
        shop.comes(1, 5000);
        assert_eq!(shop.next(), Some(1));
        shop.comes(1, 5000);
        shop.comes(2, 10);
        assert_eq!(shop.rest(), [2, 1]);
    }

    #[test]
    fn who_waits_too_long_is_first_and_costs_nothing() {
        let mut shop = Shop::new();
        shop.comes(1, 5000);
        shop.comes(1, 5000);
        shop.next();
        shop.now += Duration::from_secs(30);
        shop.comes(2, 10);
        let too_old = Some(shop.now - Duration::from_secs(1));
        assert_eq!(shop.queue.take(too_old).unwrap().0, Owner::User(1));
        assert_eq!(shop.queue.take(too_old).unwrap().0, Owner::User(2));
    }

    #[test]
    fn what_is_forgotten_does_not_come() {
        let mut shop = Shop::new();
        (0..3).for_each(|_| shop.comes(1, 10));
        assert!(shop.queue.forget(&Owner::User(1), 2));
        assert!(!shop.queue.forget(&Owner::User(1), 2));
        assert!(!shop.queue.forget(&Owner::User(7), 1));
        assert!(!shop.queue.has_others(&Owner::User(1)));
        assert!(shop.queue.has_others(&Owner::User(2)));
        assert_eq!(shop.rest(), [1, 1]);
    }

    #[test]
    fn many_owners_take_bounded_room() {
        let mut shop = Shop::new();
        for user in 0..10_000 {
            shop.comes(user, 1000);
            shop.next();
        }
        assert!(shop.queue.lines.len() <= IDLE_MAX + 1, "{}", shop.queue.lines.len());
        // Many at once: each is served once.
        for user in 0..2000 {
            shop.comes(user, 1000);
        }
        assert_eq!(shop.rest().len(), 2000);
        assert!(shop.queue.lines.len() <= IDLE_MAX + 1, "{}", shop.queue.lines.len());
    }
}
