//! Somebody in the chat room: a client that does what its script says, and enters in the ledger what
//! it does and what it hears.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use greenroom::{Actor, CloseReason, Context, Input, Outcome, TimerKey};

use crate::ledger::{Answer, Ledger, Next, Phase};

/// Longer than any line of the server.
const LINE_MAX: usize = 64 << 10;

const HELP: &str = "* /nick NAME, /who, /rooms, /join ROOM, /quit; all else is said to the room";

#[derive(Debug)]
pub(crate) enum Deed {
    /// Says so many lines of so many bytes at once.
    Say {
        lines: usize,
        len: usize,
    },
    /// Says a line whose second half follows with the next deed.
    SayInHalves {
        len: usize,
    },
    /// Goes to these rooms without waiting in between.
    Go(Vec<String>),
    Who,
    Rooms,
    Help,
    Rename,
    /// A line that the server refuses.
    Wrong(usize),
    /// Does not read for so long.
    Rest(Duration),
    /// Does not read until somebody tells it to.
    Stall,
    Quit,
    HalfClose {
        mid_line: bool,
    },
    Close,
    Abort,
}

pub(crate) struct Script {
    pub(crate) name: String,
    /// A name that nobody else uses; else it may be taken.
    pub(crate) is_unique: bool,
    /// Does not wait to be let in.
    pub(crate) is_eager: bool,
    /// Each with the time to wait before it.
    pub(crate) deeds: VecDeque<(Duration, Deed)>,
}

/// What the test tells a member in the end.
pub(crate) enum Order {
    /// Read again, say a line, ask who is there.
    Finale,
    Who,
    Do(Deed),
}

pub(crate) struct Member {
    id: usize,
    ledger: Rc<RefCell<Ledger>>,
    script: Script,
    /// The second half of a line.
    rest: String,
    next: Option<TimerKey>,
    wake: Option<TimerKey>,
}

impl Member {
    pub(crate) fn new(ledger: &Rc<RefCell<Ledger>>, script: Script) -> Member {
        let id = ledger.borrow_mut().add();
        Member {
            id,
            ledger: ledger.clone(),
            script,
            rest: String::new(),
            next: None,
            wake: None,
        }
    }

    fn set_next(&mut self, ctx: &mut Context<'_, Self>) {
        match self.script.deeds.front() {
            Some((wait, _)) => self.next = Some(ctx.set_timer(*wait)),
            None => {
                self.write("", ctx);
                self.ledger.borrow_mut().sessions[self.id].is_busy = false;
            }
        }
    }

    fn first_name(&mut self, ctx: &mut Context<'_, Self>) {
        let name = &self.script.name;
        let line = self
            .ledger
            .borrow_mut()
            .first_name(self.id, name, self.script.is_unique);
        self.write(&line, ctx);
    }

    /// Writes what was held back of a line, and then this.
    fn write(&mut self, text: &str, ctx: &mut Context<'_, Self>) {
        let rest = std::mem::take(&mut self.rest);
        ctx.write_parts(&[rest.as_bytes(), text.as_bytes()]);
    }

    /// What it does from here on is no promise to be answered.
    fn ask_for_end(&mut self) {
        let mut ledger = self.ledger.borrow_mut();
        let session = &mut ledger.sessions[self.id];
        session.asked_for_end = true;
        session.is_busy = false;
        self.script.deeds.clear();
    }

    fn perform(&mut self, deed: Deed, ctx: &mut Context<'_, Self>) {
        let id = self.id;
        let ledger = self.ledger.clone();
        let now = ctx.now();
        match deed {
            Deed::Say { lines, len } => {
                let text: String = (0..lines)
                    .map(|_| ledger.borrow_mut().say(id, len, now) + "\n")
                    .collect();
                self.write(&text, ctx);
            }
            Deed::SayInHalves { len } => {
                let line = ledger.borrow_mut().say(id, len, now) + "\n";
                let (begin, rest) = line.split_at(line.len() / 2);
                self.write(begin, ctx);
                rest.clone_into(&mut self.rest);
            }
            Deed::Go(rooms) => {
                if ledger.borrow().may_go(id) {
                    let lines = ledger.borrow_mut().go(id, &rooms);
                    self.write(&lines, ctx);
                }
            }
            Deed::Who => {
                let line = ledger.borrow_mut().who(id);
                self.write(&line, ctx);
            }
            Deed::Rooms => {
                let line = ledger.borrow_mut().rooms(id);
                self.write(&line, ctx);
            }
            Deed::Help => {
                let answer = Answer::Exactly(HELP.into());
                ledger.borrow_mut().expect(id, answer);
                self.write("/help\n", ctx);
            }
            Deed::Rename => {
                if ledger.borrow().may_rename(id) {
                    let line = ledger.borrow_mut().rename(id);
                    self.write(&line, ctx);
                }
            }
            Deed::Wrong(kind) => self.write_wrong(kind, ctx),
            Deed::Rest(time) => {
                ctx.pause();
                ledger.borrow_mut().sessions[id].is_deaf = true;
                self.wake = Some(ctx.set_timer(time));
            }
            Deed::Stall => {
                ctx.pause();
                let session = &mut ledger.borrow_mut().sessions[id];
                (session.is_deaf, session.is_stalled) = (true, true);
            }
            Deed::Quit => {
                ledger.borrow_mut().expect(id, Answer::Goodbye);
                self.write("/quit\n", ctx);
                ledger.borrow_mut().sessions[id].half_closed = true;
                self.ask_for_end();
            }
            Deed::HalfClose { mid_line } => {
                // The last line needs no end.
                let line = if mid_line {
                    ledger.borrow_mut().say(id, 0, now)
                } else {
                    String::new()
                };
                self.write(&line, ctx);
                ctx.shutdown_write();
                ledger.borrow_mut().sessions[id].half_closed = true;
                self.ask_for_end();
            }
            Deed::Close => {
                self.write("", ctx);
                ctx.close();
                self.ask_for_end();
            }
            Deed::Abort => {
                ctx.abort();
                self.ask_for_end();
            }
        }
    }

    fn write_wrong(&mut self, kind: usize, ctx: &mut Context<'_, Self>) {
        let wrong: [(&[u8], &str); 5] = [
            (
                b"/dance\n",
                "! there is no such command; /help shows those that there are",
            ),
            (
                b"/join a/b\n",
                "! a name has 1 to 20 letters, digits, - and _",
            ),
            (b"\xff\xfe\n", "! that line is not UTF-8 and was not sent"),
            (
                b"\x1b[2J\n",
                "! that line has control characters in it and was not sent",
            ),
            (
                &[&[b'x'; 5000][..], b"\n"].concat(),
                "! that line is longer than 4096 bytes and was not sent",
            ),
        ];
        let (line, answer) = wrong[kind % wrong.len()];
        let answer = Answer::Exactly(answer.into());
        self.ledger.borrow_mut().expect(self.id, answer);
        self.write("", ctx);
        ctx.write(line);
    }

    fn read_on(&mut self, ctx: &mut Context<'_, Self>) {
        let mut ledger = self.ledger.borrow_mut();
        let is_late = ledger.is_stopping;
        let session = &mut ledger.sessions[self.id];
        session.is_deaf = false;
        session.is_stalled |= is_late;
        ctx.resume();
    }
}

impl Actor for Member {
    type Message = Order;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        {
            let mut ledger = self.ledger.borrow_mut();
            let session = &mut ledger.sessions[self.id];
            session.phase = Phase::Here;
            session.addr = Some(ctx.addr());
        }
        self.first_name(ctx);
        if self.script.is_eager {
            self.set_next(ctx);
        }
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(LINE_MAX)? {
            let line = String::from_utf8_lossy(line);
            let now = ctx.now();
            let next = self.ledger.borrow_mut().hear(self.id, &line, now);
            match next {
                Next::Nothing => {}
                Next::Begin if self.script.is_eager => {}
                Next::Begin => self.set_next(ctx),
                Next::OtherName => {
                    self.script.name = format!("s{}-", self.id);
                    self.script.is_unique = true;
                    self.first_name(ctx);
                }
            }
        }
        if input.at_end() {
            let rest = input.take_all();
            self.ledger.borrow_mut().hear_end(self.id, rest);
        }
        Ok(())
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let mut ledger = self.ledger.borrow_mut();
        if ledger.sessions[self.id].phase != Phase::AtEnd {
            ledger.hear_end(self.id, b"");
        }
        ctx.close();
        Ok(())
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.wake.take_if(|wake| *wake == key).is_some() {
            self.read_on(ctx);
        } else if self.next.take_if(|next| *next == key).is_some()
            && let Some((_, deed)) = self.script.deeds.pop_front()
        {
            self.perform(deed, ctx);
            if !self.ledger.borrow().sessions[self.id].asked_for_end {
                self.set_next(ctx);
            }
        }
        Ok(())
    }

    fn message(&mut self, order: Order, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.ledger.borrow().sessions[self.id].asked_for_end {
            return Ok(());
        }
        match order {
            Order::Finale => {
                self.read_on(ctx);
                self.perform(Deed::Say { lines: 1, len: 0 }, ctx);
                self.perform(Deed::Who, ctx);
            }
            Order::Who => self.perform(Deed::Who, ctx),
            Order::Do(deed) => self.perform(deed, ctx),
        }
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        let mut ledger = self.ledger.borrow_mut();
        let session = &mut ledger.sessions[self.id];
        let was_at_end = session.phase == Phase::AtEnd;
        session.phase = Phase::Ended(reason.name());
        let was_asked_for = if session.half_closed {
            was_at_end || session.is_stalled
        } else {
            session.asked_for_end || session.is_stalled
        };
        let was_asked_for = was_asked_for || matches!(reason, CloseReason::Stopped);
        if !was_asked_for && !ledger.is_rough && !ledger.is_stopping {
            ledger.wrong(self.id, "was ended", &reason.to_string());
        }
    }
}
