//! One connection: takes commands from what has come, runs them one after another, and shows what
//! is published to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use greenroom::{Actor, Broadcast, CloseReason, Context, Input, Outcome, Peer};

use super::commands::{self, Command, Words};
use super::reply::Reply;
use super::resp::{self, Args, Partial, ProtocolError, Request};
use super::server::{Card, Server};
use super::store::Watched;
use super::topics::{self, Hub, Kind, Push};

/// Bytes that may wait for a subscriber that reads slower than is published, as in Redis
/// (`client-output-buffer-limit pubsub`). Past that it is dropped.
const SUBSCRIBER_MAX: usize = 32 << 20;

pub(crate) struct Client {
    server: Arc<Server>,
    session: Session,
    /// A large command of which not all has come.
    partial: Option<Box<Partial>>,
}

/// What a connection has said of itself, and what is kept for it between its commands.
pub(crate) struct Session {
    pub(crate) card: Arc<Card>,
    pub(crate) db: usize,
    pub(crate) is_resp3: bool,
    pub(crate) replies: Replies,
    pub(crate) transaction: Option<Box<Transaction>>,
    pub(crate) watched: Option<Box<Watched>>,
    /// By name, with the number of the last message that is not shown.
    pub(crate) channels: BTreeMap<Bytes, u64>,
    pub(crate) patterns: BTreeMap<Bytes, u64>,
    /// What this client has published and full mailboxes have refused. Until it has gone, no
    /// further command is run.
    pub(crate) unsent: VecDeque<(Hub, Push)>,
}

/// Which commands are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replies {
    On,
    Off,
    /// Not the next one.
    SkipNext,
    /// Not this one.
    Skip,
}

/// What has come since MULTI.
#[derive(Default)]
pub(crate) struct Transaction {
    pub(crate) queue: Vec<(&'static Command, Vec<Bytes>)>,
    /// Bytes of all arguments.
    pub(crate) size: usize,
    /// One of the commands was wrong, so that EXEC will run none.
    pub(crate) is_spoiled: bool,
}

impl Session {
    /// A command was refused before it was run.
    pub(crate) fn spoil(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.is_spoiled = true;
        }
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    pub(crate) fn topics(&mut self, kind: Kind) -> &mut BTreeMap<Bytes, u64> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }

    /// After a change of what others may see.
    pub(crate) fn update_card(&self) {
        let (card, set) = (&self.card, Ordering::Relaxed);
        card.db.store(self.db as u16, set);
        card.is_resp3.store(self.is_resp3.into(), set);
        card.channels.store(self.channels.len() as u32, set);
        card.patterns.store(self.patterns.len() as u32, set);
        let queued = self
            .transaction
            .as_ref()
            .map(|open| open.queue.len() as i64);
        card.queued.store(queued.unwrap_or(-1), set);
        let watched = self
            .watched
            .as_ref()
            .map_or(0, |watched| watched.keys.len());
        card.watched.store(watched as u32, set);
    }
}

impl Client {
    pub(crate) fn new(server: Arc<Server>, peer: Peer) -> Client {
        let card = Arc::new(server.clients.card(peer));
        Client {
            server,
            session: Session {
                card,
                db: 0,
                is_resp3: false,
                replies: Replies::On,
                transaction: None,
                watched: None,
                channels: BTreeMap::new(),
                patterns: BTreeMap::new(),
                unsent: VecDeque::new(),
            },
            partial: None,
        }
    }

    /// Takes the next command out of the input and runs it. `false` where there is none.
    #[inline]
    fn step<'a>(
        &mut self,
        input: &mut Input<'a>,
        args: &mut Args<'a>,
        ctx: &mut Context<'_, Self>,
    ) -> Result<bool, ProtocolError> {
        match resp::parse(input.bytes(), args)? {
            Request::Command { len } => {
                input.consume(len);
                let words = Words { args, owned: None };
                commands::execute(words, &mut self.session, &self.server, ctx);
            }
            Request::Quoted { line, len } => {
                input.consume(len);
                let words: Vec<Bytes> = resp::unquote(line)?.into_iter().map(Bytes::from).collect();
                self.run_owned(&words, ctx);
            }
            Request::Incomplete { need } => {
                input.need(need);
                return Ok(false);
            }
            Request::Begun { len, missing } => {
                input.consume(len);
                self.partial = Some(Box::new(Partial::begin(args, missing, resp::COMMAND_MAX)));
            }
        }
        Ok(true)
    }

    /// Goes on with a large command, and runs it when it is complete.
    fn step_partial(
        &mut self,
        input: &mut Input<'_>,
        ctx: &mut Context<'_, Self>,
    ) -> Result<bool, ProtocolError> {
        let Some(mut partial) = self.partial.take() else {
            return Ok(false);
        };
        let (len, need) = partial.take(input.bytes())?;
        input.consume(len);
        if let Some(need) = need {
            input.need(need);
            self.partial = Some(partial);
            return Ok(false);
        }
        self.run_owned(&partial.into_args(), ctx);
        Ok(true)
    }

    fn run_owned(&mut self, words: &[Bytes], ctx: &mut Context<'_, Self>) {
        let args: Args<'_> = words.iter().map(|word| &word[..]).collect();
        let words = Words {
            args: &args,
            owned: Some(words),
        };
        commands::execute(words, &mut self.session, &self.server, ctx);
    }

    /// Sends what was refused before, as far as there is room.
    fn publish_on(&mut self, ctx: &mut Context<'_, Self>) {
        while let Some((hub, push)) = self.session.unsent.pop_front() {
            if let Err(error) = hub.send(Broadcast::Push(push))
                && let Some(push) = topics::refused(error)
            {
                ctx.wait_for_room(&hub);
                self.session.unsent.push_front((hub, push));
                break;
            }
        }
    }
}

impl Actor for Client {
    type Message = Push;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let (card, now) = (&self.session.card, self.server.seconds(ctx.now()));
        card.since.store(now, Ordering::Relaxed);
        card.active.store(now, Ordering::Relaxed);
        self.server.clients.add(ctx.addr(), card);
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let now = self.server.seconds(ctx.now());
        self.session.card.active.store(now, Ordering::Relaxed);
        let mut args = Args::new();
        while !input.is_empty() && !ctx.is_closing() && self.session.unsent.is_empty() {
            // Rather than have replies pile up, go on when the peer has read some.
            if ctx.is_above_high_watermark() {
                ctx.pause();
                break;
            }
            let step = match self.partial {
                None => self.step(input, &mut args, ctx),
                Some(_) => self.step_partial(input, ctx),
            };
            match step {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    // The last reply: nobody knows where the next command begins.
                    let mut reply = Reply {
                        ctx,
                        is_resp3: self.session.is_resp3,
                        is_muted: false,
                    };
                    reply.error(format!("ERR {error}").as_bytes());
                    ctx.close();
                }
            }
        }
        input.hold(self.partial.as_ref().map_or(0, |partial| partial.held()));
        Ok(())
    }

    /// Something was published.
    fn message(&mut self, push: Push, ctx: &mut Context<'_, Self>) -> Outcome {
        // It may have been on its way when the client unsubscribed, and even subscribed again.
        let shown = self.session.topics(push.kind).get(&push.topic);
        if shown.is_none_or(|last| push.number <= *last) {
            return Ok(());
        }
        if ctx.queued() + push.body.len() > SUBSCRIBER_MAX {
            ctx.abort();
            return Ok(());
        }
        let mut reply = Reply {
            ctx,
            is_resp3: self.session.is_resp3,
            is_muted: false,
        };
        reply.push(push.kind.parts());
        ctx.write_bytes(push.body);
        Ok(())
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.resume();
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.publish_on(ctx);
        Ok(())
    }

    fn closed(&mut self, _reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        commands::forget(&mut self.session, &self.server, &ctx.addr());
        self.server.clients.remove(self.session.card.id);
    }
}
