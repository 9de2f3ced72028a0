//! The commands: what each takes, does, and replies. Names, texts and corner cases are those of
//! Redis 7.0.
//!
//! [`table`] has all of them with their arity and keys. [`execute`] finds one, checks that, locks
//! its keys and runs it; a command itself never takes a lock of the store.

mod clients;
mod connection;
mod expiry;
mod keys;
mod numbers;
mod pubsub;
mod server;
mod strings;
mod table;
mod transactions;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use greenroom::Context;

use super::client::{Client, Replies, Session};
use super::reply::Reply;
use super::resp::{COMMAND_MAX, integer};
use super::server::Server;
use super::store::{Data, Key};

pub(crate) use table::{Command, name_of};
use table::{Found, Keys, find};
pub(crate) use transactions::forget;

/// An error reply, beginning with its code.
type Refusal = Cow<'static, [u8]>;
type Answered = Result<(), Refusal>;
type Run = fn(&mut Call<'_, '_, '_>) -> Answered;

const NOT_AN_INTEGER: Refusal = Cow::Borrowed(b"ERR value is not an integer or out of range");
const SYNTAX: Refusal = Cow::Borrowed(b"ERR syntax error");
const NO_SUCH_DB: Refusal = Cow::Borrowed(b"ERR DB index is out of range");
const NO_SUCH_KEY: Refusal = Cow::Borrowed(b"ERR no such key");

/// Bytes of an unknown name, and of its arguments, that an error shows.
const SHOWN_MAX: usize = 128;

/// A command as it has come: its name first, perhaps in memory of its own.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a> {
    pub(crate) args: &'a [&'a [u8]],
    pub(crate) owned: Option<&'a [Bytes]>,
}

impl Words<'_> {
    /// One of the words, to be kept: not copied if it need not be.
    fn bytes(&self, at: usize) -> Bytes {
        match self.owned {
            Some(owned) => owned[at].clone(),
            None => Bytes::copy_from_slice(self.args[at]),
        }
    }
}

/// A command that runs.
struct Call<'a, 'd, 'c> {
    words: Words<'a>,
    args: &'a [&'a [u8]],
    session: &'a mut Session,
    server: &'a Arc<Server>,
    data: &'a mut Data<'d>,
    reply: Reply<'a, 'c>,
}

impl<'a> Call<'a, '_, '_> {
    /// The first key.
    fn key(&self) -> Key<'a> {
        self.data.first_key(self.args[1])
    }

    fn integer(&self, at: usize) -> Result<i64, Refusal> {
        integer(self.args[at]).ok_or(NOT_AN_INTEGER)
    }

    /// The number of a database.
    fn database(&self, at: usize) -> Result<usize, Refusal> {
        let number = self.integer(at)?;
        if i32::try_from(number).is_err() {
            return Err(
                b"ERR value is out of range, value must between -2147483648 and 2147483647"
                    .as_slice()
                    .into(),
            );
        }
        let number = usize::try_from(number).ok();
        let number = number.filter(|number| *number < super::store::DATABASES);
        number.ok_or(NO_SUCH_DB)
    }

    /// Whether a word is this one, which is in capitals.
    fn is(&self, at: usize, word: &str) -> bool {
        is(self.args[at], word)
    }
}

/// Runs one command and replies to it. `words` may be empty, which is none.
pub(crate) fn execute(
    words: Words<'_>,
    session: &mut Session,
    server: &Arc<Server>,
    ctx: &mut Context<'_, Client>,
) {
    let args = words.args;
    if args.is_empty() {
        return;
    }
    server.count_command(ctx.poller());
    let mut reply = Reply {
        ctx,
        is_resp3: session.is_resp3,
        is_muted: session.replies != Replies::On && session.replies != Replies::SkipNext,
    };
    match admit(args, session, server) {
        Err(refusal) => {
            session.spoil();
            reply.error(&refusal);
        }
        Ok(found) if session.transaction.is_some() && !found.command.is_for_transactions() => {
            queue(found.command, words, session, &mut reply);
        }
        Ok(found) => {
            let card = &session.card;
            card.command.store(found.number, Ordering::Relaxed);
            run(found.command, words, session, server, reply);
        }
    }
    session.replies = match session.replies {
        Replies::SkipNext => Replies::Skip,
        Replies::Skip => Replies::On,
        other => other,
    };
}

/// Finds a command that may be run as it stands.
#[inline]
fn admit(args: &[&[u8]], session: &mut Session, server: &Server) -> Result<Found, Refusal> {
    let found = find(args)?;
    let command = found.command;
    if !command.takes(args.len()) {
        let refusal = wrong_arity(command.name.as_bytes());
        return Err(match command.keys {
            Keys::Transaction => transactions::refuse_exec(session, server, &refusal),
            _ => refusal,
        });
    }
    if !session.is_resp3 && session.subscriptions() > 0 && !command.is_for_subscribers() {
        let name = command.name.as_bytes();
        return Err([
            b"ERR Can't execute '",
            name,
            b"': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
        ]
        .concat()
        .into());
    }
    Ok(found)
}

fn queue(
    command: &'static Command,
    words: Words<'_>,
    session: &mut Session,
    reply: &mut Reply<'_, '_>,
) {
    let Some(open) = &mut session.transaction else {
        return;
    };
    open.size += words.args.iter().map(|word| word.len() + 64).sum::<usize>();
    if open.size > COMMAND_MAX {
        open.is_spoiled = true;
        open.queue = Vec::new();
        return reply.error(b"ERR the transaction is too large");
    }
    let args = (0..words.args.len()).map(|at| words.bytes(at)).collect();
    open.queue.push((command, args));
    session.update_card();
    reply.raw(b"+QUEUED\r\n");
}

#[inline]
fn run(
    command: &'static Command,
    words: Words<'_>,
    session: &mut Session,
    server: &Arc<Server>,
    reply: Reply<'_, '_>,
) {
    let args = words.args;
    let mut data = server.store.data(session.db);
    match command.keys {
        Keys::None => {}
        Keys::One => data.lock_one(args[1]),
        Keys::Transaction => data.lock_set(transactions::shards(session, &server.store)),
        keys => data.lock_set(keys.shards(args, &server.store)),
    }
    let mut call = Call {
        words,
        args,
        session,
        server,
        data: &mut data,
        reply,
    };
    if let Err(refusal) = (command.run)(&mut call) {
        call.reply.error(&refusal);
    }
    if data.has_set_deadline {
        server.sweep();
    }
    if !data.garbage.is_empty() {
        let garbage = std::mem::take(&mut data.garbage);
        drop(data);
        server.free(garbage);
    }
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

fn wrong_arity(name: &[u8]) -> Refusal {
    [b"ERR wrong number of arguments for '", name, b"' command"]
        .concat()
        .into()
}

fn unknown_subcommand(name: &str, sub: &[u8]) -> Refusal {
    let (name, sub) = (name.to_ascii_uppercase(), shorten(sub, SHOWN_MAX));
    one_line(
        [
            b"ERR unknown subcommand '",
            sub,
            b"'. Try ",
            name.as_bytes(),
            b" HELP.",
        ]
        .concat(),
    )
}

fn unknown_command(args: &[&[u8]]) -> Refusal {
    let mut shown = Vec::new();
    for arg in &args[1..] {
        let room = SHOWN_MAX.saturating_sub(shown.len());
        if room == 0 {
            break;
        }
        shown.extend([b"'", shorten(arg, room), b"' "].concat());
    }
    let name = shorten(args[0], SHOWN_MAX);
    one_line(
        [
            b"ERR unknown command '",
            name,
            b"', with args beginning with: ",
            &shown,
        ]
        .concat(),
    )
}

/// As much of a peer's word as an error shows: at most `max` bytes, none behind a zero byte.
fn shorten(word: &[u8], max: usize) -> &[u8] {
    let len = word
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(word.len());
    &word[..len.min(max)]
}

/// An error is one line, whatever the peer's words in it are.
fn one_line(mut text: Vec<u8>) -> Refusal {
    for byte in &mut text {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    text.into()
}
