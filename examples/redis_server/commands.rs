//! The commands: what each takes, does, and replies. Names, texts and corner cases are those of
//! Redis 7.0.

use std::borrow::Cow;

use bytes::Bytes;

use crate::reply::Reply;
use crate::resp::integer;
use crate::store::Store;

/// An error reply, beginning with its code.
type Refusal = Cow<'static, [u8]>;
type Answered = Result<(), Refusal>;
type Run = fn(&[&[u8]], &Store, &mut Reply<'_, '_>) -> Answered;

/// What clients look at to see which commands there are.
const VERSION: &str = "7.0.0";

const NOT_AN_INTEGER: Refusal = Cow::Borrowed(b"ERR value is not an integer or out of range");
const SYNTAX: Refusal = Cow::Borrowed(b"ERR syntax error");
const OVERFLOW: Refusal = Cow::Borrowed(b"ERR increment or decrement would overflow");
const NO_SUCH_DB: Refusal = Cow::Borrowed(b"ERR DB index is out of range");
const NO_EXPIRY: Refusal = Cow::Borrowed(b"ERR keys of this server do not expire");

/// Bytes of an unknown name, and of its arguments, that an error shows.
const SHOWN_MAX: usize = 128;

struct Command {
    /// See [`word`].
    word: u64,
    /// How many arguments it takes, its name included; negative: at least so many.
    arity: isize,
    run: Run,
}

/// All commands, the most frequent ones first.
const COMMANDS: [Command; 22] = [
    Command::new("get", 2, get),
    Command::new("set", -3, set),
    Command::new("ping", -1, ping),
    Command::new("incr", 2, incr),
    Command::new("mget", -2, mget),
    Command::new("mset", -3, mset),
    Command::new("del", -2, del),
    Command::new("exists", -2, exists),
    Command::new("echo", 2, echo),
    Command::new("decr", 2, decr),
    Command::new("incrby", 3, incrby),
    Command::new("decrby", 3, decrby),
    Command::new("dbsize", 1, dbsize),
    Command::new("flushdb", -1, flush),
    Command::new("flushall", -1, flush),
    Command::new("select", 2, select),
    Command::new("quit", -1, quit),
    Command::new("hello", -1, hello),
    Command::new("info", -1, info),
    Command::new("command", -1, command),
    Command::new("config", -2, config),
    Command::new("client", -2, client),
];

impl Command {
    const fn new(name: &str, arity: isize, run: Run) -> Command {
        let word = word(name.as_bytes());
        Command { word, arity, run }
    }

    fn takes(&self, len: usize) -> bool {
        self.arity == len as isize || self.arity < 0 && self.arity.unsigned_abs() <= len
    }
}

/// A name of at most eight letters, small or capital, as a number: to compare numbers is faster.
/// The bit that is set here is all that a small letter has and its capital has not; no byte but
/// these two becomes that letter by it.
const fn word(name: &[u8]) -> u64 {
    let (mut word, mut at) = (0, 0);
    while at < name.len() {
        word = word << 8 | (name[at] | 0x20) as u64;
        at += 1;
    }
    word
}

/// Runs one command and replies to it. `args` begins with its name, or is empty, which is none.
pub(crate) fn execute(args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) {
    let Some(&name) = args.first() else { return };
    let command = match name.len() {
        1..=8 => {
            let word = word(name);
            COMMANDS.iter().find(|command| command.word == word)
        }
        _ => None,
    };
    let done = match command {
        Some(command) if command.takes(args.len()) => (command.run)(args, store, reply),
        Some(_) => Err(wrong_arity(&args[..1])),
        None => Err(unknown_command(args)),
    };
    if let Err(refusal) = done {
        reply.error(&refusal);
    }
}

fn get(args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    let key = store.key(args[1]);
    reply.value(store.lock(&key).get(&key));
    Ok(())
}

fn set(args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    let key = store.key(args[1]);
    let value = Bytes::copy_from_slice(args[2]);
    if args.len() == 3 {
        let before = store.lock(&key).set(&key, value);
        drop(before);
        reply.ok();
        return Ok(());
    }
    let (mut when, mut replies_value) = (None, false);
    for option in &args[3..] {
        match &*option.to_ascii_uppercase() {
            b"NX" if when != Some(true) => when = Some(false),
            b"XX" if when != Some(false) => when = Some(true),
            b"GET" => replies_value = true,
            // Nothing expires, so nothing is lost.
            b"KEEPTTL" => {}
            b"EX" | b"PX" | b"EXAT" | b"PXAT" => return Err(NO_EXPIRY),
            _ => return Err(SYNTAX),
        }
    }
    let mut table = store.lock(&key);
    let before = table.get(&key).cloned();
    let is_set = when.is_none_or(|there| there == before.is_some());
    if is_set {
        table.set(&key, value);
    }
    drop(table);
    match (replies_value, is_set) {
        (true, _) => reply.value(before.as_ref()),
        (false, true) => reply.ok(),
        (false, false) => reply.nil(),
    }
    Ok(())
}

fn ping(args: &[&[u8]], _store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    match args {
        [_] => reply.raw(b"+PONG\r\n"),
        [_, text] => reply.bulk(text),
        _ => return Err(wrong_arity(&args[..1])),
    }
    Ok(())
}

fn add(name: &[u8], by: i64, store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    let key = store.key(name);
    let mut table = store.lock(&key);
    let before = table.get(&key).map_or(Some(0), |value| integer(value));
    let sum = before
        .ok_or(NOT_AN_INTEGER)?
        .checked_add(by)
        .ok_or(OVERFLOW)?;
    let digits = Bytes::copy_from_slice(itoa::Buffer::new().format(sum).as_bytes());
    table.set(&key, digits);
    reply.integer(sum);
    Ok(())
}

fn incr(args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    add(args[1], 1, store, reply)
}

fn decr(args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    add(args[1], -1, store, reply)
}

fn incrby(args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    add(
        args[1],
        integer(args[2]).ok_or(NOT_AN_INTEGER)?,
        store,
        reply,
    )
}

fn decrby(args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    let by = integer(args[2]).ok_or(NOT_AN_INTEGER)?;
    let by = by
        .checked_neg()
        .ok_or(b"ERR decrement would overflow".as_slice())?;
    add(args[1], by, store, reply)
}

fn mget(args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    let keys = &args[1..];
    let tables = store.lock_several(keys.iter().copied());
    reply.array(keys.len());
    for key in keys {
        reply.value(tables.get(key));
    }
    Ok(())
}

fn mset(args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    let (pairs, []) = args[1..].as_chunks::<2>() else {
        return Err(wrong_arity(&args[..1]));
    };
    let mut tables = store.lock_several(pairs.iter().map(|[key, _]| *key));
    for [key, value] in pairs {
        tables.set(key, Bytes::copy_from_slice(value));
    }
    reply.ok();
    Ok(())
}

fn del(args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    let mut tables = store.lock_several(args[1..].iter().copied());
    let removed = args[1..]
        .iter()
        .filter_map(|key| tables.remove(key))
        .count();
    reply.integer(removed as i64);
    Ok(())
}

fn exists(args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    let tables = store.lock_several(args[1..].iter().copied());
    let found = args[1..].iter().filter_map(|key| tables.get(key)).count();
    reply.integer(found as i64);
    Ok(())
}

fn echo(args: &[&[u8]], _store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    reply.bulk(args[1]);
    Ok(())
}

fn dbsize(_args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    reply.integer(store.lock_all().len() as i64);
    Ok(())
}

fn flush(args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    match args {
        [_] => {}
        [_, how] if is(how, "SYNC") || is(how, "ASYNC") => {}
        _ => return Err(SYNTAX),
    }
    store.lock_all().clear();
    reply.ok();
    Ok(())
}

/// There is one database.
fn select(args: &[&[u8]], _store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    match integer(args[1]) {
        Some(0) => reply.ok(),
        Some(_) => return Err(NO_SUCH_DB),
        None => return Err(NOT_AN_INTEGER),
    }
    Ok(())
}

fn quit(_args: &[&[u8]], _store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    reply.ok();
    reply.ctx.close();
    Ok(())
}

/// Speaks version 2 of the protocol only, and says so: clients then go on with that.
fn hello(args: &[&[u8]], _store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    match args.get(1).map(|version| integer(version)) {
        None | Some(Some(2)) => {}
        Some(Some(_)) => return Err(b"NOPROTO unsupported protocol version".into()),
        Some(None) => {
            return Err(b"ERR Protocol version is not an integer or out of range".into());
        }
    }
    if let Some(option) = args.get(2) {
        return Err([b"ERR Syntax error in HELLO option '", *option, b"'"]
            .concat()
            .into());
    }
    reply.array(12);
    for (name, text) in [("server", "greenroom"), ("version", VERSION)] {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(2);
    for (name, text) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

fn info(_args: &[&[u8]], store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    let keys = store.lock_all().len();
    let stats = reply.ctx.system().stats();
    let text = format!(
        "# Server\r\nserver_name:greenroom\r\nredis_version:{VERSION}\r\nredis_mode:standalone\r\n\
         \r\n# Stats\r\ntotal_connections_received:{}\r\n\
         \r\n# Keyspace\r\ndb0:keys={keys},expires=0,avg_ttl=0\r\n",
        stats.accepted
    );
    reply.bulk(text.as_bytes());
    Ok(())
}

/// What redis-cli asks for to give hints: there are none.
fn command(args: &[&[u8]], _store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    match args.get(1) {
        None => {}
        Some(sub) if is(sub, "DOCS") => {}
        Some(sub) => return Err(unknown_subcommand(args[0], sub)),
    }
    reply.array(0);
    Ok(())
}

/// Answers what redis-benchmark asks for.
fn config(args: &[&[u8]], _store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    if !is(args[1], "GET") {
        return Err(unknown_subcommand(args[0], args[1]));
    }
    let names = &args[2..];
    if names.is_empty() {
        return Err(wrong_arity(&args[..2]));
    }
    let known = [("appendonly", "no"), ("save", "")];
    let asked = known
        .iter()
        .filter(|(name, _)| names.iter().any(|asked| is(asked, name)));
    reply.array(asked.clone().count() * 2);
    for (name, value) in asked {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    Ok(())
}

/// Connections have no names here; those that clients give are taken and forgotten.
fn client(args: &[&[u8]], _store: &Store, reply: &mut Reply<'_, '_>) -> Answered {
    match args[1] {
        sub if is(sub, "SETNAME") && args.len() == 3 => reply.ok(),
        sub if is(sub, "SETINFO") && args.len() == 4 => reply.ok(),
        sub if is(sub, "SETNAME") || is(sub, "SETINFO") => return Err(wrong_arity(&args[..2])),
        sub => return Err(unknown_subcommand(args[0], sub)),
    }
    Ok(())
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// `name` is that of a command, with that of its subcommand if it has one.
fn wrong_arity(name: &[&[u8]]) -> Refusal {
    let name = name.join(&b'|').to_ascii_lowercase();
    [b"ERR wrong number of arguments for '", &*name, b"' command"]
        .concat()
        .into()
}

fn unknown_subcommand(name: &[u8], sub: &[u8]) -> Refusal {
    let (name, sub) = (name.to_ascii_uppercase(), shorten(sub, SHOWN_MAX));
    one_line(
        [
            b"ERR unknown subcommand '",
            sub,
            b"'. Try ",
            &name,
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
