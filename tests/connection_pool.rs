//! A pool of connections over real sockets, against a backend that the test plays: what is lent
//! again, and what never.

mod util;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use greenroom::*;
use util::*;

/// A line each way.
struct Lines;

impl Exchange for Lines {
    type Request = String;
    type Answer = String;

    fn request(&mut self, request: String, output: &mut Vec<u8>) {
        assert_ne!(request, "panic");
        output.extend_from_slice(request.as_bytes());
        output.push(b'\n');
    }

    fn answer(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<Option<String>, Box<dyn std::error::Error + Send + Sync>> {
        match input.line(100)? {
            Some(b"?") => Err("that is no answer".into()),
            line => Ok(line.map(|line| String::from_utf8_lossy(line).into_owned())),
        }
    }
}

/// The other side, by hand.
struct Backend {
    listener: TcpListener,
}

impl Backend {
    fn new() -> Backend {
        Backend::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn at(addr: SocketAddr) -> Backend {
        let listener = TcpListener::bind(addr).unwrap();
        listener.set_nonblocking(true).unwrap();
        Backend { listener }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection that the pool makes.
    #[track_caller]
    fn accept(&self) -> Peer {
        let mut accepted = None;
        wait_until("the pool connects", || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.expect("it is there");
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Peer(BufReader::new(stream))
    }

    #[track_caller]
    fn assert_nobody_connects(&self) {
        let error = self.listener.accept().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}

struct Peer(BufReader<TcpStream>);

impl Peer {
    #[track_caller]
    fn hears(&mut self, request: &str) {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), request);
    }

    fn says(&mut self, bytes: &str) {
        self.0.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    /// The pool has closed it.
    #[track_caller]
    fn assert_thrown_away(mut self) {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(read) => assert_eq!(read, 0, "{line:?}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

type Answer = Receiver<Result<String, CallError>>;

struct Stage {
    pool: Addr<Pool<Lines>>,
    backend: Backend,
    system: System,
}

impl Stage {
    fn new(prepare: impl FnOnce(Pool<Lines>) -> Pool<Lines> + Send + 'static) -> Stage {
        let backend = Backend::new();
        let system = builder(2).build().unwrap();
        let to = backend.addr();
        let pool = system.spawn(move || prepare(Pool::new(to, || Lines)));
        Stage {
            pool,
            backend,
            system,
        }
    }

    /// Calls from a thread of its own.
    fn call_within(&self, request: &str, timeout: Duration) -> Answer {
        let (sender, answer) = channel();
        let (pool, request) = (self.pool.clone(), request.to_owned());
        std::thread::spawn(move || {
            let _ = sender.send(pool.call_and_wait(request, timeout));
        });
        answer
    }

    fn call(&self, request: &str) -> Answer {
        self.call_within(request, TIMEOUT)
    }

    /// A call that is answered on a connection of its own: the other end of that.
    #[track_caller]
    fn served_anew(&self, request: &str, reply: &str) -> Peer {
        let answer = self.call(request);
        let mut peer = self.backend.accept();
        peer.hears(request);
        peer.says(&format!("{reply}\n"));
        assert_eq!(next(&answer), text(reply));
        peer
    }

    fn counts(&self) -> PoolCounts {
        self.pool.ask(TIMEOUT, PoolMessage::counts).unwrap()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, holds: impl Fn(PoolCounts) -> bool) {
        wait_until(what, || holds(self.counts()));
    }
}

fn text(text: &str) -> Result<String, CallError> {
    Ok(text.to_owned())
}

#[test]
fn one_connection_serves_one_request_after_the_other() {
    let stage = Stage::new(|pool| pool);
    assert_eq!(
        stage.counts(),
        PoolCounts::default(),
        "none before it is needed"
    );
    let first = stage.call("one");
    let mut peer = stage.backend.accept();
    peer.hears("one");
    let lent = stage.counts();
    assert_eq!((lent.lent, lent.idle, lent.made), (1, 0, 1));
    peer.says("ONE\n");
    assert_eq!(next(&first), text("ONE"));
    assert_eq!(
        stage.counts().idle,
        1,
        "whoever has the answer may ask again"
    );
    for number in 0..10 {
        let answer = stage.call(&number.to_string());
        peer.hears(&number.to_string());
        peer.says("again\n");
        assert_eq!(next(&answer), text("again"));
    }
    assert_eq!(stage.counts().made, 1);
}

#[test]
fn there_are_no_more_than_may_be_and_the_others_wait_in_turn() {
    let stage = Stage::new(|pool| pool.size(0, 2).max_waiting(2));
    let answers = [stage.call("a"), stage.call("b")];
    let mut peers = [stage.backend.accept(), stage.backend.accept()];
    stage.wait_for("both are lent", |counts| counts.lent == 2);
    let third = stage.call("third");
    stage.wait_for("one waits", |counts| counts.waiting == 1);
    let fourth = stage.call("fourth");
    stage.wait_for("two wait", |counts| counts.waiting == 2);
    assert_eq!(next(&stage.call("fifth")), Err(CallError::Full));
    stage.backend.assert_nobody_connects();
    let mut line = String::new();
    peers[0].0.read_line(&mut line).unwrap();
    peers[0].says("done\n");
    peers[0].hears("third");
    peers[0].says("third done\n");
    assert_eq!(next(&third), text("third done"));
    peers[0].hears("fourth");
    peers[0].says("fourth done\n");
    assert_eq!(next(&fourth), text("fourth done"));
    peers[1].0.read_line(&mut line).unwrap();
    peers[1].says("done\n");
    for answer in &answers {
        assert_eq!(next(answer), text("done"));
    }
}

#[test]
fn whoever_waits_is_told_at_the_deadline_and_takes_no_place() {
    let stage = Stage::new(|pool| pool.size(0, 1).max_waiting(1));
    let _first = stage.call("first");
    let mut peer = stage.backend.accept();
    peer.hears("first");
    let soon = Duration::from_millis(30);
    let begun = Instant::now();
    let late = stage.call_within("late", soon);
    assert_eq!(next(&late), Err(CallError::TimedOut));
    assert!(begun.elapsed() >= soon);
    let patient = stage.call("patient");
    stage.wait_for("its place is another's", |counts| counts.waiting == 1);
    peer.says("done\n");
    peer.hears("patient");
    peer.says("at last\n");
    assert_eq!(next(&patient), text("at last"));
}

#[test]
fn a_connection_that_ended_while_it_was_idle_is_not_lent_again() {
    let stage = Stage::new(|pool| pool.size(0, 1));
    for (bytes, end) in [("", true), ("unasked\n", false), ("half a li", false)] {
        let before = stage.counts().broken;
        let mut peer = stage.served_anew("hello", "hi");
        stage.wait_for("it is idle", |counts| counts.idle == 1);
        peer.says(bytes);
        if end {
            drop(peer);
        } else {
            peer.assert_thrown_away();
        }
        stage.wait_for("it is thrown away", |counts| {
            counts.idle == 0 && counts.broken == before + 1
        });
    }
    assert_eq!(stage.counts().made, 3);
}

/// Nor are bytes, or an end, that came while its poller was at work taken for the next one's answer.
#[test]
fn what_has_come_to_an_idle_connection_is_seen_before_a_request_is_written() {
    let (backend, system) = (Backend::new(), builder(1).build().unwrap());
    // Of a type that comes before the pool's: what it asks is carried out in the same turn, without a
    // look at the sockets in between.
    let asker = spawn(&system, 0, |probe| probe);
    let to = backend.addr();
    let pool = system.spawn(move || Pool::new(to, || Lines).size(0, 1));
    let stage = Stage {
        pool,
        backend,
        system,
    };
    for (bytes, end) in [("", true), ("unasked\n", false), ("half a li", false)] {
        let before = stage.counts();
        let first = stage.call("first");
        let mut peer = stage.backend.accept();
        peer.hears("first");
        peer.says("answer\n");
        assert_eq!(next(&first), text("answer"));
        stage.wait_for("it is idle", |counts| counts.idle == 1);
        let (pool, (sender, answer)) = (stage.pool.clone(), channel());
        let ((entered, is_held), (release, released)) = (channel(), channel());
        asker.tell(move |ctx| {
            let _ = entered.send(());
            let _ = released.recv_timeout(TIMEOUT);
            pool.call("second".to_owned(), TIMEOUT, ctx, move |told| {
                Box::new(move |_| Ok(sender.send(told)?))
            });
            Ok(())
        });
        next(&is_held);
        peer.says(bytes);
        if end {
            half_close(peer.0.get_ref());
        }
        wait_until("it has come", || unacknowledged(peer.0.get_ref()) == 0);
        release.send(()).unwrap();
        let mut fresh = stage.backend.accept();
        fresh.hears("second");
        fresh.says("fine\n");
        assert_eq!(next(&answer), text("fine"));
        peer.assert_thrown_away();
        drop(fresh);
        stage.wait_for("both are thrown away", |counts| {
            counts.idle == 0 && counts.broken == before.broken + 2
        });
    }
}

/// Bytes that the other side's kernel has not said to have, the end of the stream counted as one.
fn unacknowledged(stream: &TcpStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: the number is writable, and the call stores one of its size.
    let told = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(told, 0);
    bytes
}

#[test]
fn a_connection_with_bytes_behind_its_answer_is_not_lent_again() {
    let stage = Stage::new(|pool| pool.size(0, 1));
    let first = stage.call("first");
    let mut peer = stage.backend.accept();
    peer.hears("first");
    peer.says("answer\nand more");
    assert!(matches!(next(&first), Err(CallError::Lost(why)) if why.contains("behind an answer")));
    peer.assert_thrown_away();
    let second = stage.call("second");
    let mut peer = stage.backend.accept();
    peer.hears("second");
    peer.says("fine\n");
    assert_eq!(next(&second), text("fine"));
}

#[test]
fn a_connection_whose_answer_is_late_is_not_lent_again() {
    let stage = Stage::new(|pool| pool.size(0, 1));
    // Long enough to be asked at all, also on a busy machine.
    let late = stage.call_within("late", Duration::from_secs(1));
    let mut peer = stage.backend.accept();
    peer.hears("late");
    peer.says("half an ans");
    assert_eq!(next(&late), Err(CallError::TimedOut));
    let second = stage.call("second");
    let mut fresh = stage.backend.accept();
    fresh.hears("second");
    peer.assert_thrown_away();
    fresh.says("fine\n");
    assert_eq!(next(&second), text("fine"));
    assert_eq!(stage.counts().broken, 1);
}

/// The rest of the one request would stand in front of the next.
#[test]
fn a_connection_whose_answer_came_before_its_request_was_taken_is_not_lent_again() {
    let small = SocketOptions::new().send_buffer(4 << 10);
    let options = ConnectOptions::new().socket(small);
    let stage = Stage::new(|pool| pool.size(0, 1).connect_options(options));
    util::set_buffer(&stage.backend.listener, libc::SO_RCVBUF, 4 << 10);
    // More than both kernels hold, and less than ends a slow reader.
    let answer = stage.call(&"long".repeat(500_000));
    let mut peer = stage.backend.accept();
    peer.0.read_exact(&mut [0; 4]).unwrap();
    peer.says("too long\n");
    assert_eq!(next(&answer), text("too long"));
    let _fresh = stage.served_anew("short", "fine");
    let counts = stage.counts();
    assert_eq!((counts.made, counts.broken), (2, 1));
}

#[test]
fn an_answer_that_is_none_and_a_protocol_that_panics_end_one_connection() {
    let stage = Stage::new(|pool| pool.size(0, 1));
    let answer = stage.call("hello");
    let mut peer = stage.backend.accept();
    peer.hears("hello");
    peer.says("?\n");
    assert!(matches!(next(&answer), Err(CallError::Lost(why)) if why.contains("no answer")));
    peer.assert_thrown_away();
    let answer = stage.call("panic");
    let peer = stage.backend.accept();
    assert!(matches!(next(&answer), Err(CallError::Lost(_))));
    peer.assert_thrown_away();
    let _peer = stage.served_anew("hello", "hi");
    assert_eq!(stage.system.stats().panics, 1);
}

#[test]
fn a_panic_where_a_protocol_is_made_is_a_connect_that_came_to_nothing() {
    let (backend, system) = (Backend::new(), builder(1).build().unwrap());
    let (to, mut made) = (backend.addr(), 0);
    let make = move || {
        made += 1;
        assert!(made >= 3, "it is not made");
        Lines
    };
    let pool = system.spawn(move || Pool::new(to, make).size(1, 2));
    let stage = Stage {
        pool,
        backend,
        system,
    };
    let _peer = stage.served_anew("hello", "hi");
    let counts = stage.counts();
    assert_eq!((counts.made, counts.failed), (1, 2));
    assert_eq!(stage.system.stats().panics, 2);
}

#[test]
fn a_connection_that_is_lost_in_the_middle_is_told_and_nothing_asked_twice() {
    let stage = Stage::new(|pool| pool.size(0, 1));
    let answer = stage.call("once");
    let mut peer = stage.backend.accept();
    peer.hears("once");
    drop(peer);
    assert!(matches!(next(&answer), Err(CallError::Lost(_))));
    stage.wait_for("it is gone", |counts| counts.broken == 1);
    stage.backend.assert_nobody_connects();
}

#[test]
fn the_smallest_number_is_there_at_once_and_again() {
    let stage = Stage::new(|pool| pool.size(2, 4).idle_limit(Duration::from_millis(20)));
    let peers = [stage.backend.accept(), stage.backend.accept()];
    stage.wait_for("two are idle", |counts| counts.idle == 2);
    drop(peers);
    let _peers = [stage.backend.accept(), stage.backend.accept()];
    stage.wait_for("two are idle again", |counts| {
        counts.idle == 2 && counts.broken == 2 && counts.made == 4
    });
}

#[test]
fn connections_beyond_the_smallest_number_close_when_they_are_idle_for_long() {
    let stage = Stage::new(|pool| pool.size(1, 3).idle_limit(Duration::from_millis(50)));
    let answers = [stage.call("x"), stage.call("x"), stage.call("x")];
    let mut peers = [(); 3].map(|()| stage.backend.accept());
    stage.wait_for("each has a call", |counts| counts.lent == 3);
    for peer in &mut peers {
        peer.hears("x");
        peer.says("y\n");
    }
    for answer in &answers {
        assert_eq!(next(answer), text("y"));
    }
    for peer in peers {
        // It closes when the pool does, which waits for that.
        std::thread::spawn(move || peer.assert_thrown_away());
    }
    stage.wait_for("one is left", |counts| {
        counts.idle == 1 && counts.lent + counts.connecting == 0
    });
    let counts = stage.counts();
    assert_eq!((counts.made, counts.broken, counts.failed), (3, 0, 0));
    wait_until("their sockets are closed", || {
        stage.system.stats().connections == 1
    });
}

#[test]
fn where_nobody_listens_calls_wait_and_are_answered_when_somebody_does() {
    let addr = {
        let backend = Backend::new();
        backend.addr()
    };
    let system = builder(1).name("backoff").build().unwrap();
    let pool = system.spawn(move || Pool::new(addr, || Lines).size(1, 4));
    let counts = || pool.ask(TIMEOUT, PoolMessage::counts).unwrap();
    wait_until("it has tried in vain", || counts().failed >= 2);
    let error = pool.call_and_wait("hello".to_owned(), Duration::from_millis(20));
    assert_eq!(error, Err(CallError::TimedOut));
    let backend = Backend::at(addr);
    let caller = pool.clone();
    let call = std::thread::spawn(move || caller.call_and_wait("hello".to_owned(), TIMEOUT));
    let mut peer = backend.accept();
    peer.hears("hello");
    peer.says("hi\n");
    assert_eq!(call.join().unwrap(), text("hi"));
}

/// Greets before it is lent.
struct Greets;

impl Exchange for Greets {
    type Request = String;
    type Answer = String;

    fn request(&mut self, request: String, output: &mut Vec<u8>) {
        Lines.request(request, output);
    }

    fn answer(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<Option<String>, Box<dyn std::error::Error + Send + Sync>> {
        Lines.answer(input)
    }

    fn greeting(&mut self) -> Option<String> {
        Some("password".to_owned())
    }

    fn greeted(&mut self, answer: String) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match answer.as_str() {
            "welcome" => Ok(()),
            other => Err(other.into()),
        }
    }
}

#[test]
fn a_connection_greets_before_it_is_lent_and_assert_thrown_away_if_it_is_not_welcome() {
    let backend = Backend::new();
    let system = builder(1).build().unwrap();
    let to = backend.addr();
    let pool = system.spawn(move || Pool::new(to, || Greets).size(0, 1));
    let caller = pool.clone();
    let call = std::thread::spawn(move || caller.call_and_wait("hello".to_owned(), TIMEOUT));
    let mut peer = backend.accept();
    peer.hears("password");
    let counts = pool.ask(TIMEOUT, PoolMessage::counts).unwrap();
    assert_eq!((counts.connecting, counts.made), (1, 0));
    peer.says("go away\n");
    peer.assert_thrown_away();
    let mut peer = backend.accept();
    peer.hears("password");
    peer.says("welcome\n");
    peer.hears("hello");
    peer.says("hi\n");
    assert_eq!(call.join().unwrap(), text("hi"));
    let counts = pool.ask(TIMEOUT, PoolMessage::counts).unwrap();
    assert_eq!((counts.made, counts.failed), (1, 1));
}

#[test]
fn a_stop_answers_what_was_asked_and_leaves_nobody_waiting() {
    let stage = Stage::new(|pool| pool.size(1, 1));
    let asked = stage.call("asked");
    let mut peer = stage.backend.accept();
    peer.hears("asked");
    let waits = stage.call("waits");
    stage.wait_for("one waits", |counts| counts.waiting == 1);
    stage.system.handle().stop(TIMEOUT);
    peer.says("answered\n");
    assert_eq!(next(&asked), text("answered"));
    peer.hears("waits");
    peer.says("answered, too\n");
    assert_eq!(next(&waits), text("answered, too"));
    peer.assert_thrown_away();
    drop(stage.system);
}

#[test]
fn a_pool_that_is_closed_tells_everybody() {
    let stage = Stage::new(|pool| pool.size(0, 1));
    let lent = stage.call("lent");
    let mut peer = stage.backend.accept();
    peer.hears("lent");
    let waits = stage.call("waits");
    stage.wait_for("one waits", |counts| counts.waiting == 1);
    stage.pool.close();
    assert_eq!(next(&waits), Err(CallError::Closed));
    assert!(matches!(next(&lent), Err(CallError::Lost(_))));
    peer.assert_thrown_away();
    assert_eq!(next(&stage.call("too late")), Err(CallError::Closed));
}

#[test]
fn sizes_that_make_no_pool_are_refused_by_name() {
    let to = || Remote::from(SocketAddr::from(([127, 0, 0, 1], 1)));
    for (min, max) in [(0, 0), (2, 1)] {
        let (sender, _) = channel::<()>();
        let make = move || drop((Pool::new(to(), || Lines).size(min, max), sender));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make)).unwrap_err();
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        assert!(text.unwrap().starts_with("size:"));
    }
}
