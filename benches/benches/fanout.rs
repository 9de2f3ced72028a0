//! Question: what does one delivery of a broadcast cost, at 1,000 and at 100,000 members?
//!
//! The members are actors without sockets on one poller, the room is an actor on another; a slice
//! is some pushes in one callback, until the last member has had the last one. A member counts,
//! nothing else.
//!
//! Baseline: the naive room, which sends to each member. Beside it the floor, one thread that calls
//! boxed members in a row. Run: `cargo bench -p greenroom-benches --bench fanout`.

use std::cell::Cell;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use greenroom::{Actor, Addr, Context, Left, Members, Outcome, System};
use greenroom_benches::rounds::{Rival, machine, race};

/// Deliveries in a slice.
const DELIVERIES: u64 = 200_000;

thread_local! {
    /// Deliveries to the members on this poller. One for all: to count in each would not tell when
    /// all are done.
    static DELIVERED: Cell<u64> = const { Cell::new(0) };
}

/// The time, if this was the last delivery of a slice.
fn count() -> Option<Instant> {
    let delivered = DELIVERED.get() + 1;
    DELIVERED.set(delivered);
    delivered.is_multiple_of(DELIVERIES).then(Instant::now)
}

struct Member {
    ends: Sender<Instant>,
}

impl Actor for Member {
    type Message = u64;

    fn message(&mut self, _line: u64, _ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some(end) = count() {
            self.ends.send(end)?;
        }
        Ok(())
    }
}

struct Room {
    members: Members<u64>,
    addrs: Vec<Addr<Member>>,
}

enum ToRoom {
    Join(Addr<Member>),
    Push,
    SendEach,
    Left,
}

impl From<Left> for ToRoom {
    fn from(_left: Left) -> ToRoom {
        ToRoom::Left
    }
}

impl Actor for Room {
    type Message = ToRoom;

    fn message(&mut self, message: ToRoom, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            ToRoom::Join(member) => {
                self.members.join(&member.recipient(), ctx);
                self.addrs.push(member);
            }
            ToRoom::Push => {
                for line in 0..DELIVERIES / self.addrs.len() as u64 {
                    self.members.push(line)?;
                }
            }
            ToRoom::SendEach => {
                for line in 0..DELIVERIES / self.addrs.len() as u64 {
                    for member in &self.addrs {
                        member.send(line)?;
                    }
                }
            }
            ToRoom::Left => {}
        }
        Ok(())
    }
}

/// What the floor calls: a trait object, as an actor is to its poller.
trait Listen {
    fn line(&mut self, line: u64) -> Option<Instant>;
}

impl Listen for Member {
    fn line(&mut self, _line: u64) -> Option<Instant> {
        count()
    }
}

/// One slice, begun by this message to the room.
fn slice(room: &Addr<Room>, begin: ToRoom, ended: &Receiver<Instant>) -> std::time::Duration {
    let start = Instant::now();
    assert!(room.send(begin).is_ok(), "the room lives");
    ended.recv().expect("the members live") - start
}

fn main() -> std::io::Result<()> {
    println!("{}", machine());
    for count in [1_000, 100_000] {
        // Room for a slice of the naive way and for all joins: this is about the cost of a
        // delivery, not of waiting.
        let system = System::builder()
            .pollers(2)
            .mailbox_bound(1 << 20)
            .build()?;
        let (ends, ended) = crossbeam_channel::unbounded();
        let room = system.spawn_on(0, || Room {
            members: Members::new(),
            addrs: Vec::new(),
        });
        for _ in 0..count {
            let ends = ends.clone();
            let member = system.spawn_on(1, move || Member { ends });
            assert!(room.send(ToRoom::Join(member)).is_ok(), "the room lives");
        }
        let mut boxed: Vec<Box<dyn Listen>> = (0..count)
            .map(|_| Box::new(Member { ends: ends.clone() }) as Box<dyn Listen>)
            .collect();
        let rivals = vec![
            Rival::new("greenroom, a send to each member", || {
                slice(&room, ToRoom::SendEach, &ended)
            }),
            Rival::new("greenroom, push", || slice(&room, ToRoom::Push, &ended)),
            Rival::new("a loop over boxed members", || {
                let start = Instant::now();
                for line in 0..DELIVERIES / count {
                    for member in &mut boxed {
                        std::hint::black_box(member.line(line));
                    }
                }
                start.elapsed()
            }),
        ];
        race(
            &format!("deliveries to {count} members"),
            DELIVERIES,
            rivals,
        );
    }
    Ok(())
}
