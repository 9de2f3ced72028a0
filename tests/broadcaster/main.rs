//! Pushing to many: what it costs, in which order it comes, and how members come and go.

#[path = "../util/mod.rs"]
mod util;

mod by_hand;
mod members;

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use greenroom::*;
use util::*;

// ---- members of two types -------------------------------------------------------------------------------------------

/// What came to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Note(u32);

/// What a member is sent: notes, and what else its type takes.
enum Do {
    Note(Note),
    Nothing,
}

impl From<Note> for Do {
    fn from(note: Note) -> Do {
        Do::Note(note)
    }
}

/// A member that takes notes among other things, and reports them with its number.
struct Member {
    number: usize,
    log: Sender<(usize, u32)>,
    /// Ends itself, in this way, on this note.
    ends: Option<(u32, End)>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Close,
    Panic,
    Error,
}

impl Actor for Member {
    type Message = Do;

    fn readable(&mut self, input: &mut Input<'_>, _: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        Ok(())
    }

    fn message(&mut self, message: Do, ctx: &mut Context<'_, Self>) -> Outcome {
        let Do::Note(Note(note)) = message else {
            return Ok(());
        };
        self.log.send((self.number, note))?;
        match self.ends {
            Some((on, end)) if on == note => match end {
                End::Close => ctx.close(),
                End::Panic => panic!("a member ends"),
                End::Error => return Err("a member ends".into()),
            },
            _ => {}
        }
        Ok(())
    }
}

/// A member of another type, whose message is the note itself.
struct Plain {
    number: usize,
    log: Sender<(usize, u32)>,
}

impl Actor for Plain {
    type Message = Note;

    fn message(&mut self, Note(note): Note, _: &mut Context<'_, Self>) -> Outcome {
        Ok(self.log.send((self.number, note))?)
    }
}

type Room = Addr<Broadcaster<Note>>;

/// A room on poller 0 and the means to fill it.
struct Hall {
    system: System,
    room: Room,
    log: Sender<(usize, u32)>,
    notes: Receiver<(usize, u32)>,
}

impl Hall {
    fn new(pollers: usize) -> Hall {
        Hall::with(builder(pollers), Broadcaster::new)
    }

    fn with(builder: Builder, make: impl FnOnce() -> Broadcaster<Note> + Send + 'static) -> Hall {
        let system = builder.build().unwrap();
        let room = system.spawn_on(0, make);
        let (log, notes) = channel();
        Hall {
            system,
            room,
            log,
            notes,
        }
    }

    fn member(&self, poller: usize, number: usize) -> Recipient<Note> {
        self.ending(poller, number, None)
    }

    fn ending(&self, poller: usize, number: usize, ends: Option<(u32, End)>) -> Recipient<Note> {
        let log = self.log.clone();
        self.system
            .spawn_on(poller, move || Member { number, log, ends })
            .into()
    }

    fn plain(&self, poller: usize, number: usize) -> Recipient<Note> {
        let log = self.log.clone();
        self.system
            .spawn_on(poller, move || Plain { number, log })
            .into()
    }

    fn tell(&self, order: Broadcast<Note>) {
        assert!(send_patiently(&self.room, order));
    }

    fn join(&self, member: &Recipient<Note>) {
        self.tell(Broadcast::Join(member.clone()));
    }

    fn count(&self) -> usize {
        self.room.ask(TIMEOUT, Broadcast::Count).unwrap()
    }

    /// The next `n` notes, by the number of who got them.
    #[track_caller]
    fn came(&self, n: usize) -> HashMap<usize, Vec<u32>> {
        let mut came: HashMap<usize, Vec<u32>> = HashMap::new();
        for _ in 0..n {
            let (number, note) = next(&self.notes);
            came.entry(number).or_default().push(note);
        }
        came
    }

    #[track_caller]
    fn nothing_more(&self) {
        settle(&self.system);
        assert_eq!(self.notes.try_recv().ok(), None);
    }
}

#[test]
fn a_push_costs_the_same_at_one_member_and_at_a_thousand() {
    let costs = [1, 1_000].map(|members| {
        let hall = Hall::new(2);
        for number in 0..members {
            hall.join(&hall.member(1, number));
        }
        assert_eq!(hall.count(), members);
        settle(&hall.system);
        let before = hall.system.stats();
        let mut most = 0;
        for note in 0..50 {
            let wakes = hall.system.stats().wakes;
            // One for the hub's poller at most, and one for that of the members.
            hall.tell(Broadcast::Push(Note(note)));
            assert_eq!(hall.came(members).len(), members);
            most = most.max(hall.system.stats().wakes - wakes);
        }
        let after = hall.system.stats();
        (after.pushes - before.pushes, most)
    });
    assert_eq!(costs[0].0, 50, "one entry for each push");
    assert_eq!(costs[0].0, costs[1].0);
    assert!(costs.iter().all(|(_, wakes)| *wakes <= 2), "{costs:?}");
}

#[test]
fn a_push_is_one_entry_for_each_poller_and_type_that_has_members() {
    let hall = Hall::new(2);
    let members = [
        hall.member(0, 0),
        hall.member(1, 1),
        hall.member(1, 2),
        hall.plain(1, 3),
    ];
    for (at, pushes) in [(0, 1), (1, 2), (2, 2), (3, 3)] {
        hall.join(&members[at]);
        let before = hall.system.stats().pushes;
        hall.tell(Broadcast::Push(Note(1)));
        hall.came(at + 1);
        assert_eq!(hall.system.stats().pushes - before, pushes);
    }
    for member in &members {
        hall.tell(Broadcast::Leave(member.clone()));
    }
    let before = hall.system.stats().pushes;
    hall.tell(Broadcast::Push(Note(2)));
    assert_eq!(hall.count(), 0);
    assert_eq!(hall.system.stats().pushes, before, "nobody is there");
    hall.nothing_more();
}

#[test]
fn pushes_come_in_one_order_for_all_members_over_pollers_and_types() {
    const PUSHES: u32 = 2_000;
    let hall = Hall::new(2);
    let members: Vec<_> = (0..20)
        .map(|n| {
            if n % 3 == 0 {
                hall.plain(n % 2, n)
            } else {
                hall.member(n % 2, n)
            }
        })
        .collect();
    members.iter().for_each(|member| hall.join(member));
    std::thread::scope(|scope| {
        for sender in 0..2 {
            let room = &hall.room;
            scope.spawn(move || {
                for n in 0..PUSHES {
                    assert!(send_patiently(room, Broadcast::Push(Note(2 * n + sender))));
                }
            });
        }
    });
    let came = hall.came(members.len() * 2 * PUSHES as usize);
    assert_eq!(came.len(), members.len());
    assert!(
        came.values().all(|notes| *notes == came[&0]),
        "all see one order"
    );
    for sender in 0..2 {
        let own = came[&0].iter().filter(|note| *note % 2 == sender);
        assert!(
            own.copied().eq((0..PUSHES).map(|n| 2 * n + sender)),
            "in which each sender's order is kept"
        );
    }
}

/// So that a member on a connection is written to once for all of them.
#[test]
fn pushes_that_wait_come_to_one_member_after_another() {
    let hall = Hall::new(2);
    (0..100).for_each(|number| hall.join(&hall.member(1, number)));
    assert_eq!(hall.count(), 100);
    settle(&hall.system);
    let probe = spawn(&hall.system, 1, |probe| probe);
    let held = hold(&probe);
    (0..50).for_each(|note| hall.tell(Broadcast::Push(Note(note))));
    assert_eq!(hall.count(), 100, "all are pushed");
    drop(held);
    for number in 0..100 {
        for note in 0..50 {
            assert_eq!(next(&hall.notes), (number, note));
        }
    }
}

#[test]
fn joining_twice_is_joining_once_and_leaving_is_at_once() {
    let hall = Hall::new(2);
    let (one, two) = (hall.member(1, 1), hall.member(1, 2));
    for _ in 0..2 {
        hall.join(&one);
        hall.join(&two);
    }
    assert_eq!(hall.count(), 2);
    hall.tell(Broadcast::Push(Note(1)));
    assert_eq!(hall.came(2).len(), 2);
    hall.tell(Broadcast::Leave(one.clone()));
    hall.tell(Broadcast::Leave(one.clone()));
    hall.tell(Broadcast::Push(Note(2)));
    assert_eq!(hall.came(1), HashMap::from([(2, vec![2])]));
    hall.join(&one);
    hall.tell(Broadcast::Push(Note(3)));
    assert_eq!(hall.came(2).len(), 2);
    assert_eq!(hall.count(), 2);
    hall.nothing_more();
}

#[test]
fn members_that_end_during_a_push_leave_and_the_others_get_it() {
    let hall = Hall::new(2);
    let ends = [End::Close, End::Panic, End::Error];
    for number in 0..300 {
        let end = (number % 2 == 0).then(|| (5, ends[number / 2 % 3]));
        hall.join(&hall.ending(number % 2, number, end));
    }
    for note in 0..10 {
        hall.tell(Broadcast::Push(Note(note)));
    }
    let came = hall.came(150 * 10 + 150 * 6);
    for number in 0..300 {
        let until = if number % 2 == 0 { 6 } else { 10 };
        assert!(
            came[&number].iter().copied().eq(0..until),
            "{number}: {:?}",
            came[&number]
        );
    }
    wait_until("those that ended have left", || hall.count() == 150);
    hall.nothing_more();
    assert_eq!(hall.system.stats().dead_letters, 0);
}

#[test]
fn a_room_with_many_members_starves_no_connection_while_it_walks() {
    const MEMBERS: usize = 20_000;
    struct Crowd(Arc<AtomicUsize>, Arc<Gate>);
    struct Gate(std::sync::Mutex<(Sender<()>, Receiver<()>)>);
    impl Actor for Crowd {
        type Message = Note;
        fn message(&mut self, _: Note, _: &mut Context<'_, Self>) -> Outcome {
            if self.0.fetch_add(1, SeqCst) == 0 {
                let gate = self.1.0.lock().unwrap();
                gate.0.send(())?;
                let _ = gate.1.recv_timeout(TIMEOUT);
            }
            Ok(())
        }
    }
    let delivered = Arc::<AtomicUsize>::default();
    let (log, seen) = channel();
    let count = delivered.clone();
    let stage = Stage::with(ConnectionOptions::new(), move |probe| {
        let (log, count) = (log.clone(), count.clone());
        probe.on_readable(move |input, ctx| {
            log.send(count.load(SeqCst))?;
            ctx.write(input.take_all());
            Ok(())
        })
    });
    let (mut client, _probe) = stage.pair();
    let (begun, has_begun) = channel();
    let (go_on, may_go_on) = channel::<()>();
    let gate = Arc::new(Gate(std::sync::Mutex::new((begun, may_go_on))));
    let room = stage.system.spawn(Broadcaster::<Note>::new);
    for _ in 0..MEMBERS {
        let (count, gate) = (delivered.clone(), gate.clone());
        let member = stage.system.spawn(move || Crowd(count, gate));
        assert!(send_patiently(&room, Broadcast::Join(member.into())));
    }
    assert!(send_patiently(&room, Broadcast::Push(Note(1))));
    // The first member has it, and all the others are to get it, when the client writes.
    next(&has_begun);
    client.write_all(b"!").unwrap();
    drop(go_on);
    let before = next(&seen);
    assert!(
        before < MEMBERS / 2,
        "{before} members had it before the connection had its turn"
    );
    assert_eq!(read(&client, 1), b"!");
    wait_until("all members have it", || delivered.load(SeqCst) == MEMBERS);
}

// ---- what comes ready made ------------------------------------------------------------------------------------------

#[test]
fn a_broadcaster_with_a_limit_refuses_those_past_it_and_takes_the_next_when_one_has_left() {
    let hall = Hall::with(builder(2), || {
        Broadcaster::new().limit(2, |max| Note(1_000 + max as u32))
    });
    let members: Vec<_> = (0..3).map(|n| hall.member(n % 2, n)).collect();
    members.iter().for_each(|member| hall.join(member));
    assert_eq!(hall.came(1), HashMap::from([(2, vec![1_002])]));
    hall.join(&members[0]);
    assert_eq!(hall.count(), 2, "one who is in is not refused");
    hall.tell(Broadcast::Push(Note(1)));
    assert_eq!(hall.came(2), HashMap::from([(0, vec![1]), (1, vec![1])]));
    members[0].close();
    wait_until("it has left", || hall.count() == 1);
    hall.join(&members[2]);
    assert_eq!(hall.count(), 2);
    hall.tell(Broadcast::Push(Note(2)));
    assert_eq!(hall.came(2), HashMap::from([(1, vec![2]), (2, vec![2])]));
    hall.nothing_more();
}

#[test]
fn a_broadcaster_pushes_every_period_and_is_told_how_many_members_there_are() {
    let hall = Hall::with(builder(2), || {
        Broadcaster::new().every(Duration::from_millis(2), |members| Note(members as u32))
    });
    hall.join(&hall.member(1, 0));
    for _ in 0..5 {
        assert_eq!(next(&hall.notes), (0, 1));
    }
    hall.join(&hall.member(0, 1));
    wait_until("both are told of two", || {
        hall.notes.try_iter().any(|note| note == (1, 2))
    });
    assert!(
        std::panic::catch_unwind(|| Broadcaster::new().every(Duration::ZERO, |_| Note(0))).is_err()
    );
}

#[test]
fn a_message_to_a_member_is_none_of_the_rooms_business() {
    // A member may take more than notes.
    let hall = Hall::new(1);
    let log = hall.log.clone();
    let member = hall.system.spawn(|| Member {
        number: 1,
        log,
        ends: None,
    });
    hall.join(&member.recipient());
    member.send(Do::Nothing).map_err(|_| ()).unwrap();
    hall.tell(Broadcast::Push(Note(1)));
    assert_eq!(hall.came(1), HashMap::from([(1, vec![1])]));
}
