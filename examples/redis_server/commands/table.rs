//! All commands, with what Redis 7.0 says of them.

use super::super::store::Store;
use super::{
    Refusal, Run, clients, connection, expiry, keys, numbers, pubsub, server, strings,
    transactions, unknown_command, unknown_subcommand,
};

pub(crate) struct Command {
    /// That of a subcommand begins with that of its command: `client|id`.
    pub(crate) name: &'static str,
    /// How many arguments it takes, its name included; negative: at least so many.
    pub(super) arity: isize,
    /// As Redis has them; behind these the groups of its access lists that do not follow.
    pub(super) flags: &'static str,
    pub(super) keys: Keys,
    pub(super) run: Run,
    pub(super) group: &'static str,
    /// The version that had it first, and what it does.
    pub(super) since: &'static str,
    pub(super) summary: &'static str,
    pub(super) subs: &'static [Command],
}

/// Which arguments are keys, and so what is locked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    None,
    One,
    Two,
    Many,
    /// Every other one.
    Pairs,
    /// That of a subcommand.
    Second,
    /// None, and all are locked.
    All,
    /// Those of all commands that are queued, and those watched.
    Transaction,
}

impl Keys {
    /// The first, the last (negative: from the end), and the step from one to the next.
    pub(super) fn range(self) -> (usize, isize, usize) {
        match self {
            Keys::None | Keys::All | Keys::Transaction => (0, 0, 0),
            Keys::One => (1, 1, 1),
            Keys::Two => (1, 2, 1),
            Keys::Many => (1, -1, 1),
            Keys::Pairs => (1, -1, 2),
            Keys::Second => (2, 2, 1),
        }
    }

    pub(super) fn of<W: AsRef<[u8]>>(self, args: &[W]) -> impl Iterator<Item = &[u8]> {
        let (first, last, step) = self.range();
        let end = match last {
            0 => 0,
            1.. => (last as usize + 1).min(args.len()),
            _ => args.len(),
        };
        let keys = args[..end].iter().skip(first).step_by(step.max(1));
        keys.map(AsRef::as_ref)
    }

    /// The shards that these keys are in.
    pub(super) fn shards<W: AsRef<[u8]>>(self, args: &[W], store: &Store) -> u64 {
        match self {
            Keys::All => u64::MAX,
            _ => self.of(args).fold(0, |set, key| set | store.shard_set(key)),
        }
    }
}

impl Command {
    pub(super) fn takes(&self, len: usize) -> bool {
        self.arity == len as isize || self.arity < 0 && self.arity.unsigned_abs() <= len
    }

    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.split(' ').any(|has| has == flag)
    }

    /// What is run at once where others are queued.
    pub(super) fn is_for_transactions(&self) -> bool {
        matches!(
            self.name,
            "exec" | "discard" | "multi" | "watch" | "quit" | "reset"
        )
    }

    /// What may still be asked for by a subscriber that speaks RESP2, as its replies could be taken
    /// for messages.
    pub(super) fn is_for_subscribers(&self) -> bool {
        matches!(
            self.name,
            "subscribe" | "unsubscribe" | "psubscribe" | "punsubscribe" | "ping" | "quit" | "reset"
        )
    }
}

/// A command, and its number for [`name_of`].
pub(super) struct Found {
    pub(super) command: &'static Command,
    pub(super) number: u16,
}

/// Finds the command, or the subcommand, that `args` begins with.
#[inline]
pub(super) fn find(args: &[&[u8]]) -> Result<Found, Refusal> {
    let at = row_of(args[0]).ok_or_else(|| unknown_command(args))?;
    let command = &COMMANDS[at];
    let mut number = (at as u16) << 8;
    if let ([_, sub, ..], [_, ..]) = (args, command.subs) {
        let at = command.subs.iter().position(|row| named(row, sub));
        let at = at.ok_or_else(|| unknown_subcommand(command.name, sub))?;
        number += at as u16 + 1;
        let command = &command.subs[at];
        return Ok(Found { command, number });
    }
    Ok(Found { command, number })
}

fn named(row: &Command, sub: &[u8]) -> bool {
    let name = row.name.split_once('|').map_or(row.name, |(_, name)| name);
    name.as_bytes().eq_ignore_ascii_case(sub)
}

/// The command of this name, or `name|sub`.
pub(super) fn by_name(name: &[u8]) -> Option<&'static Command> {
    let mut parts = name.splitn(2, |byte| *byte == b'|');
    let command = &COMMANDS[row_of(parts.next()?)?];
    match parts.next() {
        None => Some(command),
        Some(sub) => command.subs.iter().find(|row| named(row, sub)),
    }
}

pub(crate) fn name_of(number: u16) -> &'static str {
    let Some(command) = COMMANDS.get(usize::from(number >> 8)) else {
        return "NULL";
    };
    let sub = usize::from(number & 0xff);
    match sub.checked_sub(1).and_then(|sub| command.subs.get(sub)) {
        Some(sub) => sub.name,
        None => command.name,
    }
}

/// A name as a number: to compare numbers is faster. The bit that is set here is all that a small
/// letter has and its capital has not; no byte but these two becomes that letter by it. Up to eight
/// letters make a number of their own; of more, several names may have one.
#[inline]
const fn word(name: &[u8]) -> u64 {
    let (mut word, mut at) = (0_u64, 0);
    while at < name.len() {
        word = word.rotate_left(8) ^ (name[at] | 0x20) as u64;
        at += 1;
    }
    word
}

const SLOTS: usize = 512;

#[inline]
const fn slot(word: u64) -> usize {
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as usize
}

/// The rows by their words; whoever finds the place taken has the next free one.
static ROWS: [(u64, usize); SLOTS] = {
    let mut rows = [(0, 0); SLOTS];
    let mut row = 0;
    while row < COMMANDS.len() {
        let word = word(COMMANDS[row].name.as_bytes());
        let mut at = slot(word);
        while rows[at].0 != 0 {
            at = (at + 1) % SLOTS;
        }
        rows[at] = (word, row);
        row += 1;
    }
    rows
};

#[inline]
fn row_of(name: &[u8]) -> Option<usize> {
    if name.is_empty() || name.len() > 16 {
        return None;
    }
    let word = word(name);
    let mut at = slot(word);
    loop {
        match ROWS[at] {
            (0, _) => return None,
            (found, row) if found == word && is_named(row, name) => return Some(row),
            _ => at = (at + 1) % SLOTS,
        }
    }
}

/// Whether a name whose word is that of this row is it.
#[inline]
fn is_named(row: usize, name: &[u8]) -> bool {
    let found = COMMANDS[row].name.as_bytes();
    found.len() == name.len() && (name.len() <= 8 || found.eq_ignore_ascii_case(name))
}

const fn row(
    name: &'static str,
    arity: isize,
    keys: Keys,
    run: Run,
    flags: &'static str,
) -> Command {
    Command {
        name,
        arity,
        flags,
        keys,
        run,
        group: "",
        since: "",
        summary: "",
        subs: &[],
    }
}

impl Command {
    const fn of(
        mut self,
        group: &'static str,
        since: &'static str,
        summary: &'static str,
    ) -> Command {
        (self.group, self.since, self.summary) = (group, since, summary);
        self
    }

    const fn with(mut self, subs: &'static [Command]) -> Command {
        self.subs = subs;
        self
    }
}

#[rustfmt::skip]
pub(super) static COMMANDS: &[Command] = &[
    row("get", 2, Keys::One, strings::get, "readonly fast @string")
        .of("string", "1.0.0", "Get the value of a key"),
    row("set", -3, Keys::One, strings::set, "write denyoom @string")
        .of("string", "1.0.0", "Set the string value of a key"),
    row("mset", -3, Keys::Pairs, strings::mset, "write denyoom @string")
        .of("string", "1.0.1", "Set multiple keys to multiple values"),
    row("mget", -2, Keys::Many, strings::mget, "readonly fast @string")
        .of("string", "1.0.0", "Get the values of all the given keys"),
    row("append", 3, Keys::One, strings::append, "write denyoom fast @string")
        .of("string", "2.0.0", "Append a value to a key"),
    row("strlen", 2, Keys::One, strings::strlen, "readonly fast @string")
        .of("string", "2.2.0", "Get the length of the value stored in a key"),
    row("getrange", 4, Keys::One, strings::getrange, "readonly @string")
        .of("string", "2.4.0", "Get a substring of the string stored at a key"),
    row("substr", 4, Keys::One, strings::getrange, "readonly @string")
        .of("string", "1.0.0", "Get a substring of the string stored at a key"),
    row("setrange", 4, Keys::One, strings::setrange, "write denyoom @string")
        .of("string", "2.2.0", "Overwrite part of a string at key starting at the specified offset"),
    row("getset", 3, Keys::One, strings::getset, "write denyoom fast @string")
        .of("string", "1.0.0", "Set the string value of a key and return its old value"),
    row("getdel", 2, Keys::One, strings::getdel, "write fast @string")
        .of("string", "6.2.0", "Get the value of a key and delete the key"),
    row("getex", -2, Keys::One, strings::getex, "write fast @string")
        .of("string", "6.2.0", "Get the value of a key and optionally set its expiration"),
    row("msetnx", -3, Keys::Pairs, strings::msetnx, "write denyoom @string")
        .of("string", "1.0.1", "Set multiple keys to multiple values, only if none of the keys exist"),
    row("setnx", 3, Keys::One, strings::setnx, "write denyoom fast @string")
        .of("string", "1.0.0", "Set the value of a key, only if the key does not exist"),
    row("setex", 4, Keys::One, strings::setex, "write denyoom @string")
        .of("string", "2.0.0", "Set the value and expiration of a key"),
    row("psetex", 4, Keys::One, strings::psetex, "write denyoom @string")
        .of("string", "2.6.0", "Set the value and expiration in milliseconds of a key"),
    row("incr", 2, Keys::One, numbers::incr, "write denyoom fast @string")
        .of("string", "1.0.0", "Increment the integer value of a key by one"),
    row("decr", 2, Keys::One, numbers::decr, "write denyoom fast @string")
        .of("string", "1.0.0", "Decrement the integer value of a key by one"),
    row("incrby", 3, Keys::One, numbers::incrby, "write denyoom fast @string")
        .of("string", "1.0.0", "Increment the integer value of a key by the given amount"),
    row("decrby", 3, Keys::One, numbers::decrby, "write denyoom fast @string")
        .of("string", "1.0.0", "Decrement the integer value of a key by the given number"),
    row("incrbyfloat", 3, Keys::One, numbers::incrbyfloat, "write denyoom fast @string")
        .of("string", "2.6.0", "Increment the float value of a key by the given amount"),
    row("del", -2, Keys::Many, keys::del, "write @keyspace")
        .of("generic", "1.0.0", "Delete a key"),
    row("exists", -2, Keys::Many, keys::exists, "readonly fast @keyspace")
        .of("generic", "1.0.0", "Determine if a key exists"),
    row("unlink", -2, Keys::Many, keys::del, "write fast @keyspace")
        .of("generic", "4.0.0", "Delete a key asynchronously in another thread"),
    row("type", 2, Keys::One, keys::type_of, "readonly fast @keyspace")
        .of("generic", "1.0.0", "Determine the type stored at key"),
    row("touch", -2, Keys::Many, keys::exists, "readonly fast @keyspace")
        .of("generic", "3.2.1", "Alters the last access time of a key(s)"),
    row("copy", -3, Keys::Two, keys::copy, "write denyoom @keyspace")
        .of("generic", "6.2.0", "Copy a key"),
    row("rename", 3, Keys::Two, keys::rename, "write @keyspace")
        .of("generic", "1.0.0", "Rename a key"),
    row("renamenx", 3, Keys::Two, keys::renamenx, "write fast @keyspace")
        .of("generic", "1.0.0", "Rename a key, only if the new key does not exist"),
    row("randomkey", 1, Keys::All, keys::randomkey, "readonly @keyspace")
        .of("generic", "1.0.0", "Return a random key from the keyspace"),
    row("keys", 2, Keys::All, keys::keys, "readonly @dangerous @keyspace")
        .of("generic", "1.0.0", "Find all keys matching the given pattern"),
    row("scan", -2, Keys::All, keys::scan, "readonly @keyspace")
        .of("generic", "2.8.0", "Incrementally iterate the keys space"),
    row("move", 3, Keys::One, keys::move_to, "write fast @keyspace")
        .of("generic", "1.0.0", "Move a key to another database"),
    row("dbsize", 1, Keys::All, keys::dbsize, "readonly fast @keyspace")
        .of("server", "1.0.0", "Return the number of keys in the selected database"),
    row("flushdb", -1, Keys::All, keys::flushdb, "write @dangerous @keyspace")
        .of("server", "1.0.0", "Remove all keys from the current database"),
    row("flushall", -1, Keys::All, keys::flushall, "write @dangerous @keyspace")
        .of("server", "1.0.0", "Remove all keys from all databases"),
    row("swapdb", 3, Keys::All, keys::swapdb, "write fast @dangerous @keyspace")
        .of("server", "4.0.0", "Swaps two Redis databases"),
    row("object", -2, Keys::None, server::container, "")
        .of("generic", "2.2.3", "A container for object introspection commands").with(OBJECT),
    row("expire", -3, Keys::One, expiry::expire, "write fast @keyspace")
        .of("generic", "1.0.0", "Set a key's time to live in seconds"),
    row("pexpire", -3, Keys::One, expiry::pexpire, "write fast @keyspace")
        .of("generic", "2.6.0", "Set a key's time to live in milliseconds"),
    row("expireat", -3, Keys::One, expiry::expireat, "write fast @keyspace")
        .of("generic", "1.2.0", "Set the expiration for a key as a UNIX timestamp"),
    row("pexpireat", -3, Keys::One, expiry::pexpireat, "write fast @keyspace")
        .of("generic", "2.6.0", "Set the expiration for a key as a UNIX timestamp specified in milliseconds"),
    row("ttl", 2, Keys::One, expiry::ttl, "readonly fast @keyspace")
        .of("generic", "1.0.0", "Get the time to live for a key in seconds"),
    row("pttl", 2, Keys::One, expiry::pttl, "readonly fast @keyspace")
        .of("generic", "2.6.0", "Get the time to live for a key in milliseconds"),
    row("expiretime", 2, Keys::One, expiry::expiretime, "readonly fast @keyspace")
        .of("generic", "7.0.0", "Get the expiration Unix timestamp for a key"),
    row("pexpiretime", 2, Keys::One, expiry::pexpiretime, "readonly fast @keyspace")
        .of("generic", "7.0.0", "Get the expiration Unix timestamp for a key in milliseconds"),
    row("persist", 2, Keys::One, expiry::persist, "write fast @keyspace")
        .of("generic", "2.2.0", "Remove the expiration from a key"),
    row("ping", -1, Keys::None, connection::ping, "fast @connection")
        .of("connection", "1.0.0", "Ping the server"),
    row("echo", 2, Keys::None, connection::echo, "loading stale fast @connection")
        .of("connection", "1.0.0", "Echo the given string"),
    row("select", 2, Keys::None, connection::select, "loading stale fast @connection")
        .of("connection", "1.0.0", "Change the selected database for the current connection"),
    row("auth", -2, Keys::None, connection::auth, "noscript loading stale fast no_auth allow_busy @connection")
        .of("connection", "1.0.0", "Authenticate to the server"),
    row("hello", -1, Keys::None, connection::hello, "noscript loading stale fast no_auth allow_busy @connection")
        .of("connection", "6.0.0", "Handshake with Redis"),
    row("quit", -1, Keys::None, connection::quit, "noscript loading stale fast no_auth allow_busy @connection")
        .of("connection", "1.0.0", "Close the connection"),
    row("reset", 1, Keys::None, connection::reset, "noscript loading stale fast no_auth allow_busy @connection")
        .of("connection", "6.2.0", "Reset the connection"),
    row("client", -2, Keys::None, server::container, "")
        .of("connection", "2.4.0", "A container for client connection commands").with(CLIENT),
    row("publish", 3, Keys::None, pubsub::publish, "pubsub loading stale fast")
        .of("pubsub", "2.0.0", "Post a message to a channel"),
    row("subscribe", -2, Keys::None, pubsub::subscribe, "pubsub noscript loading stale")
        .of("pubsub", "2.0.0", "Listen for messages published to the given channels"),
    row("unsubscribe", -1, Keys::None, pubsub::unsubscribe, "pubsub noscript loading stale")
        .of("pubsub", "2.0.0", "Stop listening for messages posted to the given channels"),
    row("psubscribe", -2, Keys::None, pubsub::psubscribe, "pubsub noscript loading stale")
        .of("pubsub", "2.0.0", "Listen for messages published to channels matching the given patterns"),
    row("punsubscribe", -1, Keys::None, pubsub::punsubscribe, "pubsub noscript loading stale")
        .of("pubsub", "2.0.0", "Stop listening for messages posted to channels matching the given patterns"),
    row("pubsub", -2, Keys::None, server::container, "")
        .of("pubsub", "2.8.0", "A container for Pub/Sub commands").with(PUBSUB),
    row("multi", 1, Keys::None, transactions::multi, "noscript loading stale fast allow_busy @transaction")
        .of("transactions", "1.2.0", "Mark the start of a transaction block"),
    row("exec", 1, Keys::Transaction, transactions::exec, "noscript loading stale skip_slowlog @transaction")
        .of("transactions", "1.2.0", "Execute all commands issued after MULTI"),
    row("discard", 1, Keys::None, transactions::discard, "noscript loading stale fast allow_busy @transaction")
        .of("transactions", "2.0.0", "Discard all commands issued after MULTI"),
    row("watch", -2, Keys::Many, transactions::watch, "noscript loading stale fast allow_busy @transaction")
        .of("transactions", "2.2.0", "Watch the given keys to determine execution of the MULTI/EXEC block"),
    row("unwatch", 1, Keys::None, transactions::unwatch, "noscript loading stale fast allow_busy @transaction")
        .of("transactions", "2.2.0", "Forget about all watched keys"),
    row("info", -1, Keys::All, server::info, "loading stale @dangerous")
        .of("server", "1.0.0", "Get information and statistics about the server"),
    row("config", -2, Keys::None, server::container, "")
        .of("server", "2.0.0", "A container for server configuration commands").with(CONFIG),
    row("command", -1, Keys::None, server::command, "loading stale @connection")
        .of("server", "2.8.13", "Get array of Redis command details").with(COMMAND),
    row("time", 1, Keys::None, server::time, "loading stale fast")
        .of("server", "2.6.0", "Return the current server time"),
];

#[rustfmt::skip]
static OBJECT: &[Command] = &[
    row("object|encoding", 3, Keys::Second, keys::object_encoding, "readonly @keyspace")
        .of("generic", "2.2.3", "Inspect the internal encoding of a Redis object"),
    row("object|refcount", 3, Keys::Second, keys::object_refcount, "readonly @keyspace")
        .of("generic", "2.2.3", "Get the number of references to the value of the key"),
    row("object|help", 2, Keys::None, server::help, "loading stale @keyspace")
        .of("generic", "6.2.0", "Show helpful text about the different subcommands"),
];

#[rustfmt::skip]
static CLIENT: &[Command] = &[
    row("client|id", 2, Keys::None, clients::client_id, "noscript loading stale @connection")
        .of("connection", "5.0.0", "Returns the client ID for the current connection"),
    row("client|getname", 2, Keys::None, clients::client_getname, "noscript loading stale @connection")
        .of("connection", "2.6.9", "Get the current connection name"),
    row("client|setname", 3, Keys::None, clients::client_setname, "noscript loading stale @connection")
        .of("connection", "2.6.9", "Set the current connection name"),
    row("client|info", 2, Keys::None, clients::client_info, "noscript loading stale @connection")
        .of("connection", "6.2.0", "Returns information about the current client connection"),
    row("client|list", -2, Keys::None, clients::client_list, "admin noscript loading stale @connection")
        .of("connection", "2.4.0", "Get the list of client connections"),
    row("client|kill", -3, Keys::None, clients::client_kill, "admin noscript loading stale @connection")
        .of("connection", "2.4.0", "Kill the connection of a client"),
    row("client|reply", 3, Keys::None, clients::client_reply, "noscript loading stale @connection")
        .of("connection", "3.2.0", "Instruct the server whether to reply to commands"),
    row("client|no-evict", 3, Keys::None, clients::client_no_evict, "admin noscript loading stale @connection")
        .of("connection", "7.0.0", "Set client eviction mode for the current connection"),
    row("client|getredir", 2, Keys::None, clients::client_getredir, "noscript loading stale @connection")
        .of("connection", "6.0.0", "Get tracking notifications redirection client ID if any"),
    row("client|unpause", 2, Keys::None, clients::client_unpause, "admin noscript loading stale @connection")
        .of("connection", "6.2.0", "Resume processing of clients that were paused"),
    row("client|help", 2, Keys::None, server::help, "loading stale @connection")
        .of("connection", "5.0.0", "Show helpful text about the different subcommands"),
    row("client|setinfo", 4, Keys::None, clients::client_setinfo, "noscript loading stale @connection")
        .of("connection", "7.2.0", "Set information specific to the client or connection"),
    row("client|no-touch", 3, Keys::None, clients::client_no_touch, "noscript loading stale @connection")
        .of("connection", "7.2.0", "Control whether commands sent by the client affect the LRU/LFU of accessed keys"),
];

#[rustfmt::skip]
static PUBSUB: &[Command] = &[
    row("pubsub|channels", -2, Keys::None, pubsub::pubsub_channels, "pubsub loading stale")
        .of("pubsub", "2.8.0", "List active channels"),
    row("pubsub|numsub", -2, Keys::None, pubsub::pubsub_numsub, "pubsub loading stale")
        .of("pubsub", "2.8.0", "Get the count of subscribers for channels"),
    row("pubsub|numpat", 2, Keys::None, pubsub::pubsub_numpat, "pubsub loading stale")
        .of("pubsub", "2.8.0", "Get the count of unique patterns pattern subscriptions"),
    row("pubsub|help", 2, Keys::None, server::help, "loading stale")
        .of("pubsub", "6.2.0", "Show helpful text about the different subcommands"),
];

#[rustfmt::skip]
static CONFIG: &[Command] = &[
    row("config|get", -3, Keys::None, server::config_get, "admin noscript loading stale")
        .of("server", "2.0.0", "Get the values of configuration parameters"),
    row("config|set", -4, Keys::None, server::config_set, "admin noscript loading stale")
        .of("server", "2.0.0", "Set configuration parameters to the given values"),
    row("config|resetstat", 2, Keys::All, server::config_resetstat, "admin noscript loading stale")
        .of("server", "2.0.0", "Reset the stats returned by INFO"),
    row("config|rewrite", 2, Keys::None, server::config_rewrite, "admin noscript loading stale")
        .of("server", "2.8.0", "Rewrite the configuration file with the in memory configuration"),
    row("config|help", 2, Keys::None, server::help, "loading stale")
        .of("server", "5.0.0", "Show helpful text about the different subcommands"),
];

#[rustfmt::skip]
static COMMAND: &[Command] = &[
    row("command|count", 2, Keys::None, server::command_count, "loading stale @connection")
        .of("server", "2.8.13", "Get total number of Redis commands"),
    row("command|info", -2, Keys::None, server::command_info, "loading stale @connection")
        .of("server", "2.8.13", "Get array of specific Redis command details, or all when no argument is given"),
    row("command|docs", -2, Keys::None, server::command_docs, "loading stale @connection")
        .of("server", "7.0.0", "Get array of specific Redis command documentation"),
    row("command|list", -2, Keys::None, server::command_list, "loading stale @connection")
        .of("server", "7.0.0", "Get an array of Redis command names"),
    row("command|getkeys", -4, Keys::None, server::command_getkeys, "loading stale @connection")
        .of("server", "2.8.13", "Extract keys given a full Redis command"),
    row("command|help", 2, Keys::None, server::help, "loading stale @connection")
        .of("server", "5.0.0", "Show helpful text about the different subcommands"),
];
