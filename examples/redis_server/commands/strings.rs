//! Values as strings.

use bytes::{Bytes, BytesMut};

use super::super::resp::{BULK_MAX, integer};
use super::super::store::{NEVER, Ttl};
use super::{Answered, Call, NOT_AN_INTEGER, Refusal, SYNTAX, is, wrong_arity};

const TOO_LONG: Refusal =
    Refusal::Borrowed(b"ERR string exceeds maximum allowed size (proto-max-bulk-len)");

pub(super) fn get(call: &mut Call<'_, '_, '_>) -> Answered {
    let key = call.key();
    let value = call.data.read(&key).map(|entry| &entry.value);
    call.reply.value(value);
    Ok(())
}

pub(super) fn set(call: &mut Call<'_, '_, '_>) -> Answered {
    if call.args.len() > 3 {
        return set_with(call);
    }
    let (key, value) = (call.key(), call.words.bytes(2));
    call.data.set(&key, value, Ttl::Never);
    call.reply.ok();
    Ok(())
}

/// What may be said of a deadline.
#[derive(Default)]
struct Lifetime<'a> {
    /// A number, its unit in milliseconds, and whether it counts from now on.
    ends: Option<(&'a [u8], i64, bool)>,
    is_kept: bool,
    is_taken_away: bool,
}

impl<'a> Lifetime<'a> {
    /// Takes the option at `at`, and says how many words it was; none if it is another one, or
    /// contradicts what was said before.
    fn option(&mut self, call: &Call<'a, '_, '_>, at: usize) -> Option<usize> {
        let (unit, is_relative) = match &*call.args[at].to_ascii_uppercase() {
            b"EX" => (1000, true),
            b"PX" => (1, true),
            b"EXAT" => (1000, false),
            b"PXAT" => (1, false),
            _ => return None,
        };
        let same = |(_, of, relative): (&[u8], i64, bool)| (of, relative) == (unit, is_relative);
        if self.is_kept || self.is_taken_away || !self.ends.is_none_or(same) {
            return None;
        }
        self.ends = Some((call.args.get(at + 1)?, unit, is_relative));
        Some(2)
    }

    fn has_no_end(&self) -> bool {
        self.ends.is_none()
    }

    /// When that is, in milliseconds since 1970.
    fn end(&self, call: &Call<'_, '_, '_>, name: &str) -> Result<Option<i64>, Refusal> {
        let Some((number, unit, is_relative)) = self.ends else {
            return Ok(None);
        };
        let number = integer(number).ok_or(NOT_AN_INTEGER)?;
        let end = (number > 0).then_some(number).and_then(|number| {
            let millis = number.checked_mul(unit)?;
            let from = if is_relative {
                call.data.clock.now()
            } else {
                0
            };
            // The last moment of all is taken for never.
            millis.checked_add(from).map(|end| end.min(NEVER - 1))
        });
        let invalid = || format!("ERR invalid expire time in '{name}' command");
        end.map(Some).ok_or_else(|| invalid().into_bytes().into())
    }
}

fn set_with(call: &mut Call<'_, '_, '_>) -> Answered {
    let (mut when, mut replies_value) = (None, false);
    let mut lifetime = Lifetime::default();
    let mut at = 3;
    while at < call.args.len() {
        match &*call.args[at].to_ascii_uppercase() {
            b"NX" if when != Some(true) => when = Some(false),
            b"XX" if when != Some(false) => when = Some(true),
            b"GET" => replies_value = true,
            b"KEEPTTL" if lifetime.has_no_end() => lifetime.is_kept = true,
            _ => at += lifetime.option(call, at).ok_or(SYNTAX)? - 1,
        }
        at += 1;
    }
    let end = lifetime.end(call, "set")?;
    let key = call.key();
    let before = if replies_value {
        call.data.read(&key)
    } else {
        call.data.get(&key)
    };
    let is_set = when.is_none_or(|there| there == before.is_some());
    match (replies_value, is_set) {
        (true, _) => call.reply.value(before.map(|entry| &entry.value)),
        (false, true) => call.reply.ok(),
        (false, false) => call.reply.nil(),
    }
    let ttl = match end {
        Some(end) => Ttl::Until(end),
        None if lifetime.is_kept => Ttl::Keep,
        None => Ttl::Never,
    };
    if is_set {
        call.data.set(&key, call.words.bytes(2), ttl);
    }
    Ok(())
}

pub(super) fn setnx(call: &mut Call<'_, '_, '_>) -> Answered {
    let key = call.key();
    let is_new = call.data.get(&key).is_none();
    if is_new {
        call.data.set(&key, call.words.bytes(2), Ttl::Never);
    }
    call.reply.integer(is_new.into());
    Ok(())
}

fn set_for(call: &mut Call<'_, '_, '_>, name: &str, unit: i64) -> Answered {
    let lifetime = Lifetime {
        ends: Some((call.args[2], unit, true)),
        ..Lifetime::default()
    };
    if let Some(end) = lifetime.end(call, name)? {
        let key = call.key();
        call.data.set(&key, call.words.bytes(3), Ttl::Until(end));
        call.reply.ok();
    }
    Ok(())
}

pub(super) fn setex(call: &mut Call<'_, '_, '_>) -> Answered {
    set_for(call, "setex", 1000)
}

pub(super) fn psetex(call: &mut Call<'_, '_, '_>) -> Answered {
    set_for(call, "psetex", 1)
}

pub(super) fn getset(call: &mut Call<'_, '_, '_>) -> Answered {
    get(call)?;
    let key = call.key();
    call.data.set(&key, call.words.bytes(2), Ttl::Never);
    Ok(())
}

pub(super) fn getdel(call: &mut Call<'_, '_, '_>) -> Answered {
    get(call)?;
    let key = call.key();
    let entry = call.data.remove(&key);
    call.data.discard(entry);
    Ok(())
}

pub(super) fn getex(call: &mut Call<'_, '_, '_>) -> Answered {
    let mut lifetime = Lifetime::default();
    let mut at = 2;
    while at < call.args.len() {
        if is(call.args[at], "PERSIST") && lifetime.has_no_end() {
            lifetime.is_taken_away = true;
            at += 1;
        } else {
            at += lifetime.option(call, at).ok_or(SYNTAX)?;
        }
    }
    let key = call.key();
    if call.data.read(&key).is_none() {
        call.reply.nil();
        return Ok(());
    }
    let end = lifetime.end(call, "getex")?;
    let Some(entry) = call.data.get(&key) else {
        return Ok(());
    };
    call.reply.value(Some(&entry.value));
    let had_end = entry.deadline != NEVER;
    match end {
        Some(end) if end <= call.data.clock.now() => {
            let entry = call.data.remove(&key);
            call.data.discard(entry);
        }
        Some(end) => call.data.set_deadline(&key, end),
        None if lifetime.is_taken_away && had_end => call.data.set_deadline(&key, NEVER),
        None => {}
    }
    Ok(())
}

pub(super) fn mget(call: &mut Call<'_, '_, '_>) -> Answered {
    let keys = &call.args[1..];
    call.reply.array(keys.len());
    for key in keys {
        let key = call.data.key(key);
        let value = call.data.read(&key).map(|entry| &entry.value);
        call.reply.value(value);
    }
    Ok(())
}

fn set_pairs(call: &mut Call<'_, '_, '_>) {
    for at in (1..call.args.len()).step_by(2) {
        let key = call.data.key(call.args[at]);
        call.data.set(&key, call.words.bytes(at + 1), Ttl::Never);
    }
}

pub(super) fn mset(call: &mut Call<'_, '_, '_>) -> Answered {
    if call.args.len().is_multiple_of(2) {
        return Err(wrong_arity(b"mset"));
    }
    set_pairs(call);
    call.reply.ok();
    Ok(())
}

pub(super) fn msetnx(call: &mut Call<'_, '_, '_>) -> Answered {
    if call.args.len().is_multiple_of(2) {
        return Err(wrong_arity(b"msetnx"));
    }
    for name in call.args[1..].iter().step_by(2) {
        let key = call.data.key(name);
        if call.data.get(&key).is_some() {
            call.reply.integer(0);
            return Ok(());
        }
    }
    set_pairs(call);
    call.reply.integer(1);
    Ok(())
}

pub(super) fn append(call: &mut Call<'_, '_, '_>) -> Answered {
    let key = call.key();
    let Some(entry) = call.data.get(&key) else {
        let value = call.words.bytes(2);
        call.reply.integer(value.len() as i64);
        call.data.set(&key, value, Ttl::Never);
        return Ok(());
    };
    let more = call.args[2];
    let len = entry.value.len() + more.len();
    if len > BULK_MAX {
        return Err(TOO_LONG);
    }
    call.data.edit(&key, |value| {
        let mut grown = writable(value, len);
        grown.extend_from_slice(more);
        *value = grown.freeze();
    });
    call.reply.integer(len as i64);
    Ok(())
}

pub(super) fn setrange(call: &mut Call<'_, '_, '_>) -> Answered {
    let offset = call.integer(2)?;
    let part = call.args[3];
    let offset =
        usize::try_from(offset).map_err(|_| Refusal::Borrowed(b"ERR offset is out of range"))?;
    let key = call.key();
    let len = call.data.get(&key).map_or(0, |entry| entry.value.len());
    if part.is_empty() {
        call.reply.integer(len as i64);
        return Ok(());
    }
    let end = offset.checked_add(part.len());
    let end = end.filter(|end| *end <= BULK_MAX).ok_or(TOO_LONG)?;
    let put = |value: &mut BytesMut| {
        if value.len() < end {
            value.resize(end, 0);
        }
        value[offset..end].copy_from_slice(part);
    };
    if len == 0 && call.data.get(&key).is_none() {
        let mut value = BytesMut::zeroed(end);
        put(&mut value);
        call.data.set(&key, value.freeze(), Ttl::Never);
    } else {
        call.data.edit(&key, |value| {
            let mut changed = writable(value, len.max(end));
            put(&mut changed);
            *value = changed.freeze();
        });
    }
    call.reply.integer(len.max(end) as i64);
    Ok(())
}

/// A value to be changed, with room for `len` bytes: where it lies, unless a reply still waits that
/// has it. Twice the room each time, so that a value may grow bit by bit.
fn writable(value: &mut Bytes, len: usize) -> BytesMut {
    match std::mem::take(value).try_into_mut() {
        Ok(mut value) => {
            if value.capacity() < len {
                value.reserve(len.max(value.len() * 2).min(BULK_MAX) - value.len());
            }
            value
        }
        Err(shared) => {
            let mut value = BytesMut::with_capacity(len);
            value.extend_from_slice(&shared);
            value
        }
    }
}

pub(super) fn strlen(call: &mut Call<'_, '_, '_>) -> Answered {
    let key = call.key();
    let len = call.data.read(&key).map_or(0, |entry| entry.value.len());
    call.reply.integer(len as i64);
    Ok(())
}

pub(super) fn getrange(call: &mut Call<'_, '_, '_>) -> Answered {
    let (start, end) = (call.integer(2)?, call.integer(3)?);
    let key = call.key();
    let value = call.data.read(&key).map(|entry| &entry.value);
    let part = value.and_then(|value| {
        let len = value.len() as i64;
        if start < 0 && end < 0 && start > end {
            return None;
        }
        let from_end = |place: i64| {
            if place < 0 {
                (len + place).max(0)
            } else {
                place
            }
        };
        let (start, end) = (from_end(start), from_end(end).min(len - 1));
        (start <= end).then(|| value.slice(start as usize..=end as usize))
    });
    call.reply.value(Some(&part.unwrap_or_default()));
    Ok(())
}
