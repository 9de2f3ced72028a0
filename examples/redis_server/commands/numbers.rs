//! Values as numbers.

use bytes::Bytes;

use super::super::resp::integer;
use super::super::store::Ttl;
use super::{Answered, Call, NOT_AN_INTEGER, Refusal};

const OVERFLOW: Refusal = Refusal::Borrowed(b"ERR increment or decrement would overflow");
const NOT_A_FLOAT: Refusal = Refusal::Borrowed(b"ERR value is not a valid float");
const NOT_FINITE: Refusal = Refusal::Borrowed(b"ERR increment would produce NaN or Infinity");

fn add(call: &mut Call<'_, '_, '_>, by: i64) -> Answered {
    let key = call.key();
    let before = call.data.get(&key).map(|entry| &entry.value);
    let before = before.map_or(Some(0), |value| integer(value));
    let sum = before
        .ok_or(NOT_AN_INTEGER)?
        .checked_add(by)
        .ok_or(OVERFLOW)?;
    let digits = Bytes::copy_from_slice(itoa::Buffer::new().format(sum).as_bytes());
    call.data.set(&key, digits, Ttl::Keep);
    call.reply.integer(sum);
    Ok(())
}

pub(super) fn incr(call: &mut Call<'_, '_, '_>) -> Answered {
    add(call, 1)
}

pub(super) fn decr(call: &mut Call<'_, '_, '_>) -> Answered {
    add(call, -1)
}

pub(super) fn incrby(call: &mut Call<'_, '_, '_>) -> Answered {
    let by = call.integer(2)?;
    add(call, by)
}

pub(super) fn decrby(call: &mut Call<'_, '_, '_>) -> Answered {
    let by = call.integer(2)?;
    let by = by
        .checked_neg()
        .ok_or(b"ERR decrement would overflow".as_slice())?;
    add(call, by)
}

/// Adds decimal fractions as such, exact to the seventeenth place, as many as Redis shows. (Redis
/// itself adds numbers of 64 binary places, which can show in the last of them.) What is too large
/// for that is added as Rust adds.
pub(super) fn incrbyfloat(call: &mut Call<'_, '_, '_>) -> Answered {
    let key = call.key();
    let value = call.data.get(&key).map(|entry| &entry.value);
    let before = value.map_or(Some(Number::Exact(0)), |value| Number::parse(value));
    let before = before.ok_or(NOT_A_FLOAT)?;
    let by = Number::parse(call.args[2]).ok_or(NOT_A_FLOAT)?;
    let sum = match (before, by) {
        (Number::Exact(one), Number::Exact(other)) => Number::Exact(one + other),
        (one, other) => Number::Rounded(one.rounded() + other.rounded()),
    };
    let text = sum.text().ok_or(NOT_FINITE)?;
    let text = Bytes::from(text);
    call.reply.bulk(&text);
    call.data.set(&key, text, Ttl::Keep);
    Ok(())
}

/// How many places there are behind the point.
const PLACES: usize = 17;
const ONE: i128 = 100_000_000_000_000_000;

/// What is exact is below this: the sum of two of them has its place.
const EXACT_MAX: i128 = i128::MAX / 4;

enum Number {
    /// So many of the last place.
    Exact(i128),
    Rounded(f64),
}

impl Number {
    fn parse(text: &[u8]) -> Option<Number> {
        let text = std::str::from_utf8(text).ok()?;
        // Rust takes all that C takes but hexadecimal digits; and `nan`, which Redis does not.
        let rounded: f64 = text.parse().ok().filter(|number: &f64| !number.is_nan())?;
        Some(exact(text).map_or(Number::Rounded(rounded), Number::Exact))
    }

    fn rounded(&self) -> f64 {
        match *self {
            Number::Exact(number) => number as f64 / ONE as f64,
            Number::Rounded(number) => number,
        }
    }

    /// Without what may be left out.
    fn text(&self) -> Option<String> {
        match *self {
            Number::Rounded(number) if !number.is_finite() => None,
            Number::Rounded(number) => Some(number.to_string()),
            Number::Exact(number) => {
                let sign = if number < 0 { "-" } else { "" };
                let (whole, part) = (number.abs() / ONE, number.abs() % ONE);
                let text = format!("{sign}{whole}.{part:0PLACES$}");
                Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
            }
        }
    }
}

/// A decimal fraction, with or without an exponent, if there is room for it.
fn exact(text: &str) -> Option<i128> {
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (is_negative, digits) = match digits.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, digits.strip_prefix('+').unwrap_or(digits)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let mut number: i128 = 0;
    // The place that the next digit has, counted from the last one that is kept.
    let mut place = (PLACES + whole.len()) as i64 + i64::from(exponent);
    for digit in whole.bytes().chain(part.bytes()) {
        let digit = i128::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?);
        place -= 1;
        if place >= 0 {
            number = number.checked_mul(10)?.checked_add(digit)?;
        } else if place == -1 && digit >= 5 {
            number += 1;
        }
    }
    for _ in 0..place.max(0) {
        if number == 0 {
            break;
        }
        number = number.checked_mul(10)?;
    }
    let number = if is_negative { -number } else { number };
    (number.abs() < EXACT_MAX).then_some(number)
}
