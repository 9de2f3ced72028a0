use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// All that fires in one turn at `now`.
fn fire<T: Clone>(timers: &mut Timers<T>, now: Instant) -> Vec<T> {
    timers.begin_turn(now);
    std::iter::from_fn(|| timers.pop_due().map(|due| due.what)).collect()
}

impl<T: Clone> Timers<T> {
    /// Holds the structure against its invariants.
    fn check(&self) {
        for (place, node) in self.heap.iter().enumerate() {
            assert_eq!(self.places[node.slot as usize] as usize, place);
            assert!(self.slots[node.slot as usize].what.is_some());
            assert!(place == 0 || self.heap[(place - 1) / ARITY].rank() < node.rank());
        }
        assert!(self.slots.last().is_none_or(|slot| slot.what.is_some()));
        assert_eq!(self.places.len(), self.slots.len());
        let mut owned = 0;
        for (owner, &head) in self.heads.iter().enumerate() {
            let (mut prev, mut slot) = (NONE, head);
            while slot != NONE {
                let timer = &self.slots[slot as usize];
                assert_eq!((timer.owner as usize, timer.prev), (owner, prev));
                (prev, slot) = (slot, timer.next);
                owned += 1;
            }
        }
        let (mut free, mut prev, mut slot) = (0, NONE, self.free_first);
        while slot != NONE {
            assert_eq!(self.slots[slot as usize].prev, prev);
            (prev, slot) = (slot, self.slots[slot as usize].next);
            free += 1;
        }
        assert_eq!(self.free_last, prev);
        assert_eq!((owned, owned + free), (self.heap.len(), self.slots.len()));
    }
}

#[test]
fn equal_deadlines_fire_in_the_order_of_set() {
    let t0 = Instant::now();
    let mut timers = Timers::new(t0);
    for i in 0..100 {
        timers.set(0, t0 + ms(5), None, i);
    }
    assert!(fire(&mut timers, t0 + ms(4)).is_empty());
    assert_eq!(fire(&mut timers, t0 + ms(5)), Vec::from_iter(0..100));
    assert_eq!(timers.next_deadline(), None);
}

#[test]
fn a_timer_that_sets_itself_again_at_once_waits_for_the_next_turn() {
    let t0 = Instant::now();
    let mut timers = Timers::new(t0);
    timers.set(0, t0, None, ());
    for turn in 1..10 {
        let now = t0 + ms(turn);
        timers.begin_turn(now);
        assert!(timers.pop_due().is_some());
        timers.set(0, now, None, ());
        assert!(timers.pop_due().is_none());
        // The poller does not sleep over it.
        assert!(timers.next_deadline().unwrap() <= now + ms(1));
    }
}

#[test]
fn a_new_timer_does_not_hide_older_ones_that_are_due() {
    let t0 = Instant::now();
    let mut timers = Timers::new(t0);
    timers.set(0, t0 + ms(2), None, "old");
    timers.begin_turn(t0 + ms(3));
    timers.set(0, t0 + ms(1), None, "new");
    assert_eq!(timers.pop_due().unwrap().what, "old");
    assert!(timers.pop_due().is_none());
    assert_eq!(fire(&mut timers, t0 + ms(4)), ["new"]);
}

#[test]
fn periods_do_not_drift_and_missed_ticks_are_skipped() {
    let t0 = Instant::now();
    let mut timers = Timers::new(t0);
    timers.set(0, t0 + ms(10), Some(ms(10)), ());
    assert_eq!(fire(&mut timers, t0 + ms(13)).len(), 1);
    assert_eq!(timers.next_deadline(), Some(t0 + ms(20)));
    assert_eq!(fire(&mut timers, t0 + ms(20)).len(), 1);
    assert_eq!(fire(&mut timers, t0 + ms(57)).len(), 1);
    assert_eq!(timers.next_deadline(), Some(t0 + ms(60)));
    // A tick that is due at this very instant is not missed but fired: the next one is after it.
    assert_eq!(fire(&mut timers, t0 + ms(80)).len(), 1);
    assert_eq!(timers.next_deadline(), Some(t0 + ms(90)));
}

#[test]
fn a_periodic_timer_can_be_cancelled_while_it_fires() {
    let t0 = Instant::now();
    let mut timers = Timers::new(t0);
    timers.set(7, t0 + ms(1), Some(ms(1)), ());
    timers.begin_turn(t0 + ms(1));
    let due = timers.pop_due().unwrap();
    assert_eq!((due.owner, timers.cancel(due.key, 7)), (7, Some(())));
    assert_eq!((timers.len(), timers.cancel(due.key, 7)), (0, None));
}

#[test]
fn a_stale_key_finds_nothing_in_a_slot_used_again() {
    let t0 = Instant::now();
    let mut timers = Timers::new(t0);
    let old = timers.set(1, t0 + ms(1), None, "old");
    assert_eq!(fire(&mut timers, t0 + ms(1)), ["old"]);
    let new = timers.set(1, t0 + ms(2), None, "new");
    assert_eq!(old.slot, new.slot);
    assert_eq!(timers.cancel(old, 1), None);
    assert_eq!(timers.cancel(new, 2), None);
    assert_eq!(timers.cancel(new, 1), Some("new"));
}

#[test]
#[should_panic(expected = "period of a timer must not be zero")]
fn a_zero_period_panics() {
    let t0 = Instant::now();
    Timers::new(t0).set(0, t0, Some(Duration::ZERO), ());
}

#[test]
fn deadlines_beyond_the_clock_are_far_and_do_not_panic() {
    let t0 = Instant::now();
    let mut timers = Timers::new(t0 + ms(1));
    timers.set(0, deadline_after(t0, Duration::MAX), None, "never");
    timers.set(0, t0, Some(Duration::MAX), "once");
    assert_eq!(fire(&mut timers, t0 + ms(2)), ["once"]);
    let years = Duration::from_secs(29 * 365 * 24 * 3600);
    assert!(timers.next_deadline().unwrap() > t0 + years);
    assert_eq!(fire(&mut timers, t0 + ms(3)).len(), 0);
    // Time that steps back before the start is no worse.
    assert_eq!(fire(&mut timers, t0).len(), 0);
}

#[test]
fn an_owner_without_timers_costs_nothing() {
    let mut timers = Timers::<()>::new(Instant::now());
    timers.cancel_all(u32::MAX);
    assert_eq!(timers.heads.capacity(), 0);
}

#[test]
fn a_burst_gives_its_memory_back_though_late_timers_come_and_go() {
    let t0 = Instant::now();
    let mut timers = Timers::new(t0);
    let what = Rc::new(());
    let keys: Vec<_> = (0..100_000)
        .map(|i| timers.set(i % 2, t0 + ms(9), None, Rc::clone(&what)))
        .collect();
    let mut idle = [(); 2].map(|()| timers.set(4, t0 + ms(60), None, Rc::clone(&what)));
    timers.cancel_all(1);
    for key in keys.into_iter().step_by(2) {
        assert!(timers.cancel(key, 0).is_some());
    }
    assert_eq!((timers.len(), Rc::strong_count(&what)), (2, 3));
    assert!(timers.heap.capacity() <= SPARE_MIN);
    // The idle timeouts hold the far end, and move down as they are set anew, one by one.
    for _ in 0..2 {
        for key in &mut idle {
            assert!(timers.cancel(*key, 4).is_some());
            *key = timers.set(4, t0 + ms(70), None, Rc::clone(&what));
        }
        timers.check();
    }
    assert!(timers.slots.capacity() <= SPARE_MIN && timers.places.capacity() <= SPARE_MIN);
    timers.cancel_all(4);
    assert!(timers.slots.is_empty());
}

#[test]
fn a_slot_of_the_lowest_eighth_is_the_next_to_be_used_and_any_other_the_last() {
    let t0 = Instant::now();
    for (freed, next) in [(11, 11), (12, 50), (95, 50)] {
        let mut timers = Timers::new(t0);
        let keys: Vec<_> = (0..97)
            .map(|_| timers.set(0, t0 + ms(9), None, ()))
            .collect();
        for slot in [50, freed] {
            assert!(timers.cancel(keys[slot], 0).is_some());
        }
        assert_eq!(timers.set(0, t0, None, ()).slot, next, "freed: {freed}");
    }
}

#[test]
fn a_vector_shrinks_below_a_quarter_to_twice_of_what_is_used() {
    let shrunk = |capacity: usize, len: usize| {
        let mut vec = Vec::with_capacity(capacity);
        vec.resize(len, 0_u8);
        (shrink(&mut vec), vec.capacity())
    };
    assert_eq!(shrunk(SPARE_MIN, 0), (false, SPARE_MIN));
    assert!(!shrunk(4 * SPARE_MIN, SPARE_MIN).0);
    assert_eq!(shrunk(SPARE_MIN + 1, 0), (true, SPARE_MIN));
    let (is_shrunk, capacity) = shrunk(8 * SPARE_MIN, SPARE_MIN);
    assert!(is_shrunk && (2 * SPARE_MIN..4 * SPARE_MIN).contains(&capacity));
}

#[derive(Clone, Debug)]
enum Step {
    /// Deadlines are in steps of 1 ms from now, some of them past, so that many are equal.
    Set {
        owner: u32,
        deadline: i64,
        period: Option<u64>,
    },
    /// The timer set as the n-th, alive or not.
    Cancel {
        nth: usize,
        as_owner: u32,
    },
    CancelAll {
        owner: u32,
    },
    /// Time goes on, and a turn pops so many, each setting a new timer with no delay or cancelling
    /// one.
    Turn {
        advance: u64,
        budget: usize,
        sets: bool,
        cancels: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let period = prop_oneof![3 => Just(None), 1 => (1..40_u64).prop_map(Some)];
    prop_oneof![
        6 => (0..4_u32, -5..60_i64, period)
            .prop_map(|(owner, deadline, period)| Step::Set { owner, deadline, period }),
        3 => (0..200_usize, 0..4_u32).prop_map(|(nth, as_owner)| Step::Cancel { nth, as_owner }),
        1 => (0..5_u32).prop_map(|owner| Step::CancelAll { owner }),
        3 => (0..90_u64, 0..30_usize, any::<bool>(), 0..200_usize).prop_map(
            |(advance, budget, sets, cancels)| Step::Turn { advance, budget, sets, cancels }
        ),
    ]
}

/// The key, the owner, the period, and where it is queued, if it is.
type ModelTimer = (TimerKey, u32, Option<u64>, Option<(u64, u64)>);

/// What the timers ought to do, in nanoseconds of virtual time.
#[derive(Default)]
struct Model {
    /// By deadline and order of set: the timer's number.
    queue: BTreeMap<(u64, u64), usize>,
    /// By number.
    timers: Vec<ModelTimer>,
    order: u64,
    turn: u64,
}

impl Model {
    fn set(&mut self, key: TimerKey, owner: u32, deadline: u64, period: Option<u64>) {
        let at = self.enqueue(deadline.max(self.turn + 1), self.timers.len());
        self.timers.push((key, owner, period, Some(at)));
    }

    fn enqueue(&mut self, deadline: u64, number: usize) -> (u64, u64) {
        self.order += 1;
        self.queue.insert((deadline, self.order), number);
        (deadline, self.order)
    }

    fn cancel(&mut self, number: usize) -> bool {
        let at = self.timers[number].3.take();
        at.is_some_and(|at| self.queue.remove(&at).is_some())
    }

    fn pop_due(&mut self) -> Option<usize> {
        let (&at, &number) = self
            .queue
            .first_key_value()
            .filter(|(at, _)| at.0 <= self.turn)?;
        self.queue.remove(&at);
        self.timers[number].3 = self.timers[number].2.map(|period| {
            let next = (1..)
                .map(|k| at.0 + k * period)
                .find(|&next| next > self.turn);
            self.enqueue(next.unwrap(), number)
        });
        Some(number)
    }
}

proptest! {
    #[test]
    fn timers_do_what_the_model_does(steps in prop::collection::vec(step(), 1..200)) {
        let base = Instant::now();
        let at = |nanos: u64| base + Duration::from_nanos(nanos);
        let mut timers = Timers::new(base);
        let mut model = Model::default();
        let mut now = 0_u64;
        for step in steps {
            match step {
                Step::Set { owner, deadline, period } => {
                    let deadline = now.saturating_add_signed(deadline * 1_000_000);
                    let period = period.map(|period| period * 1_000_000);
                    let number = model.timers.len();
                    let key = timers.set(owner, at(deadline), period.map(Duration::from_nanos), number);
                    model.set(key, owner, deadline, period);
                }
                Step::Cancel { nth, as_owner } if nth < model.timers.len() => {
                    let (key, owner, ..) = model.timers[nth];
                    let expected = owner == as_owner && model.cancel(nth);
                    prop_assert_eq!(timers.cancel(key, as_owner), expected.then_some(nth));
                }
                Step::Cancel { .. } => {}
                Step::CancelAll { owner } => {
                    timers.cancel_all(owner);
                    for number in 0..model.timers.len() {
                        if model.timers[number].1 == owner {
                            model.cancel(number);
                        }
                    }
                }
                Step::Turn { advance, budget, sets, cancels } => {
                    now += advance * 1_000_000;
                    timers.begin_turn(at(now));
                    model.turn = now;
                    for _ in 0..budget {
                        let due = timers.pop_due();
                        prop_assert_eq!(due.as_ref().map(|due| due.what), model.pop_due());
                        let Some(due) = due else { break };
                        let (key, owner, ..) = model.timers[due.what];
                        prop_assert_eq!((due.key, due.owner), (key, owner));
                        if sets {
                            let number = model.timers.len();
                            model.set(timers.set(9, at(now), None, number), 9, now, None);
                        } else if let Some(&(key, owner, ..)) = model.timers.get(cancels) {
                            prop_assert_eq!(timers.cancel(key, owner).is_some(), model.cancel(cancels));
                        }
                    }
                }
            }
            timers.check();
            prop_assert_eq!(timers.len(), model.queue.len());
            prop_assert_eq!(timers.next_deadline(), model.queue.first_key_value().map(|(k, _)| at(k.0)));
        }
    }
}
