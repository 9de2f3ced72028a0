//! When keys end.

use super::super::store::NEVER;
use super::{Answered, Call, Refusal};

/// Which deadlines may be replaced.
#[derive(Default)]
struct Only {
    if_none: bool,
    if_some: bool,
    if_later: bool,
    if_earlier: bool,
}

impl Only {
    fn parse(call: &Call<'_, '_, '_>) -> Result<Only, Refusal> {
        let mut only = Only::default();
        for option in &call.args[3..] {
            match &*option.to_ascii_uppercase() {
                b"NX" => only.if_none = true,
                b"XX" => only.if_some = true,
                b"GT" => only.if_later = true,
                b"LT" => only.if_earlier = true,
                _ => {
                    let option = super::shorten(option, usize::MAX);
                    return Err(super::one_line(
                        [b"ERR Unsupported option ", option].concat(),
                    ));
                }
            }
        }
        if only.if_none && (only.if_some || only.if_later || only.if_earlier) {
            return Err(
                b"ERR NX and XX, GT or LT options at the same time are not compatible"
                    .as_slice()
                    .into(),
            );
        }
        if only.if_later && only.if_earlier {
            return Err(b"ERR GT and LT options at the same time are not compatible"
                .as_slice()
                .into());
        }
        Ok(only)
    }

    /// A key that never ends ends later than any.
    fn allows(&self, before: i64, deadline: i64) -> bool {
        !(self.if_none && before != NEVER
            || self.if_some && before == NEVER
            || self.if_later && deadline <= before
            || self.if_earlier && deadline >= before)
    }
}

fn set(call: &mut Call<'_, '_, '_>, unit: i64, is_relative: bool) -> Answered {
    let only = Only::parse(call)?;
    let number = call.integer(2)?;
    let deadline = number.checked_mul(unit).and_then(|millis| {
        let from = if is_relative {
            call.data.clock.now()
        } else {
            0
        };
        millis.checked_add(from)
    });
    let name = String::from_utf8_lossy(call.args[0]).to_ascii_lowercase();
    let invalid = || format!("ERR invalid expire time in '{name}' command");
    let deadline = deadline.ok_or_else(|| Refusal::from(invalid().into_bytes()))?;
    // The last moment of all is taken for never.
    let deadline = deadline.min(NEVER - 1);
    let key = call.key();
    let before = call.data.get(&key).map(|entry| entry.deadline);
    let is_set = before.is_some_and(|before| only.allows(before, deadline));
    if is_set && deadline <= call.data.clock.now() {
        let entry = call.data.remove(&key);
        call.data.discard(entry);
    } else if is_set {
        call.data.set_deadline(&key, deadline);
    }
    call.reply.integer(is_set.into());
    Ok(())
}

pub(super) fn expire(call: &mut Call<'_, '_, '_>) -> Answered {
    set(call, 1000, true)
}

pub(super) fn pexpire(call: &mut Call<'_, '_, '_>) -> Answered {
    set(call, 1, true)
}

pub(super) fn expireat(call: &mut Call<'_, '_, '_>) -> Answered {
    set(call, 1000, false)
}

pub(super) fn pexpireat(call: &mut Call<'_, '_, '_>) -> Answered {
    set(call, 1, false)
}

/// -2 for no key, -1 for one that never ends, else what `show` makes of the deadline and the time.
fn tell(call: &mut Call<'_, '_, '_>, show: impl Fn(i64, i64) -> i64) -> Answered {
    let key = call.key();
    let deadline = call.data.read(&key).map(|entry| entry.deadline);
    let number = match deadline {
        None => -2,
        Some(NEVER) => -1,
        Some(deadline) => show(deadline, call.data.clock.now()),
    };
    call.reply.integer(number);
    Ok(())
}

/// To the nearest second, as Redis rounds.
fn seconds(millis: i64) -> i64 {
    millis / 1000 + i64::from(millis % 1000 >= 500)
}

pub(super) fn ttl(call: &mut Call<'_, '_, '_>) -> Answered {
    tell(call, |deadline, now| seconds(deadline - now))
}

pub(super) fn pttl(call: &mut Call<'_, '_, '_>) -> Answered {
    tell(call, |deadline, now| deadline - now)
}

pub(super) fn expiretime(call: &mut Call<'_, '_, '_>) -> Answered {
    tell(call, |deadline, _| seconds(deadline))
}

pub(super) fn pexpiretime(call: &mut Call<'_, '_, '_>) -> Answered {
    tell(call, |deadline, _| deadline)
}

pub(super) fn persist(call: &mut Call<'_, '_, '_>) -> Answered {
    let key = call.key();
    let had_end = call
        .data
        .get(&key)
        .is_some_and(|entry| entry.deadline != NEVER);
    if had_end {
        call.data.set_deadline(&key, NEVER);
    }
    call.reply.integer(had_end.into());
    Ok(())
}
