//! Every test of the contract runs over every back end that waits in the kernel.

use std::fs::File;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use super::*;
use crate::sys::Socket;
use crate::sys::test_util::{TIMEOUT, wait_for};

const WAKES: u32 = 10_000;

/// What is ready right now, as (token, readable, writable).
fn ready(selector: &mut Selector, timeout: Duration) -> Vec<(u64, bool, bool)> {
    let mut events = Events::with_capacity(8);
    selector.wait(&mut events, Some(timeout)).unwrap();
    events
        .iter()
        .map(|event| (event.token(), event.is_readable(), event.is_writable()))
        .collect()
}

/// The tests of the contract, for each back end.
macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        contract! { epoll SelectorKind::Epoll => $($test)* }
        contract! { kqueue SelectorKind::Kqueue => $($test)* }
        contract! { poll SelectorKind::Poll => $($test)* }

        /// Those with tests.
        const KINDS: [SelectorKind; 3] = SelectorKind::ALL;
    };
    ($backend:ident $kind:expr => $($test:ident)*) => {
        mod $backend {
            use super::*;

            $(#[test]
            fn $test() {
                super::$test(Selector::new($kind).unwrap());
            })*
        }
    };
}

contract! {
    readiness_is_reported_until_it_is_dealt_with,
    reregister_changes_token_and_interest,
    a_hang_up_is_told_to_both_directions,
    the_end_of_the_other_side_is_readable_alone,
    a_reset_is_both_readable_and_writable,
    one_event_tells_both_directions,
    deregister_before_close_silences_a_duplicate,
    misuse_of_a_descriptor_is_an_error,
    what_does_not_fit_is_reported_by_the_next_wait,
    a_timeout_is_never_cut_short,
    every_wake_is_reported_and_none_has_to_be_read,
    a_wake_from_another_thread_ends_a_wait_for_ever,
    a_wake_finds_room_among_what_is_always_ready,
    of_many_wakes_none_is_lost,
}

#[test]
fn interest_is_a_set() {
    let both = Interest::READ | Interest::WRITE;
    assert!(both.contains(Interest::READ) && both.contains(Interest::WRITE));
    assert!(both.contains(both) && both.contains(Interest::NONE));
    assert!(!Interest::READ.contains(both));
    assert!(Interest::NONE.is_empty() && !both.is_empty());
    assert_eq!(
        format!("{both:?} {:?}", Interest::NONE),
        "READ | WRITE NONE"
    );
}

fn readiness_is_reported_until_it_is_dealt_with(mut selector: Selector) {
    let (socket, mut peer) = UnixStream::pair().unwrap();
    selector
        .register(socket.as_fd().into(), 7, Interest::READ)
        .unwrap();
    assert_eq!(ready(&mut selector, Duration::ZERO), []);

    peer.write_all(b"x").unwrap();
    assert_eq!(ready(&mut selector, TIMEOUT), [(7, true, false)]);
    assert_eq!(ready(&mut selector, Duration::ZERO), [(7, true, false)]);
}

fn reregister_changes_token_and_interest(mut selector: Selector) {
    let (socket, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(b"x").unwrap();
    let both = Interest::READ | Interest::WRITE;
    selector.register(socket.as_fd().into(), 1, both).unwrap();
    assert_eq!(ready(&mut selector, TIMEOUT), [(1, true, true)]);
    selector
        .reregister(socket.as_fd().into(), u64::MAX, Interest::WRITE)
        .unwrap();
    assert_eq!(ready(&mut selector, TIMEOUT), [(u64::MAX, false, true)]);
}

fn a_hang_up_is_told_to_both_directions(mut selector: Selector) {
    let both = Interest::READ | Interest::WRITE;
    for interest in [both, Interest::READ, Interest::WRITE] {
        let (socket, peer) = UnixStream::pair().unwrap();
        drop(peer);
        selector
            .register(socket.as_fd().into(), 1, interest)
            .unwrap();
        let seen = ready(&mut selector, TIMEOUT);
        // Where only the reading side is watched kqueue looks at no other.
        assert!(
            seen == [(1, true, true)] || interest == Interest::READ && seen == [(1, true, false)],
            "{interest:?}: {seen:?}"
        );
        selector.deregister(socket.as_fd().into()).unwrap();
    }
}

fn the_end_of_the_other_side_is_readable_alone(mut selector: Selector) {
    let (socket, peer) = UnixStream::pair().unwrap();
    selector
        .register(socket.as_fd().into(), 1, Interest::READ)
        .unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(ready(&mut selector, TIMEOUT), [(1, true, false)]);
}

fn a_reset_is_both_readable_and_writable(mut selector: Selector) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for interest in [Interest::READ, Interest::WRITE] {
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        Socket::from(OwnedFd::from(peer)).abort();
        // Until it is here: there is room to write before.
        wait_for(&socket, Interest::READ);
        selector
            .register(socket.as_fd().into(), 1, interest)
            .unwrap();
        assert_eq!(ready(&mut selector, TIMEOUT), [(1, true, true)]);
        selector.deregister(socket.as_fd().into()).unwrap();
    }
}

fn one_event_tells_both_directions(mut selector: Selector) {
    let pairs: Vec<(UnixStream, UnixStream)> =
        (0..3).map(|_| UnixStream::pair().unwrap()).collect();
    let both = Interest::READ | Interest::WRITE;
    for (token, (socket, peer)) in (0..).zip(&pairs) {
        selector
            .register(socket.as_fd().into(), token, both)
            .unwrap();
        let mut peer: &UnixStream = peer;
        peer.write_all(b"x").unwrap();
    }
    let mut seen = ready(&mut selector, TIMEOUT);
    seen.sort_unstable();
    assert_eq!(seen, [(0, true, true), (1, true, true), (2, true, true)]);
}

fn deregister_before_close_silences_a_duplicate(mut selector: Selector) {
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let _duplicate = socket.try_clone().unwrap();
    peer.write_all(b"x").unwrap();
    selector
        .register(socket.as_fd().into(), 1, Interest::READ)
        .unwrap();
    assert_eq!(ready(&mut selector, TIMEOUT), [(1, true, false)]);
    selector.deregister(socket.as_fd().into()).unwrap();
    drop(socket);
    assert_eq!(ready(&mut selector, Duration::ZERO), []);
}

#[test]
fn without_deregister_a_duplicate_is_reported_after_close() {
    // The reason for the order of calls. Should this ever fail, the kernel has become kinder.
    let mut selector = Selector::new(SelectorKind::Epoll).unwrap();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let _duplicate = socket.try_clone().unwrap();
    peer.write_all(b"x").unwrap();
    selector
        .register(socket.as_fd().into(), 1, Interest::READ)
        .unwrap();
    drop(socket);
    assert_eq!(ready(&mut selector, TIMEOUT), [(1, true, false)]);
}

fn misuse_of_a_descriptor_is_an_error(mut selector: Selector) {
    let (socket, _peer) = UnixStream::pair().unwrap();
    let error = selector.deregister(socket.as_fd().into()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    selector
        .register(socket.as_fd().into(), 1, Interest::READ)
        .unwrap();
    let error = selector
        .register(socket.as_fd().into(), 2, Interest::READ)
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
}

fn what_does_not_fit_is_reported_by_the_next_wait(mut selector: Selector) {
    let sockets: Vec<(UnixStream, UnixStream)> =
        (0..3).map(|_| UnixStream::pair().unwrap()).collect();
    for (token, (socket, _)) in (0..).zip(&sockets) {
        selector
            .register(socket.as_fd().into(), token, Interest::WRITE)
            .unwrap();
    }
    let mut events = Events::with_capacity(0);
    let mut seen = Vec::new();
    for _ in 0..3 {
        selector.wait(&mut events, Some(TIMEOUT)).unwrap();
        assert_eq!(events.len(), 1);
        seen.push(events.get(0).token());
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
}

fn a_timeout_is_never_cut_short(mut selector: Selector) {
    let timeout = Duration::from_micros(1_500);
    let start = Instant::now();
    assert_eq!(ready(&mut selector, timeout), []);
    assert!(start.elapsed() >= timeout);
}

fn every_wake_is_reported_and_none_has_to_be_read(mut selector: Selector) {
    let wake_fd = selector.waker(9).unwrap();
    assert_eq!(ready(&mut selector, Duration::ZERO), []);
    for _ in 0..5 {
        wake_fd.wake();
        assert_eq!(ready(&mut selector, TIMEOUT), [(9, true, false)]);
        assert_eq!(ready(&mut selector, Duration::ZERO), []);
    }
    // Several before one wait are one event.
    wake_fd.wake();
    wake_fd.wake();
    assert_eq!(ready(&mut selector, TIMEOUT), [(9, true, false)]);
    assert_eq!(ready(&mut selector, Duration::ZERO), []);
}

fn a_wake_from_another_thread_ends_a_wait_for_ever(mut selector: Selector) {
    let wake_fd = selector.waker(9).unwrap();
    let mut events = Events::with_capacity(1);
    thread::scope(|scope| {
        scope.spawn(|| wake_fd.wake());
        selector.wait(&mut events, None).unwrap();
    });
    assert_eq!(events.len(), 1);
}

fn a_wake_finds_room_among_what_is_always_ready(mut selector: Selector) {
    let wake_fd = selector.waker(9).unwrap();
    let pairs: Vec<(UnixStream, UnixStream)> =
        (0..3).map(|_| UnixStream::pair().unwrap()).collect();
    for (token, (socket, _)) in (0..).zip(&pairs) {
        selector
            .register(socket.as_fd().into(), token, Interest::WRITE)
            .unwrap();
    }
    let mut events = Events::with_capacity(1);
    for _ in 0..5 {
        wake_fd.wake();
        let mut waits = 0..4;
        assert!(waits.any(|_| {
            selector.wait(&mut events, Some(TIMEOUT)).unwrap();
            events.get(0).token() == 9
        }));
    }
}

fn of_many_wakes_none_is_lost(mut selector: Selector) {
    let wake_fd = selector.waker(9).unwrap();
    let asked = AtomicU32::new(0);
    let mut events = Events::with_capacity(1);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=WAKES {
                asked.store(n, Ordering::SeqCst);
                wake_fd.wake();
                // At times alone, at times several before the wait that reports them.
                if n % 3 == 0 {
                    thread::yield_now();
                }
            }
        });
        // As a poller does: it waits, then looks for work. A wake that gets lost is waited for in
        // vain, at the latest the last one.
        while asked.load(Ordering::SeqCst) < WAKES {
            selector.wait(&mut events, Some(TIMEOUT)).unwrap();
            assert_eq!(events.len(), 1, "a wake was lost");
        }
    });
}

#[test]
fn a_wake_at_the_maximum_of_the_counter_is_reported() {
    for kind in [SelectorKind::Epoll, SelectorKind::Poll] {
        let mut selector = Selector::new(kind).unwrap();
        let wake_fd = selector.waker(9).unwrap();
        let counter = wake_fd.bell().as_fd().try_clone_to_owned().unwrap();
        File::from(counter)
            .write_all(&(u64::MAX - 1).to_ne_bytes())
            .unwrap();
        for _ in 0..3 {
            assert_eq!(ready(&mut selector, TIMEOUT).len(), 1);
            wake_fd.wake();
        }
    }
}

#[test]
fn a_simulated_wake_is_reported_once() {
    let mut selector = Selector::simulated();
    let wake_fd = selector.waker(9).unwrap();
    assert!(!selector.is_ready());
    wake_fd.wake();
    wake_fd.wake();
    assert!(selector.is_ready());
    assert_eq!(ready(&mut selector, Duration::ZERO), [(9, true, false)]);
    assert_eq!(ready(&mut selector, Duration::ZERO), []);
}

#[test]
fn what_is_simulated_is_not_for_a_real_selector() {
    let (socket, _peer) = UnixStream::pair().unwrap();
    let error = Selector::simulated().register(socket.as_fd().into(), 9, Interest::READ);
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    for kind in KINDS {
        let number = Source::Simulated(Number(1));
        let error = Selector::new(kind)
            .unwrap()
            .register(number, 9, Interest::READ);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn a_timeout_is_rounded_up_and_clamped() {
    assert_eq!(timeout_ms(None), -1);
    assert_eq!(timeout_ms(Some(Duration::ZERO)), 0);
    assert_eq!(timeout_ms(Some(Duration::from_nanos(1))), 1);
    assert_eq!(timeout_ms(Some(Duration::from_millis(1))), 1);
    assert_eq!(timeout_ms(Some(Duration::from_nanos(1_000_001))), 2);
    assert_eq!(
        timeout_ms(Some(Duration::from_millis(libc::c_int::MAX as u64))),
        libc::c_int::MAX
    );
    assert_eq!(timeout_ms(Some(Duration::MAX)), libc::c_int::MAX);
}
