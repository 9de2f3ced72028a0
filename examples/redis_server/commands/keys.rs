//! Keys, whatever their values are.

use bytes::Bytes;

use super::super::glob;
use super::super::resp::integer;
use super::super::store::{DATABASES, Data, NEVER, Ttl};
use super::{Answered, Call, NO_SUCH_DB, NO_SUCH_KEY, NOT_AN_INTEGER, Refusal, SYNTAX, is};

const SAME: Refusal = Refusal::Borrowed(b"ERR source and destination objects are the same");

/// Keys that one SCAN looks at, unless it says how many.
const SCANNED: usize = 10;

pub(super) fn del(call: &mut Call<'_, '_, '_>) -> Answered {
    let mut removed = 0;
    for name in &call.args[1..] {
        let key = call.data.key(name);
        let entry = call.data.remove(&key);
        removed += i64::from(entry.is_some());
        call.data.discard(entry);
    }
    call.reply.integer(removed);
    Ok(())
}

pub(super) fn exists(call: &mut Call<'_, '_, '_>) -> Answered {
    let mut found = 0;
    for name in &call.args[1..] {
        let key = call.data.key(name);
        found += i64::from(call.data.read(&key).is_some());
    }
    call.reply.integer(found);
    Ok(())
}

pub(super) fn type_of(call: &mut Call<'_, '_, '_>) -> Answered {
    let key = call.key();
    let found = call.data.get(&key).is_some();
    call.reply.status(if found { "string" } else { "none" });
    Ok(())
}

fn ttl(deadline: i64) -> Ttl {
    match deadline {
        NEVER => Ttl::Never,
        end => Ttl::Until(end),
    }
}

/// `None` where there is a key of the new name already that must not be replaced.
fn renamed(call: &mut Call<'_, '_, '_>, replaces: bool) -> Result<Option<()>, Refusal> {
    let (from, to) = (call.key(), call.data.key(call.args[2]));
    call.data.get(&from).ok_or(NO_SUCH_KEY)?;
    if from.bytes == to.bytes {
        return Ok(replaces.then_some(()));
    }
    if !replaces && call.data.get(&to).is_some() {
        return Ok(None);
    }
    let entry = call.data.remove(&from).ok_or(NO_SUCH_KEY)?;
    call.data.set(&to, entry.value, ttl(entry.deadline));
    Ok(Some(()))
}

pub(super) fn rename(call: &mut Call<'_, '_, '_>) -> Answered {
    renamed(call, true)?;
    call.reply.ok();
    Ok(())
}

pub(super) fn renamenx(call: &mut Call<'_, '_, '_>) -> Answered {
    let done = renamed(call, false)?.is_some();
    call.reply.integer(done.into());
    Ok(())
}

pub(super) fn copy(call: &mut Call<'_, '_, '_>) -> Answered {
    let (mut db, mut replaces) = (call.data.db, false);
    let mut at = 3;
    while at < call.args.len() {
        if call.is(at, "REPLACE") {
            replaces = true;
        } else if call.is(at, "DB") && at + 1 < call.args.len() {
            at += 1;
            db = call.database(at)?;
        } else {
            return Err(SYNTAX);
        }
        at += 1;
    }
    let (from, to) = (call.key(), call.data.key_in(db, call.args[2]));
    if (from.db, from.bytes) == (to.db, to.bytes) {
        return Err(SAME);
    }
    let found = call.data.get(&from);
    let found = found.map(|entry| (entry.value.clone(), entry.deadline));
    let is_free = replaces || call.data.get(&to).is_none();
    let copied = found.filter(|_| is_free);
    call.reply.integer(copied.is_some().into());
    if let Some((value, deadline)) = copied {
        call.data.set(&to, value, ttl(deadline));
    }
    Ok(())
}

pub(super) fn move_to(call: &mut Call<'_, '_, '_>) -> Answered {
    let db = call.database(2)?;
    let (from, to) = (call.key(), call.data.key_in(db, call.args[1]));
    if from.db == to.db {
        return Err(SAME);
    }
    let is_free = call.data.get(&to).is_none();
    let entry = is_free.then(|| call.data.remove(&from)).flatten();
    call.reply.integer(entry.is_some().into());
    if let Some(entry) = entry {
        call.data.set(&to, entry.value, ttl(entry.deadline));
    }
    Ok(())
}

pub(super) fn randomkey(call: &mut Call<'_, '_, '_>) -> Answered {
    let key = call.data.near(call.server.store.random());
    call.reply.value(key.as_ref());
    Ok(())
}

pub(super) fn keys(call: &mut Call<'_, '_, '_>) -> Answered {
    let found = matching(call.data, 0, usize::MAX, call.args[1]).1;
    array(call, &found);
    Ok(())
}

fn matching(data: &mut Data<'_>, from: u64, count: usize, pattern: &[u8]) -> (u64, Vec<Bytes>) {
    let mut found = Vec::new();
    let next = data.scan(from, count, |entry| {
        if pattern == b"*" || glob::matches(pattern, &entry.key) {
            found.push(Bytes::copy_from_slice(&entry.key));
        }
    });
    (next, found)
}

fn array(call: &mut Call<'_, '_, '_>, found: &[Bytes]) {
    call.reply.array(found.len());
    for name in found {
        call.reply.bulk(name);
    }
}

pub(super) fn scan(call: &mut Call<'_, '_, '_>) -> Answered {
    let from = cursor(call.args[1]).ok_or(b"ERR invalid cursor".as_slice())?;
    let (mut pattern, mut count, mut is_of_type) = (&b"*"[..], SCANNED, true);
    for option in call.args[2..].chunks(2) {
        match option {
            [name, value] if is(name, "MATCH") => pattern = value,
            [name, value] if is(name, "TYPE") => is_of_type = is(value, "string"),
            [name, value] if is(name, "COUNT") => {
                let number = integer(value).ok_or(NOT_AN_INTEGER)?;
                count = usize::try_from(number)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or(SYNTAX)?;
            }
            _ => return Err(SYNTAX),
        }
    }
    let (next, mut found) = matching(call.data, from, count, pattern);
    if !is_of_type {
        found.clear();
    }
    call.reply.array(2);
    call.reply.bulk(next.to_string().as_bytes());
    array(call, &found);
    Ok(())
}

/// As C reads one: a sign is taken, and nothing is 0.
fn cursor(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return Some(0);
    }
    let text = std::str::from_utf8(text).ok()?;
    match text.strip_prefix('-') {
        Some(digits) if !digits.starts_with('+') => {
            digits.parse().ok().map(|number: u64| number.wrapping_neg())
        }
        Some(_) => None,
        None => text.parse().ok(),
    }
}

pub(super) fn dbsize(call: &mut Call<'_, '_, '_>) -> Answered {
    let (len, _) = call.data.len(call.data.db);
    call.reply.integer(len as i64);
    Ok(())
}

/// What is taken out is freed on another thread, whatever the client asks for.
fn flush(call: &mut Call<'_, '_, '_>, dbs: std::ops::Range<usize>) -> Answered {
    match call.args {
        [_] => {}
        [_, how] if is(how, "SYNC") || is(how, "ASYNC") => {}
        _ => return Err(SYNTAX),
    }
    call.data.clear(dbs);
    call.reply.ok();
    Ok(())
}

pub(super) fn flushdb(call: &mut Call<'_, '_, '_>) -> Answered {
    let db = call.data.db;
    flush(call, db..db + 1)
}

pub(super) fn flushall(call: &mut Call<'_, '_, '_>) -> Answered {
    flush(call, 0..DATABASES)
}

pub(super) fn swapdb(call: &mut Call<'_, '_, '_>) -> Answered {
    let number = |at: usize, refusal: &'static [u8]| {
        let number = integer(call.args[at]).filter(|number| i32::try_from(*number).is_ok());
        number.ok_or(Refusal::Borrowed(refusal))
    };
    let one = number(1, b"ERR invalid first DB index")?;
    let other = number(2, b"ERR invalid second DB index")?;
    let db = |number| usize::try_from(number).ok().filter(|db| *db < DATABASES);
    let (one, other) = db(one).zip(db(other)).ok_or(NO_SUCH_DB)?;
    if one != other {
        call.data.swap(one, other);
    }
    call.reply.ok();
    Ok(())
}

pub(super) fn object_encoding(call: &mut Call<'_, '_, '_>) -> Answered {
    let key = call.data.key(call.args[2]);
    match call.data.get(&key) {
        None => call.reply.nil(),
        Some(entry) if integer(&entry.value).is_some() => call.reply.bulk(b"int"),
        Some(entry) if entry.value.len() <= 44 => call.reply.bulk(b"embstr"),
        Some(_) => call.reply.bulk(b"raw"),
    }
    Ok(())
}

pub(super) fn object_refcount(call: &mut Call<'_, '_, '_>) -> Answered {
    let key = call.data.key(call.args[2]);
    match call.data.get(&key) {
        None => call.reply.nil(),
        Some(_) => call.reply.integer(1),
    }
    Ok(())
}
