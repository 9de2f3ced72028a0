//! A hub of one's own around `Members`: who leaves when, and what a refused push is told.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};

use greenroom::*;

use super::util::*;
use super::{Do, End, Hall, Member, Note};

type OnHub = Box<dyn FnOnce(&mut Members<Note>, &mut Context<'_, Hub>) + Send>;

/// A hub that does what it is sent and reports who has left.
struct Hub {
    members: Members<Note>,
    left: Sender<(ActorId, bool)>,
    room: Sender<()>,
}

enum ToHub {
    Run(OnHub),
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
            ToHub::Run(job) => job(&mut self.members, ctx),
            ToHub::Left(left) => {
                let was_in = self.members.left(&left);
                self.left.send((left.member, was_in))?;
            }
        }
        Ok(())
    }

    fn room(&mut self, _: &mut Context<'_, Self>) -> Outcome {
        Ok(self.room.send(())?)
    }
}

struct Own {
    hall: Hall,
    hub: Addr<Hub>,
    left: Receiver<(ActorId, bool)>,
    has_room: Receiver<()>,
}

impl Own {
    fn new(builder: Builder) -> Own {
        let hall = Hall::with(builder, Broadcaster::new);
        let ((left, who_left), (room, has_room)) = (channel(), channel());
        let hub = hall.system.spawn_on(0, || Hub {
            members: Members::new(),
            left,
            room,
        });
        Own {
            hall,
            hub,
            left: who_left,
            has_room,
        }
    }

    /// Does something in a callback of the hub.
    #[track_caller]
    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Members<Note>, &mut Context<'_, Hub>) -> T + Send + 'static,
    ) -> T {
        let (done, result) = channel();
        let job: OnHub = Box::new(move |members, ctx| {
            let _ = done.send(job(members, ctx));
        });
        assert!(send_patiently(&self.hub, ToHub::Run(job)));
        next(&result)
    }

    fn join(&self, member: &Recipient<Note>) -> bool {
        let member = member.clone();
        self.run(move |members, ctx| members.join(&member, ctx))
    }

    #[track_caller]
    fn nobody_else_left(&self) {
        settle(&self.hall.system);
        settle(&self.hall.system);
        assert_eq!(self.left.try_recv().ok(), None);
    }
}

#[test]
fn a_member_leaves_exactly_once_by_whatever_end() {
    let own = Own::new(builder(2));
    for poller in 0..2 {
        for end in [End::Close, End::Panic, End::Error] {
            let member = own.hall.ending(poller, 1, Some((7, end)));
            assert!(own.join(&member));
            assert!(!own.join(&member), "it is in already");
            assert!(own.run({
                let id = member.id();
                move |members, _| members.len() == 1 && members.contains(id)
            }));
            own.run(|members, _| members.push(Note(7)).map_err(|_| ()).unwrap());
            assert_eq!(next(&own.left), (member.id(), true), "{end:?}");
            own.hall.came(1);
            assert!(own.run(|members, _| members.is_empty()));
        }
        let member = own.hall.member(poller, 2);
        own.join(&member);
        member.close();
        assert_eq!(next(&own.left), (member.id(), true));
    }
    own.nobody_else_left();
}

#[test]
fn a_connection_leaves_exactly_once_when_its_peer_closes_or_resets_and_when_the_system_stops() {
    let own = Own::new(builder(2));
    let (made, members) = channel();
    struct Door(Sender<Recipient<Note>>, Member);
    impl Actor for Door {
        type Message = Do;
        fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
            Ok(self.0.send(ctx.addr().into())?)
        }
        fn readable(&mut self, input: &mut Input<'_>, _: &mut Context<'_, Self>) -> Outcome {
            input.take_all();
            Ok(())
        }
        fn message(&mut self, message: Do, ctx: &mut Context<'_, Self>) -> Outcome {
            let Do::Note(Note(note)) = message else {
                return Ok(());
            };
            self.1.log.send((self.1.number, note))?;
            ctx.write(note.to_string());
            Ok(())
        }
    }
    let log = own.hall.log.clone();
    let options = ListenOptions::new().balance(Balance::RoundRobin);
    let listener = own
        .hall
        .system
        .listen_with("127.0.0.1:0", options, move |_| {
            Door(
                made.clone(),
                Member {
                    number: 1,
                    log: log.clone(),
                    ends: None,
                },
            )
        })
        .unwrap();
    let mut clients = Vec::new();
    let mut recipients = Vec::new();
    for _ in 0..6 {
        clients.push(connect(&listener));
        let member = next(&members);
        own.join(&member);
        recipients.push(member);
    }
    own.run(|members, _| members.push(Note(5)).map_err(|_| ()).unwrap());
    own.hall.came(6);
    for client in &mut clients {
        assert_eq!(read(&*client, 1), b"5");
    }
    // Which recipient is whose is seen by who leaves.
    let mut gone = Vec::new();
    drop(clients.pop());
    gone.push(next(&own.left));
    reset(clients.pop().unwrap());
    gone.push(next(&own.left));
    half_close(&clients.pop().unwrap());
    gone.push(next(&own.left));
    own.hall.system.handle().stop(TIMEOUT);
    for client in &mut clients {
        let _ = client.read(&mut [0]);
    }
    drop(clients);
    for _ in 0..3 {
        gone.push(next(&own.left));
    }
    let Own { hall, left, .. } = own;
    hall.system.run().unwrap();
    assert_eq!(left.try_recv().ok(), None, "each leaves once");
    assert!(
        gone.iter()
            .all(|(id, was_in)| *was_in && recipients.iter().any(|member| member.id() == *id))
    );
    gone.sort();
    gone.dedup();
    assert_eq!(gone.len(), 6);
}

#[test]
fn one_who_left_before_its_end_is_not_told_again() {
    let own = Own::new(builder(2));
    for poller in 0..2 {
        let member = own.hall.member(poller, 1);
        own.join(&member);
        let left = member.clone();
        assert!(own.run(move |members, _| members.leave(&left)));
        let left = member.clone();
        assert!(!own.run(move |members, _| members.leave(&left)));
        settle(&own.hall.system);
        member.close();
        own.nobody_else_left();
        assert!(own.run(|members, _| members.is_empty()));
    }
}

#[test]
fn a_member_that_leaves_and_ends_at_once_leaves_once() {
    let own = Own::new(builder(2));
    let probes = [0, 1].map(|poller| spawn(&own.hall.system, poller, |probe| probe));
    for probe in &probes {
        // Its end is told already when the hub takes it out, or the other way round.
        let member = own.hall.member(probe.addr.poller(), 1);
        own.join(&member);
        let left = member.clone();
        let was_in = own.run(move |members, _| {
            left.close();
            members.leave(&left)
        });
        assert!(was_in);
        settle(&own.hall.system);
        settle(&own.hall.system);
        for (id, was_in) in own.left.try_iter() {
            assert_eq!((id, was_in), (member.id(), false), "it had been taken out");
        }
        assert!(own.run(|members, _| members.is_empty()));
    }
}

#[test]
fn joining_one_who_has_gone_gives_left() {
    let own = Own::new(builder(2));
    for poller in 0..2 {
        let member = own.hall.member(poller, 1);
        member.close();
        wait_until("it has gone", || member.is_gone());
        assert!(own.join(&member));
        assert_eq!(next(&own.left), (member.id(), true));
        assert!(own.run(|members, _| members.is_empty()));
    }
    own.nobody_else_left();
}

#[test]
fn a_member_of_two_rooms_leaves_both() {
    let (one, two) = (Own::new(builder(2)), Own::new(builder(2)));
    // Of two systems, even.
    let member = one.hall.member(1, 1);
    one.join(&member);
    two.join(&member);
    two.run(|members, _| members.push(Note(3)).map_err(|_| ()).unwrap());
    assert_eq!(one.hall.came(1), HashMap::from([(1, vec![3])]));
    member.close();
    assert_eq!(next(&one.left), (member.id(), true));
    assert_eq!(next(&two.left), (member.id(), true));
    one.nobody_else_left();
    two.nobody_else_left();
}

/// A hub that is known to be told of an end though it has gone.
struct Mortal(Members<Note>);

enum ToMortal {
    Join(Recipient<Note>),
    Left,
}

static TOLD: AtomicUsize = AtomicUsize::new(0);

impl From<Left> for ToMortal {
    fn from(_: Left) -> ToMortal {
        TOLD.fetch_add(1, SeqCst);
        ToMortal::Left
    }
}

impl Actor for Mortal {
    type Message = ToMortal;

    fn message(&mut self, message: ToMortal, ctx: &mut Context<'_, Self>) -> Outcome {
        if let ToMortal::Join(member) = message {
            self.0.join(&member, ctx);
        }
        Ok(())
    }
}

#[test]
fn the_end_of_a_hub_is_the_end_of_its_groups() {
    let hall = Hall::new(2);
    let mortal = hall.system.spawn_on(0, || Mortal(Members::new()));
    let members: Vec<_> = (0..6).map(|n| hall.member(n % 2, n)).collect();
    for member in &members {
        assert!(send_patiently(&mortal, ToMortal::Join(member.clone())));
        hall.join(member);
    }
    settle(&hall.system);
    members[0].close();
    members[1].close();
    wait_until("the hub is told of two", || TOLD.load(SeqCst) == 2);
    mortal.close();
    wait_until("the hub has gone", || mortal.is_gone());
    settle(&hall.system);
    settle(&hall.system);
    // The other room goes on.
    wait_until("two have left the other room", || hall.count() == 4);
    hall.tell(Broadcast::Push(Note(4)));
    assert_eq!(hall.came(4).len(), 4);
    members.iter().for_each(Recipient::close);
    wait_until("they have left the other room", || hall.count() == 0);
    settle(&hall.system);
    assert_eq!(TOLD.load(SeqCst), 2, "nobody is told any more");
    assert_eq!(hall.system.stats().dead_letters, 0);
}

#[test]
fn a_direct_message_and_the_pushes_of_one_hub_keep_their_order() {
    let own = Own::new(builder(2));
    let members = [
        own.hall.member(0, 0),
        own.hall.plain(1, 1),
        own.hall.member(1, 2),
    ];
    for member in &members {
        own.join(member);
    }
    let direct = members.clone();
    own.run(move |members, _| {
        for n in 0..300 {
            match n % 3 {
                0 => direct
                    .iter()
                    .for_each(|member| member.send(Note(n)).unwrap()),
                _ => members.push(Note(n)).map_err(|_| ()).unwrap(),
            }
        }
    });
    for notes in own.hall.came(900).values() {
        assert!(notes.iter().copied().eq(0..300), "{notes:?}");
    }
}

#[test]
fn a_refused_push_is_told_poller_by_poller_and_can_be_pushed_again() {
    let own = Own::new(builder(2).mailbox_bound(8));
    for n in 0..4 {
        own.join(&own.hall.member(n % 2, n));
    }
    settle(&own.hall.system);
    let keeper = spawn(&own.hall.system, 1, |probe| probe);
    let held = hold(&keeper);
    // Poller 1 stands still, so its mailbox fills; that of poller 0 is emptied.
    let mut pushed = 0;
    let refused = loop {
        let note = Note(pushed);
        match own.run(move |members, ctx| {
            members
                .push(note)
                .inspect_err(|refused| ctx.wait_for_room(refused))
                .map_err(|refused| {
                    (
                        *refused.message(),
                        refused.pollers().collect::<Vec<_>>(),
                        refused,
                    )
                })
        }) {
            Ok(()) => pushed += 1,
            Err(refused) => break refused,
        }
        assert!(pushed <= 8, "a push takes a place in the bound");
        own.hall.came(2);
    };
    assert_eq!((refused.0, refused.1), (Note(pushed), vec![1]));
    assert_eq!(
        own.hall.came(2).len(),
        2,
        "the other poller's members have it"
    );
    // One that waits takes no messages: what it is sent from here on comes after `room`.
    let again = refused.2;
    assert!(own.has_room.try_recv().is_err());
    drop(held);
    next(&own.has_room);
    own.run(move |members, _| members.push_again(again).map_err(|_| ()).unwrap());
    let came = own.hall.came(2 * (pushed as usize + 1));
    for number in [1, 3] {
        assert!(came[&number].iter().copied().eq(0..=pushed), "{came:?}");
    }
    own.hall.nothing_more();
    assert!(own.has_room.try_recv().is_err(), "told once");
}

#[test]
fn a_broadcaster_that_was_refused_loses_nothing() {
    const PUSHES: u32 = 3_000;
    let hall = Hall::with(builder(2).mailbox_bound(4), Broadcaster::new);
    let members: Vec<_> = (0..6)
        .map(|n| {
            if n % 3 == 0 {
                hall.plain(n % 2, n)
            } else {
                hall.member(n % 2, n)
            }
        })
        .collect();
    members.iter().for_each(|member| hall.join(member));
    let mut full = 0;
    for n in 0..PUSHES {
        // Straight into it, so that it is full again and again.
        let mut push = Broadcast::Push(Note(n));
        while let Err(error) = hall.room.send(push) {
            assert!(error.is_full());
            full += 1;
            push = error.into_message();
            std::thread::yield_now();
        }
    }
    let came = hall.came(members.len() * PUSHES as usize);
    assert!(
        came.values()
            .all(|notes| notes.iter().copied().eq(0..PUSHES))
    );
    assert_eq!(came.len(), members.len());
    assert!(full > 0, "it was never full: this test has seen nothing");
    hall.nothing_more();
}
