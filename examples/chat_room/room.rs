//! A room: pushes what is said to everybody in it, in one order for all, and keeps the last of it.

use std::collections::BTreeMap;

use greenroom::{Actor, ActorId, Context, Left, Members, Outcome, Recipient, Refused, Reply};

use super::clock::Clock;
use super::directory::Answer;
use super::event::{Event, Said};
use super::history::{History, Since};

/// Names that are told: what one answer may cost is bounded, a room is not.
const NAMES_MAX: usize = 100;

pub(crate) enum ToRoom {
    /// Let this one in, under this name, and tell it what was said since.
    Join(Recipient<Said>, String, Option<Since>, Reply<Answer>),
    Leave(Recipient<Said>),
    Rename(ActorId, String),
    Say(ActorId, String),
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
    history: History<Said>,
    clock: Clock,
    /// A push that some poller had no room for. While there is one, no messages come.
    refused: Option<Refused<Said>>,
}

impl Room {
    pub(crate) fn new(name: String, epoch: u64, clock: Clock) -> Room {
        Room {
            name,
            members: Members::new(),
            names: BTreeMap::new(),
            history: History::new(epoch),
            clock,
            refused: None,
        }
    }

    fn push(&mut self, said: Said, ctx: &mut Context<'_, Self>) {
        let pushed = self.members.push(said);
        self.wait_if_refused(pushed, ctx);
    }

    fn wait_if_refused(&mut self, pushed: Result<(), Refused<Said>>, ctx: &mut Context<'_, Self>) {
        if let Err(refused) = pushed {
            ctx.wait_for_room(&refused);
            self.refused = Some(refused);
        }
    }

    /// To everybody who is in, also to who has just come.
    fn announce(&mut self, event: &Event, ctx: &mut Context<'_, Self>) {
        self.push(Said::new(ctx.id(), None, event), ctx);
    }

    fn say(&mut self, by: ActorId, text: String, ctx: &mut Context<'_, Self>) {
        let Some(name) = self.names.get(&by) else {
            return;
        };
        let line = Event::Line {
            id: self.history.last + 1,
            at: self.clock.ms(ctx.now()),
            from: name.clone(),
            text,
        };
        let said = Said::new(ctx.id(), Some(by), &line);
        self.history.push(said.clone(), said.len());
        self.push(said, ctx);
    }

    /// The answer and all later pushes travel in one queue: so what was said before it comes with
    /// it, what is said after it comes after it, and nothing is lost or comes twice.
    fn join(
        &mut self,
        member: &Recipient<Said>,
        name: String,
        since: Option<Since>,
        reply: Reply<Answer>,
        ctx: &mut Context<'_, Self>,
    ) {
        let past = since.map(|since| self.history.since(since));
        let (missed, restarted) = past
            .as_ref()
            .map_or((0, false), |past| (past.missed, past.restarted));
        let lines = past.map_or(Vec::new(), |past| past.lines);
        let (count, names) = self.who();
        let entered = Event::Entered {
            room: self.name.clone(),
            epoch: format!("{:016x}", self.history.epoch),
            last: self.history.last,
            lines: lines.len(),
            missed,
            restarted,
            count,
            names,
        };
        // Who asked may have gone; then its end will be told.
        let _ = reply.send(Answer::Inside(Box::new(entered), lines));
        self.members.join(member, ctx);
        self.names.insert(member.id(), name.clone());
        let room = self.name.clone();
        self.announce(&Event::Joined { name, room }, ctx);
    }

    fn forget(&mut self, member: ActorId, ctx: &mut Context<'_, Self>) {
        if let Some(name) = self.names.remove(&member) {
            let room = self.name.clone();
            self.announce(&Event::Left { name, room }, ctx);
        }
    }

    /// How many are here, and some of their names.
    fn who(&self) -> (usize, Vec<String>) {
        let mut names: Vec<_> = self.names.values().take(NAMES_MAX).cloned().collect();
        names.sort_unstable();
        (self.names.len(), names)
    }
}

impl Actor for Room {
    type Message = ToRoom;

    /// Each message makes one push at most, so one place for a refused push is enough.
    fn message(&mut self, message: ToRoom, ctx: &mut Context<'_, Self>) -> Outcome {
        match message {
            ToRoom::Say(by, text) => self.say(by, text, ctx),
            ToRoom::Join(member, name, since, reply) => {
                self.join(&member, name, since, reply, ctx);
            }
            ToRoom::Leave(member) => {
                self.members.leave(&member);
                self.forget(member.id(), ctx);
            }
            ToRoom::Left(left) => {
                self.members.left(&left);
                self.forget(left.member, ctx);
            }
            ToRoom::Rename(id, to) => {
                if let Some(from) = self.names.insert(id, to.clone()) {
                    let renamed = Event::Renamed { from, to };
                    self.push(Said::new(ctx.id(), Some(id), &renamed), ctx);
                }
            }
            ToRoom::Who(reply) => {
                let (count, names) = self.who();
                let room = self.name.clone();
                let who = Event::Who { room, count, names };
                // Who asked may have gone.
                let _ = reply.send(Answer::Told(Box::new(who)));
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
