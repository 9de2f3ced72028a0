//! One side of a pair: the client's connection, or the one to its upstream. Both are on one poller.
//!
//! What one side reads travels to the other as a message, which writes it and asks to be told when the
//! kernel has taken it; then the first is told. A side that has [`WINDOW`] bytes under way reads no
//! more until half of them are taken: so TCP holds its peer back, and what a pair holds is bounded by
//! two windows and a read each. The end of a stream travels behind its last byte.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use greenroom::{
    Actor, Addr, CloseReason, ConnectOptions, Context, Gone, Input, Outcome, TimerKey,
};

use super::upstreams::Upstreams;

/// Bytes that may be on their way from one side to the other's kernel, and a read more.
pub(crate) const WINDOW: usize = 256 << 10;

/// How long one upstream may take before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long before the deadline of a stop connections are reset.
const BEFORE_DEADLINE: Duration = Duration::from_millis(100);

/// What one side tells the other.
pub(crate) enum Word {
    /// The upstream is connected.
    Connected,
    /// What was read.
    Bytes(Bytes),
    /// So many bytes of it are taken.
    Taken(usize),
    /// Nothing follows.
    End,
    /// It has gone. Comes by a monitor, which no mailbox is too full for.
    Gone(Gone),
}

/// One side.
pub(crate) struct Side {
    upstreams: Arc<Upstreams>,
    /// The other side. A client that seeks its upstream has the one that is tried.
    other: Option<Addr<Side>>,
    /// For the side of the upstream: which one it is.
    at: Option<usize>,
    /// For a client's: those that were tried.
    tried: Vec<usize>,
    /// Bytes that the other side has not said to be taken.
    under_way: usize,
    is_connected: bool,
    /// Both streams have ended, each behind its last byte.
    has_read_all: bool,
    has_written_all: bool,
    /// What found the mailbox full.
    unsent: VecDeque<Word>,
}

impl Side {
    /// For a client that has come.
    pub(crate) fn client(upstreams: Arc<Upstreams>) -> Side {
        Side::new(upstreams, None, None)
    }

    fn new(upstreams: Arc<Upstreams>, other: Option<Addr<Side>>, at: Option<usize>) -> Side {
        Side {
            upstreams,
            other,
            at,
            tried: Vec::new(),
            under_way: 0,
            is_connected: false,
            has_read_all: false,
            has_written_all: false,
            unsent: VecDeque::new(),
        }
    }

    /// Connects to the next upstream. A client for whom there is none is reset.
    fn seek(&mut self, ctx: &mut Context<'_, Self>) {
        let Some(at) = self.upstreams.choose(&self.tried) else {
            let peer = ctx.peer().map_or("?".to_owned(), |peer| peer.to_string());
            log::warn!("no upstream is up: {peer} is turned away");
            return ctx.abort();
        };
        self.tried.push(at);
        let upstream = Side::new(self.upstreams.clone(), Some(ctx.addr()), Some(at));
        let options = ConnectOptions::new().timeout(CONNECT_TIMEOUT);
        let addr = ctx.connect_with(self.upstreams.remote(at), options, upstream);
        ctx.monitor(&addr, Word::Gone);
        self.other = Some(addr);
    }

    /// Tells the other side, behind all that it was told before.
    fn tell(&mut self, word: Word, ctx: &mut Context<'_, Self>) {
        self.unsent.push_back(word);
        self.send(ctx);
    }

    fn send(&mut self, ctx: &mut Context<'_, Self>) {
        let Some(other) = &self.other else { return };
        while let Some(word) = self.unsent.pop_front() {
            if let Err(error) = other.send(word)
                && error.is_full()
            {
                self.unsent.push_front(error.into_message());
                return ctx.wait_for_room(other);
            }
            // That one has gone is told by its monitor.
        }
    }

    /// The other side has gone. The stream of one whose peer has closed is whole, though its end may
    /// have found no room; a stream that is cut off is not to look whole.
    fn other_gone(&mut self, reason: Option<&'static str>, ctx: &mut Context<'_, Self>) {
        let is_whole = reason == Some(CloseReason::PeerClosed.name());
        let is_over = self.has_read_all && self.has_written_all;
        if !self.is_connected {
            self.seek(ctx);
        } else if !is_whole && !is_over {
            ctx.abort();
        } else if !self.has_written_all {
            self.end(ctx);
        }
    }

    fn end(&mut self, ctx: &mut Context<'_, Self>) {
        self.has_written_all = true;
        ctx.shutdown_write();
    }
}

impl Actor for Side {
    type Message = Word;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.at.is_some() {
            self.is_connected = true;
            if let Some(client) = &self.other {
                ctx.monitor(client, Word::Gone);
            }
            self.tell(Word::Connected, ctx);
        } else {
            // Nobody is there yet to have the bytes.
            ctx.pause();
            self.seek(ctx);
        }
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let bytes = input.take_all();
        if bytes.is_empty() {
            return Ok(());
        }
        self.under_way += bytes.len();
        if self.under_way >= WINDOW {
            ctx.pause();
        }
        self.tell(Word::Bytes(Bytes::copy_from_slice(bytes)), ctx);
        Ok(())
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.has_read_all = true;
        self.tell(Word::End, ctx);
        Ok(())
    }

    fn message(&mut self, word: Word, ctx: &mut Context<'_, Self>) -> Outcome {
        match word {
            Word::Connected => {
                self.is_connected = true;
                ctx.resume();
            }
            Word::Bytes(bytes) => {
                let taken = bytes.len() as u64;
                ctx.write_bytes(bytes);
                ctx.notify_written(taken);
            }
            Word::Taken(bytes) => {
                let was_held = self.under_way >= WINDOW / 2;
                self.under_way -= bytes;
                if was_held && self.under_way < WINDOW / 2 {
                    ctx.resume();
                }
            }
            Word::End => self.end(ctx),
            Word::Gone(gone) => self.other_gone(gone.reason, ctx),
        }
        Ok(())
    }

    fn written(&mut self, taken: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        self.tell(Word::Taken(taken as usize), ctx);
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.send(ctx);
        Ok(())
    }

    /// Whoever is served goes on until shortly before the deadline. Then both sides are reset: at
    /// the deadline itself a connection for which nothing waits is closed as if its stream were whole.
    fn stopping(&mut self, deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        if !self.is_connected {
            ctx.abort();
        } else if let Some(at) = deadline.checked_sub(BEFORE_DEADLINE) {
            ctx.set_timer_at(at);
        }
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.abort();
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        if let Some(at) = self.at {
            self.upstreams.leave(at);
            if let CloseReason::NotConnected(error) = reason {
                self.upstreams.failed(at, error);
            }
        } else if let Some(other) = &self.other
            && !self.is_connected
        {
            // There is nobody any more to be served: the connect is given up.
            other.close();
        }
    }
}
