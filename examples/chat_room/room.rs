//! A room: pushes what is said to everybody in it, in one order for all.

use std::collections::BTreeMap;

use bytes::Bytes;
use greenroom::{Actor, ActorId, Context, Left, Members, Outcome, Recipient, Refused, Reply};

use super::Said;
use super::directory::Answer;

/// Names that `/who` lists: what one answer may cost is bounded, a room is not.
const WHO_MAX: usize = 100;

pub(crate) enum ToRoom {
    Join(Recipient<Said>, String),
    Leave(Recipient<Said>),
    Rename(ActorId, String),
    Say(ActorId, Bytes),
    Who(Reply<Answer>),
    Left(Left),
}

impl From<Left> for ToRoom {
    fn from(left: Left) -> ToRoom {
        ToRoom::Left(left)
    }
}

pub(crate) struct Room {
    name: String,
    members: Members<Said>,
    names: BTreeMap<ActorId, String>,
    /// A push that some poller had no room for. While there is one, no messages come.
    refused: Option<Refused<Said>>,
}

impl Room {
    pub(crate) fn new(name: String) -> Room {
        Room {
            name,
            members: Members::new(),
            names: BTreeMap::new(),
            refused: None,
        }
    }

    fn push(&mut self, by: Option<ActorId>, line: Bytes, ctx: &mut Context<'_, Self>) {
        let pushed = self.members.push(Said {
            room: ctx.id(),
            by,
            line,
        });
        self.wait_if_refused(pushed, ctx);
    }

    fn wait_if_refused(&mut self, pushed: Result<(), Refused<Said>>, ctx: &mut Context<'_, Self>) {
        if let Err(refused) = pushed {
            ctx.wait_for_room(&refused);
            self.refused = Some(refused);
        }
    }

    /// To everybody who is in, also to who has just come.
    fn announce(&mut self, what: String, ctx: &mut Context<'_, Self>) {
        self.push(None, format!("* {what}\n").into(), ctx);
    }

    fn forget(&mut self, member: ActorId, ctx: &mut Context<'_, Self>) {
        if let Some(name) = self.names.remove(&member) {
            self.announce(format!("{name} has left {}", self.name), ctx);
        }
    }

    fn who(&self) -> Answer {
        let mut names: Vec<&str> = self
            .names
            .values()
            .take(WHO_MAX)
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        let more = if self.names.len() > WHO_MAX {
            ", ..."
        } else {
            ""
        };
        Answer::Text(format!(
            "* {} in {}: {}{more}\n",
            self.names.len(),
            self.name,
            names.join(", ")
        ))
    }
}

impl Actor for Room {
    type Message = ToRoom;

    /// Each message makes one push at most, so one place for a refused push is enough.
    fn message(&mut self, message: ToRoom, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            ToRoom::Say(by, line) => self.push(Some(by), line, ctx),
            ToRoom::Join(member, name) => {
                self.members.join(&member, ctx);
                self.announce(format!("{name} has joined {}", self.name), ctx);
                self.names.insert(member.id(), name);
            }
            ToRoom::Leave(member) => {
                self.members.leave(&member);
                self.forget(member.id(), ctx);
            }
            ToRoom::Left(left) => {
                self.members.left(&left);
                self.forget(left.member, ctx);
            }
            ToRoom::Rename(id, name) => {
                if let Some(before) = self.names.insert(id, name.clone()) {
                    let line = format!("* {before} is now {name}\n");
                    self.push(Some(id), line.into(), ctx);
                }
            }
            ToRoom::Who(reply) => {
                // Who asked may have gone.
                let _ = reply.send(self.who());
            }
        }
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some(refused) = self.refused.take() {
            let pushed = self.members.push_again(refused);
            self.wait_if_refused(pushed, ctx);
        }
        Ok(())
    }
}
