//! Who is here under which name, and which rooms there are.
//!
//! A room is made when the first guest is sent there and ended when the last has been sent
//! elsewhere or has gone. Both are decided here, by the same actor, so nobody is ever sent to a
//! room that is about to end.

use std::collections::{BTreeMap, HashMap};

use greenroom::{Actor, ActorId, Addr, Context, Left, Members, Outcome, Recipient, Reply};

use super::clock::Clock;
use super::event::{Event, RoomEntry, Said, What};
use super::room::Room;

/// Where everybody begins, and the only room that stays when it is empty.
pub(crate) const LOBBY: &str = "lobby";

const ROOMS_MAX: usize = 100;

#[derive(Clone)]
pub(crate) enum Question {
    /// May I be called that?
    Name(String),
    /// Where is this room?
    Enter(String),
    Rooms,
}

pub(crate) enum Answer {
    Named(String),
    /// The room, and the name to join it by.
    Place(Addr<Room>, String),
    /// Of the room: you are in, and these of its lines you have not seen.
    Inside(Box<Event>, Vec<Said>),
    /// To be told as it is: what was asked for, or why it cannot be had.
    Told(Box<Event>),
}

impl Answer {
    fn refused(what: What, why: String) -> Answer {
        Answer::Told(Box::new(Event::refused(what, why)))
    }
}

pub(crate) enum ToDirectory {
    Ask(Recipient<Said>, Question, Reply<Answer>),
    Left(Left),
}

impl From<Left> for ToDirectory {
    fn from(left: Left) -> ToDirectory {
        ToDirectory::Left(left)
    }
}

struct Guest {
    name: String,
    /// None before it has been sent to the lobby.
    room: Option<String>,
}

pub(crate) struct Directory {
    /// All that have a name. Nothing is pushed to them: they join for the notice of their end,
    /// which no crash of theirs and no full mailbox can suppress.
    everybody: Members<Said>,
    guests: HashMap<ActorId, Guest>,
    /// Whose name is this? In lower case.
    taken: HashMap<String, ActorId>,
    /// Each room, and how many guests have been sent there.
    rooms: BTreeMap<String, (Addr<Room>, usize)>,
    clock: Clock,
    /// Of the next room's history: a number that no room had before, in this run or an earlier one.
    epoch: u64,
}

impl Directory {
    pub(crate) fn new(clock: Clock) -> Directory {
        Directory {
            everybody: Members::new(),
            guests: HashMap::new(),
            taken: HashMap::new(),
            rooms: BTreeMap::new(),
            clock,
            epoch: clock.number(),
        }
    }

    fn name(&mut self, by: Recipient<Said>, name: String, ctx: &mut Context<'_, Self>) -> Answer {
        let wanted = name.to_ascii_lowercase();
        if self
            .taken
            .get(&wanted)
            .is_some_and(|owner| *owner != by.id())
        {
            return Answer::refused(What::Name, format!("{name} is taken"));
        }
        match self.guests.get_mut(&by.id()) {
            Some(guest) => {
                self.taken.remove(&guest.name.to_ascii_lowercase());
                guest.name.clone_from(&name);
            }
            None => {
                self.everybody.join(&by, ctx);
                self.guests.insert(
                    by.id(),
                    Guest {
                        name: name.clone(),
                        room: None,
                    },
                );
            }
        }
        self.taken.insert(wanted, by.id());
        Answer::Named(name)
    }

    fn enter(&mut self, guest: ActorId, name: String, ctx: &mut Context<'_, Self>) -> Answer {
        let Some(guest) = self.guests.get_mut(&guest) else {
            return Answer::refused(What::Room, "who are you?".into());
        };
        if guest.room.as_ref() == Some(&name) {
            return Answer::refused(What::Room, format!("you are in {name} already"));
        }
        if !self.rooms.contains_key(&name) && self.rooms.len() >= ROOMS_MAX {
            let why = format!("there are {ROOMS_MAX} rooms already; /rooms lists them");
            return Answer::refused(What::Room, why);
        }
        let (room, guests) = self.rooms.entry(name.clone()).or_insert_with_key(|name| {
            let (name, epoch, clock) = (name.clone(), self.epoch, self.clock);
            self.epoch = epoch.wrapping_add(1);
            (ctx.system().spawn(move || Room::new(name, epoch, clock)), 0)
        });
        *guests += 1;
        let answer = Answer::Place(room.clone(), guest.name.clone());
        if let Some(before) = guest.room.replace(name) {
            self.leave(&before);
        }
        answer
    }

    /// One guest fewer in this room.
    fn leave(&mut self, name: &str) {
        let Some((room, guests)) = self.rooms.get_mut(name) else {
            return;
        };
        *guests -= 1;
        if *guests == 0 && name != LOBBY {
            room.close();
            self.rooms.remove(name);
        }
    }

    fn list(&self) -> Answer {
        let rooms = self.rooms.iter().map(|(name, (_, guests))| RoomEntry {
            name: name.clone(),
            count: *guests,
        });
        let rooms = rooms.collect();
        Answer::Told(Box::new(Event::Rooms { rooms }))
    }
}

impl Actor for Directory {
    type Message = ToDirectory;

    fn message(&mut self, message: ToDirectory, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            ToDirectory::Ask(by, question, reply) => {
                let answer = match question {
                    Question::Name(name) => self.name(by, name, ctx),
                    Question::Enter(room) => self.enter(by.id(), room, ctx),
                    Question::Rooms => self.list(),
                };
                // Who asked may have gone.
                let _ = reply.send(answer);
            }
            ToDirectory::Left(left) => {
                self.everybody.left(&left);
                if let Some(guest) = self.guests.remove(&left.member) {
                    self.taken.remove(&guest.name.to_ascii_lowercase());
                    if let Some(room) = guest.room {
                        self.leave(&room);
                    }
                }
            }
        }
        Ok(())
    }
}
