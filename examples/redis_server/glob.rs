//! Patterns as KEYS, SCAN, PSUBSCRIBE and CONFIG GET take them: `*`, `?`, `[a-z]`, `[^a-z]`, and a
//! backslash before what stands for itself.

/// Whether all of `text` is what `pattern` says. Takes at most the product of their lengths.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Behind the last star, and where in the text it was tried. An earlier star need not take more:
    // what lies between them was found at its first place, and any later one is the last star's.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, seen));
            continue;
        }
        let step = match text.get(seen) {
            None if at == pattern.len() => return true,
            None => return false,
            Some(&byte) => one(&pattern[at..], byte),
        };
        match (step, star) {
            (Some(len), _) => {
                at += len;
                seen += 1;
            }
            (None, Some((after, tried))) => {
                (at, seen) = (after, tried + 1);
                star = Some((after, seen));
            }
            (None, None) => return false,
        }
    }
}

/// How long the beginning of the pattern is that stands for this byte, if it does.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ref class @ ..] => {
            let (holds, len) = in_class(class, byte);
            holds.then_some(1 + len)
        }
        [b'\\', escaped, ..] => (escaped == byte).then_some(2),
        [plain, ..] => (plain == byte).then_some(1),
    }
}

/// Whether a class, shown behind its bracket, has this byte, and how long it is. One that is not
/// closed ends with the pattern.
fn in_class(class: &[u8], byte: u8) -> (bool, usize) {
    let is_negated = class.first() == Some(&b'^');
    let mut at = usize::from(is_negated);
    let mut found = false;
    loop {
        match class[at..] {
            [] => return (found != is_negated, at),
            [b']', ..] => return (found != is_negated, at + 1),
            [b'\\', escaped, ..] => {
                found |= escaped == byte;
                at += 2;
            }
            [one, b'-', other, ..] => {
                found |= (one.min(other)..=one.max(other)).contains(&byte);
                at += 3;
            }
            [plain, ..] => {
                found |= plain == byte;
                at += 1;
            }
        }
    }
}
