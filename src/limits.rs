//! What a listener counts: connections against a limit, those of each source, accepts against a
//! rate. Each is exact, however many pollers accept at a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// So many at a time.
#[derive(Debug)]
pub(crate) struct Limit {
    taken: AtomicUsize,
    max: usize,
}

impl Limit {
    pub(crate) fn new(max: usize) -> Limit {
        Limit {
            taken: AtomicUsize::new(0),
            max,
        }
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(&self) -> bool {
        let one_more = |taken| (taken < self.max).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .is_ok()
    }

    /// Gives a place back; `true` if all were taken. Whoever has found it full since is to be told
    /// by whoever is told this.
    #[must_use]
    pub(crate) fn give(&self) -> bool {
        self.taken.fetch_sub(1, Ordering::AcqRel) == self.max
    }

    pub(crate) fn has_room(&self) -> bool {
        self.taken.load(Ordering::Acquire) < self.max
    }
}

/// So many in a second, and so many at once: a bucket of tokens that fills by itself.
///
/// Kept is not how many tokens there are but when the bucket will be full (the generic cell rate
/// algorithm): one word, which one exchange moves on, and nothing to be done as time passes. In any
/// time `t` no more than `burst + rate * t` are taken: each take moves that point by a token's time,
/// and it never is more than the burst's time ahead.
#[derive(Debug)]
pub(crate) struct Rate {
    start: Instant,
    /// Nanoseconds from one token to the next, rounded up.
    token: u64,
    /// How far ahead the point may lie for one more to be taken.
    ahead: u64,
    /// When the bucket is full, in nanoseconds since `start`.
    full_at: AtomicU64,
}

/// A token that was taken, by what it made of the bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token(u64);

impl Rate {
    pub(crate) fn new(per_second: u32, burst: u32, start: Instant) -> Rate {
        let token = 1_000_000_000_u64.div_ceil(u64::from(per_second.max(1)));
        Rate {
            start,
            token,
            ahead: u64::from(burst.max(1) - 1) * token,
            full_at: AtomicU64::new(0),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    ///
    /// When there will be one.
    pub(crate) fn take(&self, now: Instant) -> Result<Token, Instant> {
        let now = now.saturating_duration_since(self.start).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let from = full_at.max(now);
            if from - now > self.ahead {
                return Err(self.start + Duration::from_nanos(from - self.ahead));
            }
            let taken = from.saturating_add(self.token);
            // Relaxed: the word says all there is, and orders nothing else.
            match self.full_at.compare_exchange_weak(
                full_at,
                taken,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(Token(taken)),
                Err(other) => full_at = other,
            }
        }
    }

    /// Gives back one that was not used, unless another has been taken since: then it is lost, and
    /// the rate is a token lower than it might be, never higher.
    pub(crate) fn give(&self, token: Token) {
        let before = token.0.saturating_sub(self.token);
        let _ =
            self.full_at
                .compare_exchange(token.0, before, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Whose connections are counted together: an address, or the network that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4(u32),
    V6(u128),
}

/// So many of each source at a time.
#[derive(Debug)]
pub(crate) struct Sources {
    max: usize,
    /// How many bits of an address tell sources apart.
    v4_bits: u8,
    v6_bits: u8,
    /// No source without a connection, so never more than there are connections.
    counts: Mutex<HashMap<Source, usize, ahash::RandomState>>,
}

/// The place that a connection takes among those of its source. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    sources: Arc<Sources>,
    source: Source,
}

/// Room for so many sources is kept when all have gone.
const SOURCES_KEPT: usize = 64;

impl Sources {
    pub(crate) fn new(max: usize, (v4_bits, v6_bits): (u8, u8)) -> Sources {
        Sources {
            max,
            v4_bits,
            v6_bits,
            counts: Mutex::default(),
        }
    }

    fn source(&self, ip: IpAddr) -> Source {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let rest = 32 - u32::from(self.v4_bits);
                Source::V4(u32::from(ip).checked_shr(rest).unwrap_or(0))
            }
            IpAddr::V6(ip) => {
                let rest = 128 - u32::from(self.v6_bits);
                Source::V6(u128::from(ip).checked_shr(rest).unwrap_or(0))
            }
        }
    }

    /// A place for a connection from there, if its source has one left.
    pub(crate) fn take(self: &Arc<Self>, ip: IpAddr) -> Option<Ticket> {
        let source = self.source(ip);
        let mut counts = lock(&self.counts);
        let count = counts.entry(source).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Ticket {
            sources: self.clone(),
            source,
        })
    }

    /// How many sources have a connection.
    #[cfg(test)]
    fn len(&self) -> usize {
        lock(&self.counts).len()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut counts = lock(&self.sources.counts);
        let Some(count) = counts.get_mut(&self.source) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.source);
            let kept = SOURCES_KEPT.max(2 * counts.len());
            if counts.capacity() > 4 * kept {
                counts.shrink_to(kept);
            }
        }
    }
}

/// Which of `n` an address belongs to: always the same one, on every machine and in every run.
///
/// The finisher of SplitMix64 over the octets: every bit of the address moves every bit of the
/// result, so that neighbours (10.0.0.1, 10.0.0.2) spread, which they would not by a remainder; and
/// nothing is drawn at the start, so that a restart changes nothing. Whoever may choose their
/// addresses may also choose their poller.
pub(crate) fn by_hash(ip: IpAddr, n: usize) -> usize {
    let bits = match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    let hash = mix(mix((bits >> 64) as u64) ^ bits as u64);
    // The upper bits of the product: as even as a remainder, without a division.
    ((u128::from(hash) * n as u128) >> 64) as usize
}

fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::thread;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_limit_is_never_passed_and_says_when_it_is_left() {
        let limit = Limit::new(2);
        assert!(limit.take() && limit.take());
        assert!(!limit.take() && !limit.has_room());
        assert!(limit.give(), "all were taken");
        assert!(limit.has_room() && !limit.give());
    }

    #[test]
    fn a_limit_holds_whoever_takes_at_a_time() {
        let limit = Limit::new(3);
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if limit.take() {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            let _ = limit.give();
                        }
                    }
                });
            }
        });
        assert!(limit.take() && limit.take() && limit.take() && !limit.take());
    }

    #[test]
    fn a_burst_at_once_then_a_token_at_a_time() {
        let start = Instant::now();
        let rate = Rate::new(10, 3, start);
        for _ in 0..3 {
            rate.take(start).unwrap();
        }
        let next = rate.take(start).unwrap_err();
        assert_eq!(next, start + Duration::from_millis(100));
        assert!(rate.take(next - Duration::from_nanos(1)).is_err());
        rate.take(next).unwrap();
        assert_eq!(
            rate.take(next).unwrap_err() - next,
            Duration::from_millis(100)
        );
        // After a long rest there is a burst, and no more.
        let later = start + Duration::from_secs(3600);
        for _ in 0..3 {
            rate.take(later).unwrap();
        }
        assert!(rate.take(later).is_err());
    }

    #[test]
    fn a_token_that_was_not_used_comes_back_unless_another_was_taken_since() {
        let start = Instant::now();
        let rate = Rate::new(1, 1, start);
        let token = rate.take(start).unwrap();
        rate.give(token);
        let token = rate.take(start).unwrap();
        let later = start + Duration::from_secs(5);
        rate.take(later).unwrap();
        rate.give(token);
        assert!(rate.take(later).is_err(), "what was taken since counts");
    }

    #[test]
    fn a_rate_holds_in_every_stretch_of_time_whoever_takes() {
        let start = Instant::now();
        let (per_second, burst) = (1000, 7);
        let rate = Rate::new(per_second, burst, start);
        let taken = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for thread in 0..3 {
                let (rate, taken) = (&rate, &taken);
                scope.spawn(move || {
                    for step in 0..3000_u64 {
                        let at = Duration::from_micros(step * 50 + thread);
                        if let Ok(token) = rate.take(start + at) {
                            if step % 5 == 0 {
                                rate.give(token);
                            } else {
                                lock(taken).push(at);
                            }
                        }
                    }
                });
            }
        });
        let mut taken = taken.into_inner().unwrap();
        taken.sort_unstable();
        for (first, from) in taken.iter().enumerate() {
            for (count, to) in (1..).zip(&taken[first..]) {
                let most = f64::from(burst) + f64::from(per_second) * (*to - *from).as_secs_f64();
                assert!(
                    f64::from(count) <= most + 1e-6,
                    "{count} from {from:?} to {to:?}"
                );
            }
        }
        assert!(taken.len() > 100);
    }

    #[test]
    fn each_source_has_places_of_its_own() {
        let sources = Arc::new(Sources::new(2, (32, 64)));
        let first = sources.take(ip("10.0.0.1")).unwrap();
        let _second = sources.take(ip("::ffff:10.0.0.1")).unwrap();
        assert!(sources.take(ip("10.0.0.1")).is_none());
        let _other = sources.take(ip("10.0.0.2")).unwrap();
        drop(first);
        assert!(sources.take(ip("10.0.0.1")).is_some());
    }

    #[test]
    fn the_hosts_of_an_ipv6_network_are_one_source() {
        let sources = Arc::new(Sources::new(1, (32, 64)));
        let _one = sources.take(ip("2001:db8::1")).unwrap();
        assert!(sources.take(ip("2001:db8::ffff:0:2")).is_none());
        let _next = sources.take(ip("2001:db8:0:1::1")).unwrap();
        let exact = Arc::new(Sources::new(1, (24, 128)));
        let _one = exact.take(ip("2001:db8::1")).unwrap();
        let _two = exact.take(ip("2001:db8::2")).unwrap();
        let _net = exact.take(ip("10.0.0.1")).unwrap();
        assert!(exact.take(ip("10.0.0.200")).is_none());
        // An IPv4 and an IPv6 network are never the same, whatever their bits.
        assert!(exact.take(ip("::a00:0")).is_some());
    }

    #[test]
    fn nothing_is_kept_of_sources_that_have_gone() {
        let sources = Arc::new(Sources::new(1, (32, 64)));
        let tickets: Vec<_> = (0..10_000)
            .map(|host| sources.take(Ipv4Addr::from(host).into()).unwrap())
            .collect();
        assert_eq!(sources.len(), 10_000);
        drop(tickets);
        assert_eq!(sources.len(), 0);
        let room = lock(&sources.counts).capacity();
        assert!(room <= 4 * SOURCES_KEPT, "room for {room}");
    }

    #[test]
    fn the_hash_of_an_address_is_what_it_always_was() {
        // Of these very values: a server that is replaced sends its clients where they were.
        let places = ["10.0.0.1", "10.0.0.2", "192.168.7.9", "2001:db8::1"].map(ip);
        assert_eq!(places.map(|ip| by_hash(ip, 8)), [2, 5, 7, 2]);
        assert_eq!(
            by_hash(ip("::ffff:10.0.0.1"), 8),
            by_hash(ip("10.0.0.1"), 8)
        );
    }

    #[test]
    fn the_hash_spreads_neighbours() {
        let mut counts = [[0; 3]; 2];
        for host in 0..3000_u32 {
            counts[0][by_hash(Ipv4Addr::from(0x0a00_0000 + host).into(), 3)] += 1;
            let v6 = Ipv6Addr::from((0xfd00_u128 << 112) + u128::from(host));
            counts[1][by_hash(v6.into(), 3)] += 1;
        }
        let even = counts
            .iter()
            .flatten()
            .all(|count| (900..1100).contains(count));
        assert!(even, "{counts:?}");
        assert!((0..100).all(|host| by_hash(Ipv4Addr::from(host).into(), 1) == 0));
    }
}
