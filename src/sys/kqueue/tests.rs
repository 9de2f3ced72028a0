//! What the translation does with a queue, and that the double does what the manual pages say. The
//! contract of a selector is tested with the others, in `selector/tests.rs`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use super::*;
use crate::sys::Socket;
use crate::sys::addr::SockAddr;
use crate::sys::selector::Source;
use crate::sys::socket::{local_addr, open};
use crate::sys::test_util::{TIMEOUT, wait_for};

fn both() -> Interest {
    Interest::READ | Interest::WRITE
}

/// What is ready right now, as (token, readable, writable).
fn ready(kqueue: &mut Kqueue, timeout: Duration) -> Vec<(u64, bool, bool)> {
    let mut events = Events::with_capacity(8);
    kqueue.wait(&mut events, Some(timeout)).unwrap();
    events
        .iter()
        .map(|event| (event.token(), event.is_readable(), event.is_writable()))
        .collect()
}

/// Two ends of a TCP connection.
fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, peer)
}

/// A duplicate under this number, or the first free one above it: beyond what the tests of this
/// process have open at a time, so that nothing else is given it meanwhile.
fn duplicate(stream: &UnixStream, number: RawFd) -> OwnedFd {
    // SAFETY: takes no pointer.
    let fd = unsafe { syscall!(fcntl(stream.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number)) };
    // SAFETY: the call has just made the descriptor, and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd.unwrap()) }
}

// ---- the translation ----------------------------------------------------------------------------

#[test]
fn no_more_is_changed_than_differs() {
    let mut kqueue = Kqueue::new().unwrap();
    let (socket, _peer) = UnixStream::pair().unwrap();
    let fd = socket.as_fd();
    let mut seen = 0;
    let mut changes = |kqueue: &Kqueue| {
        let before = std::mem::replace(&mut seen, kqueue.kernel.changes());
        seen - before
    };
    kqueue.register(fd, 1, Interest::READ).unwrap();
    assert_eq!(changes(&kqueue), 1);
    // Another token alone is nothing to the kernel.
    kqueue.reregister(fd, 2, Interest::READ).unwrap();
    assert_eq!(changes(&kqueue), 0);
    kqueue.reregister(fd, 2, both()).unwrap();
    assert_eq!(changes(&kqueue), 1);
    kqueue.reregister(fd, 2, Interest::WRITE).unwrap();
    assert_eq!((changes(&kqueue), kqueue.kernel.filters()), (1, 1));
    kqueue.reregister(fd, 2, Interest::READ).unwrap();
    assert_eq!((changes(&kqueue), kqueue.kernel.filters()), (2, 1));
    kqueue.reregister(fd, 2, both()).unwrap();
    assert_eq!(changes(&kqueue), 1);
    kqueue.deregister(fd).unwrap();
    assert_eq!((changes(&kqueue), kqueue.kernel.filters()), (2, 0));
}

#[test]
fn the_two_events_of_a_descriptor_become_one_however_far_apart() {
    let mut kqueue = Kqueue::new().unwrap();
    let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
    // All that is read stands in the queue before all that is written.
    for (token, (socket, peer)) in (0..).zip(&pairs) {
        let mut peer: &UnixStream = peer;
        peer.write_all(b"x").unwrap();
        kqueue
            .register(socket.as_fd(), token, Interest::READ)
            .unwrap();
    }
    for (token, (socket, _)) in (0..).zip(&pairs) {
        kqueue.reregister(socket.as_fd(), token, both()).unwrap();
    }
    let mut seen = ready(&mut kqueue, TIMEOUT);
    seen.sort_unstable();
    assert_eq!(seen, [(0, true, true), (1, true, true), (2, true, true)]);
    // The next batch has its own places.
    kqueue.deregister(pairs[0].0.as_fd()).unwrap();
    kqueue
        .reregister(pairs[2].0.as_fd(), 9, Interest::WRITE)
        .unwrap();
    let mut seen = ready(&mut kqueue, TIMEOUT);
    seen.sort_unstable();
    assert_eq!(seen, [(1, true, true), (9, false, true)]);
}

#[test]
fn the_end_with_bytes_pending_is_readable_until_it_was_read() {
    let mut kqueue = Kqueue::new().unwrap();
    let (mut socket, mut peer) = tcp_pair();
    peer.write_all(b"last words").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    kqueue.register(socket.as_fd(), 1, Interest::READ).unwrap();
    let mut last = String::new();
    while last.len() < 10 {
        assert_eq!(ready(&mut kqueue, TIMEOUT), [(1, true, false)]);
        let mut byte = [0];
        assert_eq!(socket.read(&mut byte).unwrap(), 1);
        last.push(char::from(byte[0]));
    }
    assert_eq!(last, "last words");
    assert_eq!(ready(&mut kqueue, TIMEOUT), [(1, true, false)]);
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_connect_that_is_refused_is_both_directions() {
    // A port that is taken, so that nobody else can come to listen on it, and not listened on.
    let addr = SockAddr::of(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let bound = open(addr.family()).unwrap();
    // SAFETY: the address is valid for its length and outlives the call.
    unsafe { syscall!(bind(bound.as_raw_fd(), addr.as_ptr(), addr.len())) }.unwrap();
    let Ok(socket) = Socket::connect(&local_addr(bound.as_fd()).unwrap()) else {
        // Refused at once: nothing is left to wait for.
        return;
    };
    let mut kqueue = Kqueue::new().unwrap();
    let Source::Fd(fd) = socket.source() else {
        panic!("a socket of the kernel");
    };
    kqueue.register(fd, 1, Interest::WRITE).unwrap();
    assert_eq!(ready(&mut kqueue, TIMEOUT), [(1, true, true)]);
}

#[test]
fn what_was_closed_without_a_deregister_is_not_reported() {
    let mut kqueue = Kqueue::new().unwrap();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(b"x").unwrap();
    let closed = duplicate(&socket, 800);
    kqueue.register(closed.as_fd(), 1, Interest::READ).unwrap();
    assert_eq!(ready(&mut kqueue, TIMEOUT), [(1, true, false)]);
    drop(closed);
    assert_eq!(ready(&mut kqueue, Duration::ZERO), []);
    assert_eq!(kqueue.kernel.filters(), 0);
}

#[test]
fn to_take_out_what_the_close_has_taken_out_is_no_error() {
    let mut kqueue = Kqueue::new().unwrap();
    let (socket, _peer) = UnixStream::pair().unwrap();
    let first = duplicate(&socket, 900);
    let number = first.as_raw_fd();
    kqueue.register(first.as_fd(), 1, both()).unwrap();
    drop(first);
    // The number stands for another file by now, and nothing of it is watched.
    let second = duplicate(&UnixStream::pair().unwrap().0, number);
    assert_eq!(second.as_raw_fd(), number);
    kqueue.deregister(second.as_fd()).unwrap();
    let error = kqueue.deregister(second.as_fd()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    kqueue.register(second.as_fd(), 2, Interest::WRITE).unwrap();
    assert_eq!(ready(&mut kqueue, TIMEOUT).len(), 1);
}

#[test]
fn of_a_registration_that_is_refused_by_half_nothing_stands() {
    let kernel = Kernel::new().unwrap();
    kernel.refuse(Filter::Write, libc::EPIPE);
    let mut kqueue = Kqueue::on(kernel);
    let (socket, mut peer) = UnixStream::pair().unwrap();
    let error = kqueue.register(socket.as_fd(), 1, both()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(kqueue.kernel.filters(), 0);
    // It can be registered otherwise, and what stands survives a change that is refused.
    kqueue.register(socket.as_fd(), 1, Interest::READ).unwrap();
    kqueue.reregister(socket.as_fd(), 2, both()).unwrap_err();
    peer.write_all(b"x").unwrap();
    assert_eq!(ready(&mut kqueue, TIMEOUT), [(1, true, false)]);
}

#[test]
fn a_system_without_user_events_is_woken_by_a_descriptor() {
    let mut kqueue = Kqueue::on(Kernel::without_user());
    let wake_fd = kqueue.waker(9).unwrap();
    assert_eq!(ready(&mut kqueue, Duration::ZERO), []);
    for _ in 0..3 {
        wake_fd.wake();
        wake_fd.wake();
        assert_eq!(ready(&mut kqueue, TIMEOUT), [(9, true, false)]);
        assert_eq!(ready(&mut kqueue, Duration::ZERO), []);
    }
    thread::scope(|scope| {
        scope.spawn(|| wake_fd.wake());
        assert_eq!(ready(&mut kqueue, TIMEOUT), [(9, true, false)]);
    });
}

#[test]
fn the_longest_timeout_is_one_that_every_system_takes() {
    let mut kqueue = Kqueue::new().unwrap();
    let wake_fd = kqueue.waker(9).unwrap();
    wake_fd.wake();
    assert_eq!(ready(&mut kqueue, Duration::MAX), [(9, true, false)]);
    assert_eq!(kqueue.kernel.longest(), TIMEOUT_MAX);
}

// ---- the double ---------------------------------------------------------------------------------

/// The answer to one change, as the errno of a receipt.
fn receipt(kernel: &Kernel, change: KEvent) -> i64 {
    let mut events = [KEvent::nothing(); 2];
    assert_eq!(kernel.kevent(&[change], &mut events, None).unwrap(), 1);
    assert_eq!(events[0].flags(), flag::ERROR);
    assert_eq!(events[0].ident(), change.ident());
    assert_eq!(events[0].filter(), change.filter());
    events[0].data()
}

#[test]
fn the_double_gives_receipts_and_errors() {
    let kernel = Kernel::new().unwrap();
    let (socket, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(b"x").unwrap();
    let fd = socket.as_raw_fd() as usize;
    let add = KEvent::change(fd, Filter::Read, flag::ADD | flag::RECEIPT, 0);
    let delete = KEvent::change(fd, Filter::Read, flag::DELETE, 0);

    // The receipt is all that comes, with a byte to read.
    assert_eq!(receipt(&kernel, add), 0);
    assert_eq!(receipt(&kernel, add), 0);
    assert_eq!(kernel.filters(), 1, "added twice");

    // Without the flag success is silent, and an error goes where there is room.
    assert_eq!(kernel.kevent(&[delete], &mut [], None).unwrap(), 0);
    assert_eq!(receipt(&kernel, delete), i64::from(libc::ENOENT));
    let error = kernel.kevent(&[delete], &mut [], None).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    let nobodys = KEvent::change(1_000_000, Filter::Read, flag::ADD, 0);
    assert_eq!(receipt(&kernel, nobodys), i64::from(libc::EBADF));
    let trigger = KEvent::change(WAKE, Filter::User, 0, flag::TRIGGER);
    assert_eq!(receipt(&kernel, trigger), i64::from(libc::ENOENT));
}

#[test]
fn the_double_tells_the_end_and_what_waits_before_it() {
    let kernel = Kernel::new().unwrap();
    let (socket, mut peer) = tcp_pair();
    let fd = socket.as_raw_fd() as usize;
    for filter in [Filter::Read, Filter::Write] {
        let add = KEvent::change(fd, filter, flag::ADD, 0);
        kernel.kevent(&[add], &mut [], None).unwrap();
    }
    let seen = |wanted| {
        let mut events = [KEvent::nothing(); 2];
        let count = kernel.kevent(&[], &mut events, Some(TIMEOUT)).unwrap();
        let found = events[..count].iter().find(|e| e.filter() == wanted);
        found.map(|event| (event.flags(), event.fflags() != 0, event.data()))
    };
    assert_eq!(seen(Filter::Write), Some((0, false, 0)));
    peer.write_all(b"abc").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    wait_for(&socket, Interest::READ);
    while seen(Filter::Read) != Some((flag::EOF, false, 3)) {
        thread::yield_now();
    }
    assert_eq!(seen(Filter::Write), Some((0, false, 3)));
    Socket::from(OwnedFd::from(peer)).abort();
    while !matches!(seen(Filter::Write), Some((flag::EOF, true, _))) {
        thread::yield_now();
    }
    assert!(matches!(seen(Filter::Read), Some((flag::EOF, true, _))));
}

#[test]
fn the_double_puts_what_it_reported_last() {
    let kernel = Kernel::new().unwrap();
    let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
    let numbers: Vec<usize> = pairs.iter().map(|p| p.0.as_raw_fd() as usize).collect();
    for fd in &numbers {
        let add = KEvent::change(*fd, Filter::Write, flag::ADD, 0);
        kernel.kevent(&[add], &mut [], None).unwrap();
    }
    for (first, second) in [(0, 1), (2, 0), (1, 2)] {
        let mut events = [KEvent::nothing(); 2];
        assert_eq!(kernel.kevent(&[], &mut events, None).unwrap(), 2);
        let seen = events.map(KEvent::ident);
        let wanted = [numbers[first], numbers[second]];
        assert!(seen == wanted || seen == [wanted[1], wanted[0]], "{seen:?}");
    }
}

#[test]
fn the_double_ends_a_wait_by_its_timeout_and_by_a_change() {
    let kernel = Kernel::new().unwrap();
    let timeout = Duration::from_micros(1_500);
    let start = Instant::now();
    let mut events = [KEvent::nothing(); 2];
    let count = kernel.kevent(&[], &mut events, Some(timeout)).unwrap();
    assert!(count == 0 && start.elapsed() >= timeout);
    let (socket, _peer) = UnixStream::pair().unwrap();
    let fd = socket.as_raw_fd() as usize;
    thread::scope(|scope| {
        scope.spawn(|| {
            let add = KEvent::change(fd, Filter::Write, flag::ADD, 0);
            kernel.kevent(&[add], &mut [], None).unwrap();
        });
        assert_eq!(kernel.kevent(&[], &mut events, None).unwrap(), 1);
    });
    assert_eq!(events[0].ident(), fd);
}
