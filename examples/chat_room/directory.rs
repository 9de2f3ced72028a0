//! Who is here under which name, and which rooms there are.
//!
//! A room is made when the first guest is sent there and ended when the last has been sent
//! elsewhere or has gone. Both are decided here, by the same actor, so nobody is ever sent to a
//! room that is about to end.

use std::collections::{BTreeMap, HashMap};

use greenroom::{Actor, ActorId, Addr, Context, Left, Members, Outcome, Recipient, Reply};

use super::Said;
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
    /// Who is in my room? Answered by the room itself.
    Who,
}

pub(crate) enum Answer {
    Named(String),
    /// The room, and the name to join it by.
    Entered(Addr<Room>, String),
    /// To be shown as it is: what was asked for, or why it cannot be had.
    Text(String),
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

#[derive(Default)]
pub(crate) struct Directory {
    /// All that have a name. Nothing is pushed to them: they join for the notice of their end,
    /// which no crash of theirs and no full mailbox can suppress.
    everybody: Members<Said>,
    guests: HashMap<ActorId, Guest>,
    /// Whose name is this? In lower case.
    taken: HashMap<String, ActorId>,
    /// Each room, and how many guests have been sent there.
    rooms: BTreeMap<String, (Addr<Room>, usize)>,
}

impl Directory {
    fn name(&mut self, by: Recipient<Said>, name: String, ctx: &mut Context<'_, Self>) -> Answer {
        let wanted = name.to_ascii_lowercase();
        if self
            .taken
            .get(&wanted)
            .is_some_and(|owner| *owner != by.id())
        {
            return Answer::Text(format!("! {name} is taken\n"));
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
            return Answer::Text("! who are you?\n".into());
        };
        if guest.room.as_ref() == Some(&name) {
            return Answer::Text(format!("! you are in {name} already\n"));
        }
        if !self.rooms.contains_key(&name) && self.rooms.len() >= ROOMS_MAX {
            return Answer::Text(format!(
                "! there are {ROOMS_MAX} rooms already; /rooms lists them\n"
            ));
        }
        let (room, guests) = self.rooms.entry(name.clone()).or_insert_with_key(|name| {
            let name = name.clone();
            (ctx.system().spawn(|| Room::new(name)), 0)
        });
        *guests += 1;
        let answer = Answer::Entered(room.clone(), guest.name.clone());
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
        let rooms: Vec<_> = self
            .rooms
            .iter()
            .map(|(name, (_, guests))| format!("{name} ({guests})"))
            .collect();
        Answer::Text(format!("* {} rooms: {}\n", rooms.len(), rooms.join(", ")))
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
                    Question::Who => Answer::Text("! you are in no room yet\n".into()),
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
