//! Rooms on a stage of `greenroom::testing`: who is in, what a push is, and in which order it comes,
//! turn by turn. Members are probes of that module, or actors that the hub spawns on its own poller.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::testing::{Probe, Stage};
use greenroom::*;

const SECOND: Duration = Duration::from_secs(1);

/// Notes by the number of the child that got them.
type Log = Arc<Mutex<Vec<(usize, u32)>>>;

#[derive(Default)]
struct Hub {
    members: Members<u32>,
    others: Members<u32>,
    left: Vec<(ActorId, bool)>,
    rooms: usize,
    children: Vec<Addr<Child>>,
    log: Log,
}

type Job<A> = Box<dyn FnOnce(&mut A, &mut Context<'_, A>) + Send>;

enum ToHub {
    Run(Job<Hub>),
    Left(Left),
}

impl From<Left> for ToHub {
    fn from(left: Left) -> ToHub {
        ToHub::Left(left)
    }
}

impl Actor for Hub {
    type Message = ToHub;

    fn message(&mut self, message: ToHub, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            ToHub::Run(job) => job(self, ctx),
            ToHub::Left(left) => self.left.push((left.member, self.members.left(&left))),
        }
        Ok(())
    }

    fn room(&mut self, _: &mut Context<'_, Self>) -> Outcome {
        self.rooms += 1;
        Ok(())
    }
}

struct Child {
    number: usize,
    log: Log,
}

enum ToChild {
    Note(u32),
    Run(Job<Child>),
}

impl From<u32> for ToChild {
    fn from(note: u32) -> ToChild {
        ToChild::Note(note)
    }
}

impl Actor for Child {
    type Message = ToChild;

    fn message(&mut self, message: ToChild, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            ToChild::Note(note) => {
                self.log.lock().unwrap().push((self.number, note));
                if note == ENDS {
                    ctx.close();
                }
            }
            ToChild::Run(job) => job(self, ctx),
        }
        Ok(())
    }
}

/// The note on which a child ends.
const ENDS: u32 = 1_000_000;

fn run(stage: &mut Stage<Hub>, job: impl FnOnce(&mut Hub, &mut Context<'_, Hub>) + Send + 'static) {
    stage.send(ToHub::Run(Box::new(job)));
}

/// A hub with so many children, all of them members.
fn family(children: usize) -> Stage<Hub> {
    let mut stage = Stage::without_socket(Hub::default());
    run(&mut stage, move |hub, ctx| {
        for number in 0..children {
            let log = hub.log.clone();
            let child = ctx.spawn(Child { number, log });
            assert!(hub.members.join(&child.recipient(), ctx));
            hub.children.push(child);
        }
    });
    stage
}

fn push(stage: &mut Stage<Hub>, notes: impl IntoIterator<Item = u32> + Send + 'static) {
    run(stage, |hub, _| {
        for note in notes {
            assert!(hub.members.push(note).is_ok());
        }
    });
}

/// What came since the last look.
fn came(stage: &Stage<Hub>) -> Vec<(usize, u32)> {
    std::mem::take(&mut stage.actor().log.lock().unwrap())
}

fn child(
    stage: &mut Stage<Hub>,
    number: usize,
    job: impl FnOnce(&mut Context<'_, Child>) + Send + 'static,
) {
    let child = stage.actor().children[number].clone();
    assert!(
        child
            .send(ToChild::Run(Box::new(|_, ctx| job(ctx))))
            .is_ok()
    );
    stage.run();
}

// ---- who is in ----------------------------------------------------------------------------------

#[test]
fn one_is_in_from_its_join_to_its_leave_or_its_end() {
    let (mut one, mut two) = (Probe::<u32>::new(), Probe::<u32>::new());
    let mut stage = Stage::without_socket(Hub::default());
    let (first, second) = (one.recipient::<u32>(), two.recipient::<u32>());
    run(&mut stage, move |hub, ctx| {
        let members = &mut hub.members;
        assert!(members.is_empty() && !members.leave(&first) && !members.contains(first.id()));
        assert!(members.join(&first, ctx) && !members.join(&first, ctx));
        assert!(members.join(&second, ctx));
        assert!(!members.is_empty() && members.contains(first.id()));
        assert_eq!(members.len(), 2);
        members.push(1).unwrap();
        assert!(members.leave(&first) && !members.leave(&first) && !members.contains(first.id()));
        members.push(2).unwrap();
        assert!(members.join(&first, ctx));
        members.push(3).unwrap();
        assert_eq!(format!("{members:?}"), "Members { len: 2, .. }");
    });
    assert_eq!(
        (one.take_all(), two.take_all()),
        (vec![1, 3], vec![1, 2, 3])
    );
    let (gone, here) = (one.id(), two.id());
    drop(one);
    stage.run();
    assert_eq!(stage.actor().left, [(gone, true)]);
    assert_eq!(stage.actor().members.len(), 1);
    assert!(stage.actor().members.contains(here));
}

#[test]
fn members_of_one_poller_and_type_cost_one_entry_for_each_push_and_none_when_all_have_left() {
    let mut stage = family(3);
    push(&mut stage, [7]);
    assert_eq!(
        (stage.stats().pushes, came(&stage)),
        (1, vec![(0, 7), (1, 7), (2, 7)])
    );
    child(&mut stage, 1, |ctx| ctx.close());
    assert_eq!(
        (stage.actor().left.len(), stage.actor().members.len()),
        (1, 2)
    );
    push(&mut stage, [8]);
    assert_eq!(
        (stage.stats().pushes, came(&stage)),
        (2, vec![(0, 8), (2, 8)])
    );
    run(&mut stage, |hub, ctx| {
        for number in [0, 2] {
            assert!(hub.members.leave(&hub.children[number].recipient()));
        }
        hub.members.push(9).unwrap();
        let one = hub.children[0].recipient();
        assert!(hub.members.join(&one, ctx));
    });
    assert_eq!(stage.stats().pushes, 2, "nobody was in");
    push(&mut stage, [10]);
    assert_eq!(came(&stage), [(0, 10)]);
    // One that has left ends without a word.
    child(&mut stage, 2, |ctx| ctx.close());
    assert_eq!(stage.actor().left.len(), 1);
}

#[test]
fn one_that_has_ended_before_it_joins_is_told_as_left() {
    let mut stage = family(1);
    child(&mut stage, 0, |ctx| ctx.close());
    let id = stage.actor().children[0].id();
    assert_eq!(stage.actor().left, [(id, true)]);
    run(&mut stage, |hub, ctx| {
        let gone = hub.children[0].recipient();
        assert!(hub.members.join(&gone, ctx));
    });
    assert_eq!(stage.actor().left, [(id, true); 2]);
    assert!(stage.actor().members.is_empty());
}

#[test]
fn who_is_in_two_rooms_leaves_each_by_itself_and_both_by_its_end() {
    let mut stage = family(2);
    run(&mut stage, |hub, ctx| {
        for child in &hub.children {
            assert!(hub.others.join(&child.recipient(), ctx));
        }
        assert!(hub.members.leave(&hub.children[0].recipient()));
    });
    run(&mut stage, |hub, _| {
        hub.members.push(1).unwrap();
        hub.others.push(2).unwrap();
        hub.members.push(3).unwrap();
    });
    // Those of one room are not handed out past those of the other.
    assert_eq!(came(&stage), [(1, 1), (0, 2), (1, 2), (1, 3)]);
    child(&mut stage, 0, |ctx| ctx.close());
    child(&mut stage, 1, |ctx| ctx.close());
    let left = |number: usize| {
        let id = stage.actor().children[number].id();
        stage
            .actor()
            .left
            .iter()
            .filter(|left| left.0 == id)
            .count()
    };
    assert_eq!((left(0), left(1)), (1, 2));
}

#[test]
fn the_end_of_a_room_leaves_its_members_in_their_others() {
    let mut stage = family(2);
    run(&mut stage, |hub, ctx| {
        for child in &hub.children {
            assert!(hub.others.join(&child.recipient(), ctx));
        }
        hub.members = Members::new();
        assert_eq!(hub.members.len(), 0);
    });
    run(&mut stage, |hub, _| {
        hub.members.push(1).unwrap();
        hub.others.push(2).unwrap();
    });
    assert_eq!(came(&stage), [(0, 2), (1, 2)]);
    child(&mut stage, 0, |ctx| ctx.close());
    assert_eq!(stage.actor().left.len(), 1, "from one room");
}

// ---- a walk -------------------------------------------------------------------------------------

#[test]
fn pushes_of_one_turn_come_to_one_member_after_another_up_to_sixty_four() {
    let mut stage = family(2);
    push(&mut stage, 0..130);
    let mut expected = Vec::new();
    for pushes in [0..64, 64..128, 128..130] {
        for number in 0..2 {
            expected.extend(pushes.clone().map(|note| (number, note)));
        }
    }
    assert_eq!(came(&stage), expected);
}

#[test]
fn a_message_between_two_pushes_comes_between_them() {
    let mut stage = family(2);
    run(&mut stage, |hub, _| {
        hub.members.push(1).unwrap();
        assert!(hub.children[1].send(ToChild::Note(2)).is_ok());
        hub.members.push(3).unwrap();
    });
    let expected = [(0, 1), (1, 1), (1, 2), (0, 3), (1, 3)];
    assert_eq!(came(&stage), expected);
}

#[test]
fn a_walk_over_more_members_than_a_turn_takes_finds_each_once() {
    const MANY: usize = 3_000;
    let mut stage = family(MANY);
    push(&mut stage, [1, 2]);
    let expected: Vec<_> = (0..MANY)
        .flat_map(|number| [(number, 1), (number, 2)])
        .collect();
    assert!(came(&stage) == expected);
    // What is left when most have gone is found as well, at places that have moved.
    run(&mut stage, |hub, _| {
        for number in (0..MANY).filter(|number| number % 100 != 0) {
            assert!(hub.members.leave(&hub.children[number].recipient()));
        }
    });
    push(&mut stage, [3]);
    let expected: Vec<_> = (0..MANY).step_by(100).map(|number| (number, 3)).collect();
    assert!(came(&stage) == expected);
}

#[test]
fn members_that_end_in_a_walk_get_no_more_of_it_and_the_others_all() {
    let mut stage = family(3);
    run(&mut stage, |hub, _| {
        assert!(hub.members.leave(&hub.children[2].recipient()));
    });
    push(&mut stage, [1, ENDS, 2]);
    assert_eq!(came(&stage), [(0, 1), (0, ENDS), (1, 1), (1, ENDS)]);
    assert_eq!(
        (stage.actor().left.len(), stage.stats().dead_letters),
        (2, 0)
    );
    push(&mut stage, [3]);
    assert_eq!(came(&stage), []);
}

#[test]
fn members_that_end_between_the_turns_of_a_walk_move_nobody_out_of_its_way() {
    const MANY: usize = 3_000;
    let mut stage = family(MANY);
    push(&mut stage, [ENDS]);
    assert!(
        came(&stage)
            .into_iter()
            .eq((0..MANY).map(|number| (number, ENDS)))
    );
    assert_eq!(stage.actor().left.len(), MANY);
}

#[test]
fn pushes_to_a_member_that_waits_are_kept_for_it_and_for_nobody_else() {
    let mut hub = Probe::<u32>::with_bound(2);
    while hub.recipient::<u32>().send(0).is_ok() {}
    let mut stage = family(3);
    let full = hub.recipient::<u32>();
    child(&mut stage, 1, move |ctx| ctx.wait_for_room(&full));
    push(&mut stage, [1, 2]);
    push(&mut stage, [3]);
    let notes = |number| [1, 2, 3].map(|note| (number, note));
    assert_eq!(
        came(&stage),
        [(0, 1), (0, 2), (2, 1), (2, 2), (0, 3), (2, 3)]
    );
    hub.take_all();
    stage.run();
    assert_eq!(came(&stage), notes(1));
    push(&mut stage, [4]);
    assert_eq!(came(&stage), [(0, 4), (1, 4), (2, 4)]);
    // One that ends while it waits leaves what was kept behind as dead letters.
    while hub.recipient::<u32>().send(0).is_ok() {}
    let full = hub.recipient::<u32>();
    child(&mut stage, 1, move |ctx| ctx.wait_for_room(&full));
    push(&mut stage, [5]);
    stage.actor().children[1].close();
    stage.run();
    hub.take_all();
    stage.run();
    assert_eq!(stage.actor().left.len(), 1);
}

#[test]
fn what_was_kept_for_one_that_waits_comes_a_turns_worth_a_turn_and_gives_its_places_back() {
    const MANY: u32 = 7_000;
    let mut full = Probe::<u32>::with_bound(2);
    let mut stage = family(1);
    // More than its mailbox has places for, were they not given back.
    for _ in 0..3 {
        while full.recipient::<u32>().send(0).is_ok() {}
        let to = full.recipient::<u32>();
        child(&mut stage, 0, move |ctx| ctx.wait_for_room(&to));
        let (addr, hub) = (stage.actor().children[0].clone(), stage.addr());
        for note in 0..MANY {
            assert!(addr.send(ToChild::Note(note)).is_ok());
            stage.run();
        }
        assert_eq!(came(&stage), []);
        let log = stage.actor().log.clone();
        let seen = Arc::new(Mutex::new(0));
        let first = seen.clone();
        // Behind what is kept; the hub has its turn before the rest comes.
        full.take_all();
        assert!(
            hub.send(ToHub::Run(Box::new(move |_, ctx| {
                let again = ToHub::Run(Box::new(move |_, _| {
                    *first.lock().unwrap() = log.lock().unwrap().len()
                }));
                assert!(ctx.addr().send(again).is_ok());
            })))
            .is_ok()
        );
        stage.run();
        assert!((1..=1_024).contains(&*seen.lock().unwrap()), "{seen:?}");
        assert!(came(&stage).into_iter().map(|(_, note)| note).eq(0..MANY));
    }
}

/// A member of another type, which ends on the first note.
struct Guest;

impl Actor for Guest {
    type Message = u32;

    fn message(&mut self, _: u32, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.close();
        Ok(())
    }
}

#[test]
fn the_end_of_another_does_not_keep_what_was_kept_for_one_that_waited() {
    let mut full = Probe::<u32>::with_bound(2);
    while full.recipient::<u32>().send(0).is_ok() {}
    let mut stage = family(2);
    let guest = Arc::new(Mutex::new(None));
    let put = guest.clone();
    run(&mut stage, move |hub, ctx| {
        let guest = ctx.spawn(Guest);
        assert!(hub.others.join(&guest.recipient(), ctx));
        *put.lock().unwrap() = Some(guest);
    });
    for number in 0..2 {
        let to = full.recipient::<u32>();
        child(&mut stage, number, move |ctx| ctx.wait_for_room(&to));
    }
    // More than one turn takes; with the first of it the guest ends.
    child(&mut stage, 0, move |_| {
        let guest = guest.lock().unwrap().take().unwrap();
        assert!(guest.send(ENDS).is_ok());
    });
    push(&mut stage, 0..2_000);
    assert_eq!(came(&stage), []);
    full.take_all();
    stage.run();
    assert_eq!(stage.stats().closed, 1);
    for number in 0..2 {
        let log = stage.actor().log.clone();
        let log = log.lock().unwrap();
        let notes = log.iter().filter(|(to, _)| *to == number);
        assert!(notes.map(|(_, note)| *note).eq(0..2_000));
    }
}

// ---- a refused push -----------------------------------------------------------------------------

#[test]
fn a_push_is_refused_where_there_is_no_room_and_comes_there_when_it_is_pushed_again() {
    let (mut small, mut large) = (Probe::<u32>::with_bound(2), Probe::<u32>::new());
    let mut stage = Stage::without_socket(Hub::default());
    let (first, second) = (small.recipient::<u32>(), large.recipient::<u32>());
    let poller = small.id().to_string();
    let poller: usize = poller.split('.').next().unwrap().parse().unwrap();
    let back = Arc::new(Mutex::new(None));
    let refused = back.clone();
    run(&mut stage, move |hub, ctx| {
        assert!(hub.members.join(&first, ctx) && hub.members.join(&second, ctx));
        hub.members.push(1).unwrap();
        hub.members.push(2).unwrap();
        let again = hub.members.push(3).unwrap_err();
        assert!(again.message() == &3 && again.pollers().eq([poller]));
        assert_eq!(again.to_string(), "push: 1 mailboxes are full");
        assert!(format!("{again:?}").starts_with("Refused { pollers: ["));
        ctx.wait_for_room(&again);
        *refused.lock().unwrap() = Some(again);
    });
    assert!(stage.is_waiting());
    assert_eq!(large.take_all(), [1, 2, 3]);
    assert_eq!(small.take_all(), [1, 2]);
    stage.run();
    assert_eq!((stage.is_waiting(), stage.actor().rooms), (false, 1));
    run(&mut stage, move |hub, _| {
        let again = back.lock().unwrap().take().unwrap();
        hub.members.push_again(again).unwrap();
    });
    assert_eq!((small.take_all(), large.take_all()), (vec![3], vec![]));
}

// ---- what comes ready made ----------------------------------------------------------------------

#[test]
fn a_broadcaster_welcomes_once_counts_and_refuses_past_its_limit() {
    let broadcaster = Broadcaster::new()
        .limit(2, |max| 1_000 + max as u32)
        .welcome(|members| 100 + members as u32);
    let mut stage = Stage::without_socket(broadcaster);
    let mut probes = [(); 3].map(|()| Probe::<u32>::new());
    for probe in &probes {
        stage.send(Broadcast::Join(probe.recipient()));
        stage.send(Broadcast::Join(probe.recipient()));
    }
    assert_eq!(stage.ask(Broadcast::Count), Ok(2));
    stage.send(Broadcast::Push(7));
    let came = probes.each_mut().map(Probe::take_all);
    assert_eq!(came, [vec![101, 7], vec![102, 7], vec![1_002, 1_002]]);
    stage.send(Broadcast::Leave(probes[0].recipient()));
    assert_eq!(stage.ask(Broadcast::Count), Ok(1));
    let [first, second, third] = probes;
    drop(second);
    stage.run();
    assert_eq!(stage.ask(Broadcast::Count), Ok(0));
    stage.addr().join(first.recipient::<u32>());
    stage.addr().leave(third.recipient::<u32>());
    stage.run();
    assert_eq!(stage.ask(Broadcast::Count), Ok(1));
    stage.addr().leave(first.recipient::<u32>());
    stage.run();
    assert_eq!(stage.ask(Broadcast::Count), Ok(0));
}

#[test]
fn a_broadcaster_pushes_every_period_but_while_a_push_of_its_waits_for_room() {
    let broadcaster = Broadcaster::new().every(SECOND, |members| members as u32);
    let mut stage = Stage::without_socket(broadcaster);
    let mut probe = Probe::<u32>::with_bound(2);
    stage.advance(SECOND);
    stage.send(Broadcast::Join(probe.recipient()));
    assert_eq!(probe.take(), None, "nothing from before");
    stage.advance(2 * SECOND);
    assert!(!stage.is_waiting());
    // The third does not go in, and ticks are skipped until it has.
    stage.advance(5 * SECOND);
    assert!(stage.is_waiting());
    assert_eq!(probe.take_all(), [1, 1]);
    stage.run();
    assert_eq!((stage.is_waiting(), probe.take_all()), (false, vec![1]));
    stage.advance(SECOND);
    assert_eq!(probe.take_all(), [1]);
}

#[test]
fn a_broadcaster_takes_no_message_before_its_refused_push_has_gone_through() {
    let mut stage = Stage::without_socket(Broadcaster::<u32>::default());
    let mut probe = Probe::<u32>::with_bound(2);
    stage.send(Broadcast::Join(probe.recipient()));
    for note in 0..10_u32 {
        stage.send(Broadcast::Push(note));
    }
    let mut came = Vec::new();
    while came.len() < 10 {
        let taken = probe.take_all();
        assert!(!taken.is_empty() && taken.len() <= 2, "{came:?} {taken:?}");
        came.extend(taken);
        stage.run();
    }
    assert!(came.iter().copied().eq(0..10_u32), "{came:?}");
    assert!(format!("{:?}", stage.actor()).starts_with("Broadcaster { members: Members"));
}
