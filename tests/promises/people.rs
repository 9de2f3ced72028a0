//! The actors of a run: connections, kids (spawned, without a socket) and hubs (with members). One
//! type for all, so that each may do whatever the seed says; each kind has its own mailboxes.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

use bytes::Bytes;
use greenroom::{
    Actor, Addr, AskError, CloseReason, Context, Input, Left, Members, Outcome, Recipient, Refused,
    Reply, TimerKey,
};

use crate::record::{self, Answer, Callback, Contact, End, Event, Id, Kind, below, log, one_in};

/// Questions that a hub keeps for later.
const QUESTIONS_MAX: usize = 5;

/// A letter: it is somebody's, and is missed.
#[derive(Debug)]
pub struct Letter {
    pub number: u64,
    pub from: Id,
    pub to: Id,
}

impl Letter {
    pub fn new(from: Id, to: Id) -> Letter {
        let number = record::next_letter();
        Letter { number, from, to }
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        log(Event::LetterDropped {
            letter: self.number,
        });
        // The test's own are dropped by the test, too.
        if self.from != record::TEST && one_in(record::habits().panic * 20) {
            panic_now();
        }
    }
}

/// What a hub pushes to its members.
#[derive(Clone, Debug)]
pub struct Line {
    hub: Id,
    number: u64,
}

#[derive(Debug)]
pub enum Mail {
    Letter(Letter),
    Join(Letter, Recipient<Line>),
    Question(Letter, Reply<u64>),
    Answer(u64, Result<u64, AskError>),
    Line(Line),
    Left(Left),
}

impl From<Line> for Mail {
    fn from(line: Line) -> Mail {
        Mail::Line(line)
    }
}

impl From<Left> for Mail {
    fn from(left: Left) -> Mail {
        Mail::Left(left)
    }
}

const CONNECTION: u8 = 0;
const KID: u8 = 1;
const HUB: u8 = 2;

pub type Connection = Person<CONNECTION>;
pub type Kid = Person<KID>;
pub type Hub = Person<HUB>;

/// What a connection does with what it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Echoes,
    Sinks,
    /// Takes some, asks for more.
    Picks,
    Hoards,
}

pub struct Person<const KIND: u8> {
    id: Id,
    reads: Reads,
    /// Does not go when the system stops.
    is_stubborn: bool,
    /// Hands on what comes, to those of its own mailbox.
    is_courier: bool,
    is_shut: bool,
    /// Came back from a full mailbox: goes out again when there is room.
    held: Option<(Contact, Mail)>,
    resume: Option<TimerKey>,
    /// The peer has half-closed, and is told this until then.
    leaves: Option<TimerKey>,
    intervals: Vec<TimerKey>,
    members: Members<Line>,
    names: Vec<(Recipient<Line>, Id)>,
    refused: Option<(Refused<Line>, u64)>,
    questions: Vec<Reply<u64>>,
}

thread_local! {
    /// Whose callback runs.
    static AT_WORK: Cell<Option<Id>> = const { Cell::new(None) };
}

/// A panic that is part of the run: says nothing on the way. It is that of the actor at work, or
/// nobody's.
fn panic_now() {
    if !std::thread::panicking() {
        log(Event::Panics { id: AT_WORK.get() });
        resume_unwind(Box::new("as planned"));
    }
}

/// Whether it panics; says nothing on the way.
fn panics(what: impl FnOnce()) -> bool {
    quietly(|| catch_unwind(AssertUnwindSafe(what)).is_err())
}

/// Runs something whose panics nobody needs to read of.
pub fn quietly<R>(what: impl FnOnce() -> R) -> R {
    thread_local! {
        static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                before(info);
            }
        }));
    });
    let was_quiet = IS_QUIET.replace(true);
    let result = what();
    IS_QUIET.set(was_quiet);
    result
}

/// The callback that runs, until it is left by whatever way.
struct Inside {
    id: Id,
    around: Option<Id>,
}

impl Inside {
    fn enter<A: Actor>(id: Id, callback: Callback, ctx: &mut Context<'_, A>) -> Inside {
        record::at(ctx.now());
        // With the time of the turn, to be compared with that of the clock.
        let turn = record::elapsed().as_nanos();
        greenroom::testing::note(format_args!("> {id} {callback} @{turn}"));
        log(Event::Enters {
            id,
            callback,
            poller: ctx.poller(),
        });
        let around = AT_WORK.replace(Some(id));
        Inside { id, around }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        AT_WORK.set(self.around);
        greenroom::testing::note(format_args!("< {}", self.id));
        log(Event::Leaves { id: self.id });
    }
}

impl<const KIND: u8> Person<KIND> {
    fn kind() -> Kind {
        match KIND {
            CONNECTION => Kind::Connection,
            KID => Kind::Kid,
            _ => Kind::Hub,
        }
    }

    /// Made in a factory; it may panic.
    pub fn new(id: Id, listener: Option<usize>, poller: Option<usize>) -> Person<KIND> {
        if KIND != HUB && one_in(record::habits().panic) {
            panic_now();
        }
        let kind = Person::<KIND>::kind();
        log(Event::Made {
            id,
            kind,
            listener,
            poller,
        });
        if let Some(listener) = listener {
            record::stream(id, |stream| {
                stream.listener = listener;
                stream.input_max = record::input_max(listener);
            });
        }
        Person {
            id,
            reads: match below(8) {
                0..3 => Reads::Echoes,
                3..5 => Reads::Sinks,
                5..7 => Reads::Picks,
                _ => Reads::Hoards,
            },
            is_stubborn: one_in(10),
            is_courier: KIND == KID && one_in(2) && record::habits().couriers,
            is_shut: false,
            held: None,
            resume: None,
            leaves: None,
            intervals: Vec::new(),
            members: Members::new(),
            names: Vec::new(),
            refused: None,
            questions: Vec::new(),
        }
    }

    fn enter<R>(
        &mut self,
        callback: Callback,
        ctx: &mut Context<'_, Self>,
        run: impl FnOnce(&mut Self, &mut Context<'_, Self>) -> R,
    ) -> R {
        let _inside = Inside::enter(self.id, callback, ctx);
        run(self, ctx)
    }

    /// Something of his own accord, then perhaps the end.
    fn act(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let habits = record::habits();
        for _ in 0..below(4) {
            if !record::may_act() {
                return Ok(());
            }
            if one_in(habits.writes) {
                self.write(ctx, habits.large);
            }
            if one_in(habits.letters)
                && let Some(to) = record::anybody()
            {
                let letter = Letter::new(self.id, to.id);
                // An actor without a socket must not wait in a circle: one with a socket takes
                // messages while it waits.
                let may_wait = KIND == CONNECTION || KIND == KID && to.kind == Kind::Connection;
                self.send(ctx, to, Mail::Letter(letter), may_wait);
            }
            if one_in(habits.timers) {
                self.set_timer(ctx);
            }
            if one_in(habits.spawn) {
                self.spawn(ctx);
            }
            if one_in(habits.ask) {
                self.ask(ctx);
            }
            if one_in(habits.pause) && self.resume.is_none() {
                ctx.pause();
                self.resume = Some(ctx.set_timer(Duration::from_millis(below(50))));
            }
            if one_in(habits.push) {
                self.push(ctx);
            }
            if one_in(habits.shut) && KIND == CONNECTION {
                self.is_shut = true;
                ctx.shutdown_write();
            }
        }
        self.end(ctx)
    }

    fn end(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let habits = record::habits();
        let id = self.id;
        if KIND == HUB {
            return Ok(());
        }
        if one_in(habits.panic) {
            panic_now();
        }
        if one_in(habits.abort) {
            log(Event::Wants {
                id,
                end: End::Abort,
            });
            ctx.abort();
        } else if one_in(habits.fail) {
            log(Event::Wants {
                id,
                end: End::Error,
            });
            return Err("as planned".into());
        } else if one_in(habits.close) {
            log(Event::Wants {
                id,
                end: End::Close,
            });
            ctx.close();
        }
        Ok(())
    }

    fn write(&mut self, ctx: &mut Context<'_, Self>, max: u64) {
        if !ctx.has_socket() || self.is_shut {
            return;
        }
        let bytes = record::bytes(record::length(max));
        let taken = match below(3) {
            0 => ctx.write(&bytes),
            1 => ctx.write_bytes(Bytes::from(bytes.clone())),
            _ => {
                let (first, last) = bytes.split_at(bytes.len() / 3);
                ctx.write_parts(&[first, b"", last])
            }
        };
        self.wrote(ctx, &bytes, taken);
    }

    fn wrote(&mut self, ctx: &Context<'_, Self>, bytes: &[u8], taken: bool) {
        let queued = ctx.queued();
        record::stream(self.id, |stream| {
            if taken {
                stream.written.extend_from_slice(bytes);
            }
            stream.is_cut |= !taken;
            stream.queued_max = stream.queued_max.max(queued);
        });
    }

    fn send(&mut self, ctx: &mut Context<'_, Self>, to: Contact, mail: Mail, may_wait: bool) {
        let letter = match &mail {
            Mail::Letter(letter) | Mail::Join(letter, _) => letter.number,
            _ => 0,
        };
        let place = (to.kind, to.to.poller());
        let is_here = place.1 == ctx.poller() && one_in(10);
        let before = is_here.then(|| ctx.system().stats().wakes);
        let sent = to.to.send(mail);
        if let Some(before) = before {
            let wakes = ctx.system().stats().wakes - before;
            log(Event::SentHere {
                poller: place.1,
                wakes,
            });
        }
        log(Event::Sent {
            letter,
            from: self.id,
            to: to.id,
            place,
            answer: answer_of(&sent),
        });
        let Err(error) = sent else { return };
        if error.is_full() && may_wait && self.held.is_none() {
            log(Event::Waits { id: self.id, place });
            ctx.wait_for_room(&to.to);
            self.held = Some((to, error.into_message()));
        }
    }

    /// One letter for one that came: to another kid of this poller, whose mailbox is its own. It may
    /// wait for that, as it takes out what it puts in.
    fn hand_on(&mut self, ctx: &mut Context<'_, Self>) {
        if let Some(to) = record::anybody()
            && (to.kind, to.to.poller()) == (Kind::Kid, ctx.poller())
        {
            let letter = Letter::new(self.id, to.id);
            self.send(ctx, to, Mail::Letter(letter), true);
        }
    }

    fn takes(&self, letter: &Letter) {
        log(Event::Delivered {
            letter: letter.number,
            from: letter.from,
            to: letter.to,
            at: self.id,
        });
    }

    fn set_timer(&mut self, ctx: &mut Context<'_, Self>) {
        let after = Duration::from_micros(below(200_000));
        let (id, now) = (self.id, record::elapsed());
        let repeats = one_in(5);
        let key = if repeats {
            let key = ctx.set_interval(after + Duration::from_millis(1));
            self.intervals.push(key);
            key
        } else if one_in(2) {
            ctx.set_timer(after)
        } else {
            let at = ctx.now() + after;
            ctx.set_timer_at(at)
        };
        log(Event::TimerSet {
            id,
            key,
            due: now + after,
            repeats,
        });
        if one_in(6) {
            ctx.cancel_timer(key);
            log(Event::TimerCancelled { id, key });
        }
    }

    fn spawn(&mut self, ctx: &mut Context<'_, Self>) {
        let id = record::next_id();
        let addr = if one_in(2) {
            let poller = Some(ctx.poller());
            ctx.spawn(Kid::new(id, None, poller))
        } else {
            let poller = below(ctx.system().pollers() as u64) as usize;
            ctx.spawn_on(poller, move || Kid::new(id, None, Some(poller)))
        };
        record::meet(Contact {
            id,
            kind: Kind::Kid,
            to: addr.recipient(),
        });
    }

    fn ask(&mut self, ctx: &mut Context<'_, Self>) {
        let Some((to, hub)) = record::any_hub() else {
            return;
        };
        let id = self.id;
        if one_in(8) {
            // One that would block the poller, which is refused.
            let wait = Duration::from_millis(1);
            let ask = || {
                let _ = hub.ask(wait, |reply| Mail::Question(Letter::new(id, to), reply));
            };
            if !panics(ask) {
                log(Event::BlockedInCallback { id });
            }
            return;
        }
        let letter = Letter::new(id, to);
        let question = letter.number;
        log(Event::Asked { question, by: id });
        ctx.ask(
            &hub,
            Duration::from_millis(below(100)),
            |reply| Mail::Question(letter, reply),
            move |answer| Mail::Answer(question, answer),
        );
    }

    fn join(&mut self, ctx: &mut Context<'_, Self>) {
        let Some((to, hub)) = record::any_hub() else {
            return;
        };
        let letter = Letter::new(self.id, to);
        let mail = Mail::Join(letter, ctx.addr().recipient());
        let kind = Kind::Hub;
        let to = Contact {
            id: to,
            kind,
            to: hub.recipient(),
        };
        self.send(ctx, to, mail, KIND == CONNECTION);
    }

    // ---- of hubs ----------------------------------------------------------------------------

    fn push(&mut self, ctx: &mut Context<'_, Self>) {
        if self.refused.is_some() || self.names.is_empty() {
            return;
        }
        let number = record::next_letter();
        let pushed = self.members.push(Line {
            hub: self.id,
            number,
        });
        log(Event::Pushed {
            hub: self.id,
            line: number,
            refused: pushed.is_err(),
            members: self.names.iter().map(|(_, id)| *id).collect(),
        });
        if let Err(refused) = pushed {
            ctx.wait_for_room(&refused);
            self.refused = Some((refused, number));
        }
    }

    fn let_in(&mut self, ctx: &mut Context<'_, Self>, who: Recipient<Line>, member: Id) {
        if self.members.join(&who, ctx) {
            log(Event::Joined {
                hub: self.id,
                member,
            });
            self.names.push((who, member));
        }
        if one_in(10) && !record::is_calm() {
            let place = below(self.names.len() as u64) as usize;
            if let Some((who, _)) = self.names.get(place) {
                self.members.leave(&who.clone());
                self.names.remove(place);
            }
        }
    }
}

pub fn answer_of<T>(sent: &Result<(), greenroom::SendError<T>>) -> Answer {
    match sent {
        Ok(()) => Answer::Accepted,
        Err(error) if error.is_full() => Answer::Full,
        Err(_) => Answer::Gone,
    }
}

impl<const KIND: u8> Actor for Person<KIND> {
    type Message = Mail;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.enter(Callback::Opened, ctx, |this, ctx| {
            let to: Addr<Self> = ctx.addr();
            if KIND == CONNECTION {
                record::meet(Contact {
                    id: this.id,
                    kind: Kind::Connection,
                    to: to.recipient(),
                });
            }
            if KIND != HUB && one_in(2) && !record::is_calm() {
                this.join(ctx);
            }
            this.act(ctx)
        })
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.enter(Callback::Readable, ctx, |this, ctx| {
            let (shown, at_end) = (input.bytes(), input.at_end());
            let mut reads = this.reads;
            if record::is_calm() && reads != Reads::Echoes {
                // What nobody takes would be there for ever.
                reads = Reads::Sinks;
            }
            let taken: &[u8] = match reads {
                Reads::Echoes | Reads::Sinks => input.take_all(),
                Reads::Hoards => &[],
                Reads::Picks => {
                    let n = below(shown.len() as u64 + 1) as usize;
                    let taken = input.take(n).unwrap_or_default();
                    if one_in(4) {
                        input.need(shown.len() - n + record::length(200));
                    }
                    taken
                }
            };
            record::stream(this.id, |stream| {
                stream.shown_max = stream.shown_max.max(shown.len());
                stream.went_on |= stream.is_over;
                stream.has_seen_end |= at_end;
                stream.kept = shown.len() - taken.len();
                stream.input.extend_from_slice(taken);
                if stream.client.is_none() {
                    let all = stream.input.iter().chain(&shown[taken.len()..]);
                    let head: Vec<u8> = all.take(4).copied().collect();
                    let number = head.first_chunk().copied().map(u32::from_le_bytes);
                    stream.client = number.map(|number| number as usize);
                }
            });
            if reads == Reads::Echoes && !this.is_shut {
                // Of a large piece now and then only the first and the last third, from where they lie.
                let gap = if one_in(4) { taken.len() / 3 } else { 0 };
                let parts = match gap {
                    0 => [taken, &[]],
                    gap => [&taken[..gap], &taken[taken.len() - gap..]],
                };
                for part in parts {
                    let written = ctx.write(part);
                    this.wrote(ctx, part, written);
                }
            }
            let acted = this.act(ctx);
            // Whoever takes something is shown the rest at once.
            let is_held_up = this.resume.is_some() || this.held.is_some() || !taken.is_empty();
            record::stream(this.id, |stream| {
                stream.is_over = !is_held_up && stream.is_over()
            });
            acted
        })
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.enter(Callback::ReadClosed, ctx, |this, ctx| {
            record::stream(this.id, |stream| stream.is_ended = true);
            this.act(ctx)?;
            if record::is_calm() || one_in(2) {
                ctx.close();
            } else {
                // It may have something to say yet.
                this.leaves = Some(ctx.set_timer(Duration::from_millis(below(500))));
            }
            Ok(())
        })
    }

    fn message(&mut self, mail: Mail, ctx: &mut Context<'_, Self>) -> Outcome {
        self.enter(Callback::Message, ctx, |this, ctx| {
            let at = this.id;
            match mail {
                Mail::Letter(letter) => {
                    this.takes(&letter);
                    if KIND == HUB && one_in(2) && !record::is_calm() {
                        this.push(ctx);
                    }
                    drop(letter);
                    if this.is_courier && one_in(2) && record::may_act() {
                        this.hand_on(ctx);
                    }
                }
                Mail::Join(letter, who) => {
                    this.takes(&letter);
                    this.let_in(ctx, who, letter.from);
                }
                Mail::Question(letter, reply) => match below(4) {
                    0 => drop(reply),
                    1 if this.questions.len() < QUESTIONS_MAX => this.questions.push(reply),
                    // The asker may have given up.
                    _ => drop(reply.send(letter.number)),
                },
                Mail::Answer(question, answer) => {
                    // The hub answers with the number of what it was asked.
                    let question = answer.unwrap_or(question);
                    log(Event::Answered { question, at });
                }
                Mail::Line(Line { hub, number }) => log(Event::Line {
                    hub,
                    line: number,
                    at,
                }),
                Mail::Left(left) => {
                    let known = this.members.left(&left);
                    log(Event::Left { hub: at, known });
                    this.names.retain(|(who, _)| who.id() != left.member);
                }
            }
            this.act(ctx)
        })
    }

    fn timer(&mut self, key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.enter(Callback::Timer, ctx, |this, ctx| {
            if this.resume == Some(key) {
                this.resume = None;
                ctx.resume();
                return Ok(());
            }
            if this.leaves == Some(key) {
                ctx.close();
                return Ok(());
            }
            log(Event::TimerFired { id: this.id, key });
            if this.intervals.contains(&key) && (record::is_calm() || one_in(4)) {
                ctx.cancel_timer(key);
                this.intervals.retain(|interval| *interval != key);
                log(Event::TimerCancelled { id: this.id, key });
            }
            this.questions.clear();
            this.act(ctx)
        })
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.enter(Callback::Drained, ctx, |this, ctx| this.act(ctx))
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.enter(Callback::Room, ctx, |this, ctx| {
            if let Some((to, mail)) = this.held.take() {
                this.send(ctx, to, mail, true);
            }
            if let Some((refused, line)) = this.refused.take() {
                match this.members.push_again(refused) {
                    Ok(()) => log(Event::PushedAgain { hub: this.id, line }),
                    Err(refused) => {
                        ctx.wait_for_room(&refused);
                        this.refused = Some((refused, line));
                    }
                }
            }
            if KIND == CONNECTION {
                this.act(ctx)
            } else {
                Ok(())
            }
        })
    }

    fn stopping(&mut self, _deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        self.enter(Callback::Stopping, ctx, |this, ctx| {
            if KIND == CONNECTION && !this.is_stubborn {
                if one_in(2) {
                    this.write(ctx, 10_000);
                }
                ctx.close();
            }
            Ok(())
        })
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        self.enter(Callback::Closed, ctx, |this, ctx| {
            let id = this.id;
            let (reason, text) = record::reason_of(reason);
            log(Event::Closed { id, reason, text });
            if one_in(10)
                && !panics(|| {
                    ctx.write(b"too late");
                })
            {
                log(Event::WroteInClosed { id });
            }
            if one_in(6)
                && !record::is_calm()
                && let Some(to) = record::anybody()
            {
                let letter = Letter::new(id, to.id);
                this.send(ctx, to, Mail::Letter(letter), false);
            }
            if one_in(record::habits().panic) {
                panic_now();
            }
        });
    }
}

/// A client that is an actor like those of the server, in a system of its own.
pub struct Visitor {
    id: Id,
    number: usize,
    deeds: u64,
}

impl Visitor {
    pub fn new(number: usize, listener: usize) -> Visitor {
        let id = record::next_id();
        log(Event::Made {
            id,
            kind: Kind::Visitor,
            listener: None,
            poller: None,
        });
        record::visit(number, |report| report.listener = listener);
        let deeds = below(8);
        Visitor { id, number, deeds }
    }

    fn enter<R>(
        &mut self,
        callback: Callback,
        ctx: &mut Context<'_, Self>,
        run: impl FnOnce(&mut Self, &mut Context<'_, Self>) -> R,
    ) -> R {
        let _inside = Inside::enter(self.id, callback, ctx);
        run(self, ctx)
    }

    fn send(&self, bytes: &[u8], ctx: &mut Context<'_, Self>) {
        ctx.write(bytes);
        record::visit(self.number, |report| report.sent.extend_from_slice(bytes));
    }
}

impl Actor for Visitor {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.enter(Callback::Opened, ctx, |this, ctx| {
            record::visit(this.number, |report| report.is_connected = true);
            this.send(&(this.number as u32).to_le_bytes(), ctx);
            ctx.set_timer(Duration::from_millis(below(300)));
            Ok(())
        })
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.enter(Callback::Readable, ctx, |this, _| {
            let taken = input.take_all();
            record::visit(this.number, |report| {
                report.received.extend_from_slice(taken)
            });
            Ok(())
        })
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.enter(Callback::Timer, ctx, |this, ctx| {
            if record::is_calm() {
                return Ok(());
            }
            if this.deeds == 0 {
                ctx.shutdown_write();
                return Ok(());
            }
            this.deeds -= 1;
            this.send(&record::bytes(record::length(50_000)), ctx);
            ctx.set_timer(Duration::from_millis(below(300)));
            Ok(())
        })
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        self.enter(Callback::Closed, ctx, |this, _| {
            let (reason, text) = record::reason_of(reason);
            record::visit(this.number, |report| {
                report.is_closed = true;
                report.was_reset = reason != "peer closed";
                // What was not to be lost is only told where it came to its end.
                report.is_unlucky = reason != "peer closed";
            });
            let id = this.id;
            log(Event::Closed { id, reason, text });
        });
    }
}

impl<const KIND: u8> Drop for Person<KIND> {
    fn drop(&mut self) {
        log(Event::Dropped { id: self.id });
        if one_in(record::habits().panic) {
            panic_now();
        }
    }
}
