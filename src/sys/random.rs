//! Numbers that nobody can guess.

use std::cell::RefCell;

use super::chance;
use super::clock;

/// Bytes that one call to the system gets: as many as it gives at once, whole and without being
/// interrupted, on every platform.
const DRAWN: usize = 256;

struct Drawn {
    bytes: [u8; DRAWN],
    used: usize,
}

thread_local! {
    static DRAWN_HERE: RefCell<Drawn> = const {
        RefCell::new(Drawn {
            bytes: [0; DRAWN],
            used: DRAWN,
        })
    };
}

/// Fills `out` with bytes from the system's source of randomness, which was asked for some more than
/// are needed: one call to it for 64 masks. On a simulated thread they are those that its seed
/// decides.
///
/// # Panics
///
/// When the system has none, which none that is whole does.
pub(crate) fn fill(out: &mut [u8]) {
    if clock::is_simulated() {
        let mut random = chance();
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
        return;
    }
    DRAWN_HERE.with_borrow_mut(|drawn| {
        if DRAWN - drawn.used < out.len() {
            getrandom::fill(&mut drawn.bytes).expect("the system has random numbers");
            drawn.used = 0;
        }
        let end = drawn.used + out.len();
        let taken = &mut drawn.bytes[drawn.used..end];
        out.copy_from_slice(taken);
        // What was given out is nobody else's to find.
        taken.fill(0);
        drawn.used = end;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike_on_any_thread() {
        let draw = || -> Vec<[u8; 16]> {
            let mut out = [0; 16];
            let drawn = (0..100).map(|_| {
                fill(&mut out);
                out
            });
            drawn.collect()
        };
        let mut all = draw();
        all.extend(std::thread::spawn(draw).join().unwrap());
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 200);
    }
}
