//! Somebody in the chat room: a client that does what its script says, and enters in the ledger what
//! it does and what it hears.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use greenroom::protocol::{Control, Frame, FrameActor};
use greenroom::{Actor, CloseReason, Context, Input, Outcome, TimerKey};
use serde_json::Value;

use crate::ledger::{AGAIN, Answer, Ledger, Next, Phase, WELCOME};

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
    /// Comes by the page, so that lines are messages and what it is told are events.
    pub(crate) by_page: bool,
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

    pub(crate) fn is_by_page(&self) -> bool {
        self.script.by_page
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
        if self.script.by_page {
            for line in text.split_terminator('\n') {
                let written = ctx.write_frame(line);
                written.expect("it is text");
            }
            return;
        }
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

    /// What it comes to for who sends messages: they have no halves, and end with the connection.
    fn deed_of_page(deed: Deed) -> Deed {
        match deed {
            Deed::SayInHalves { len } => Deed::Say { lines: 1, len },
            Deed::HalfClose { .. } => Deed::Quit,
            // It is UTF-8 in any case.
            Deed::Wrong(2) => Deed::Wrong(3),
            deed => deed,
        }
    }

    fn perform(&mut self, mut deed: Deed, ctx: &mut Context<'_, Self>) {
        if self.script.by_page {
            deed = Member::deed_of_page(deed);
        }
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
        if self.script.by_page {
            return self.write(&String::from_utf8_lossy(line), ctx);
        }
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

impl Member {
    fn hear(&mut self, line: &str, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        let next = self.ledger.borrow_mut().hear(self.id, line, now);
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

    /// What somebody who reads lines would have read in place of this event.
    fn as_line(&self, event: &Value) -> Option<String> {
        let text = |field: &str| event[field].as_str().expect("a text");
        let list = |field: &str| event[field].as_array().expect("a list").iter();
        let line = match text("type") {
            "welcome" => WELCOME.into(),
            "name_wanted" => AGAIN.into(),
            "named" if event["is_first"] == true => return None,
            "named" => format!("* you are now {}", text("name")),
            "entered" => {
                // It has not asked for the past.
                assert!(event["lines"] == 0 && event["missed"] == 0, "{event}");
                return None;
            }
            // The page is told its own doing, too.
            "line" if text("text").starts_with(&format!("s{}.", self.id)) => return None,
            "renamed" if text("to").starts_with(&format!("s{}r", self.id)) => return None,
            "line" => format!("{}: {}", text("from"), text("text")),
            "renamed" => format!("* {} is now {}", text("from"), text("to")),
            "joined" => format!("* {} has joined {}", text("name"), text("room")),
            "left" => format!("* {} has left {}", text("name"), text("room")),
            "who" => {
                let names: Vec<_> = list("names").filter_map(Value::as_str).collect();
                let count = event["count"].as_u64().expect("a number");
                let more = if count > names.len() as u64 {
                    ", ..."
                } else {
                    ""
                };
                format!("* {count} in {}: {}{more}", text("room"), names.join(", "))
            }
            "rooms" => {
                let rooms = list("rooms").map(|room| {
                    let name = room["name"].as_str().expect("a text");
                    format!("{name} ({})", room["count"])
                });
                let rooms: Vec<_> = rooms.collect();
                format!("* {} rooms: {}", rooms.len(), rooms.join(", "))
            }
            "note" | "closing" => format!("* {}", text("text")),
            "refused" => format!("! {}", text("why")),
            other => panic!("an event {other}"),
        };
        Some(line)
    }

    fn end_of_stream(&mut self) {
        let mut ledger = self.ledger.borrow_mut();
        if ledger.sessions[self.id].phase != Phase::AtEnd {
            ledger.hear_end(self.id, b"");
        }
    }
}

impl FrameActor for Member {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let event = serde_json::from_str(frame.text()?)?;
        if let Some(line) = self.as_line(&event) {
            self.hear(&line, ctx);
        }
        Ok(())
    }

    fn control(&mut self, control: Control<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        if let Control::Close { .. } = control {
            self.end_of_stream();
        }
        Ok(())
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
            self.hear(&String::from_utf8_lossy(line), ctx);
        }
        if input.at_end() {
            let rest = input.take_all();
            self.ledger.borrow_mut().hear_end(self.id, rest);
        }
        Ok(())
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.end_of_stream();
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
