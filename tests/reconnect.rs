//! One connection that is made again, over real sockets: when the next try is made, what becomes of
//! messages, and how it ends.

mod util;

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use greenroom::*;
use util::*;

const SOON: Duration = Duration::from_millis(1);
/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(3600);

/// Sends a line for each message.
struct Feed {
    farewell: &'static str,
}

impl Actor for Feed {
    type Message = String;

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        match input.take_all() {
            b"panic" => panic!("told to"),
            b"error" => Err("told to".into()),
            _ => Ok(()),
        }
    }

    fn message(&mut self, line: String, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(line + "\n");
        if !self.farewell.is_empty() {
            ctx.write(self.farewell);
        }
        Ok(())
    }
}

fn feed() -> Feed {
    Feed { farewell: "" }
}

/// Hands on what it is told.
struct Told<T>(std::sync::mpsc::Sender<T>);

impl<T: Send + 'static> Actor for Told<T> {
    type Message = T;

    fn message(&mut self, told: T, _ctx: &mut Context<'_, Self>) -> Outcome {
        // A test that has seen enough drops its end.
        let _ = self.0.send(told);
        Ok(())
    }
}

/// Tells when another one has gone.
struct Mourner {
    of: Addr<Reconnect<Feed>>,
    told: std::sync::mpsc::Sender<Gone>,
}

impl Actor for Mourner {
    type Message = Gone;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.monitor(&self.of, |gone| gone);
        Ok(())
    }

    fn message(&mut self, gone: Gone, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(self.told.send(gone)?)
    }
}

/// An address at which nobody is by chance: no other test listens there, and no connect comes from
/// there, so that none can meet itself.
fn place(number: u8) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 77, 0, number), 0)).unwrap();
    listener.local_addr().unwrap()
}

struct Play {
    system: System,
    feed: Addr<Reconnect<Feed>>,
    links: Receiver<Link<Feed>>,
    gone: Receiver<Gone>,
}

impl Play {
    fn new(
        to: SocketAddr,
        prepare: impl FnOnce(Reconnect<Feed>) -> Reconnect<Feed> + Send + 'static,
    ) -> Play {
        Play::with(builder(2), to, feed, prepare)
    }

    fn with(
        builder: Builder,
        to: SocketAddr,
        make: impl FnMut() -> Feed + Send + 'static,
        prepare: impl FnOnce(Reconnect<Feed>) -> Reconnect<Feed> + Send + 'static,
    ) -> Play {
        let system = builder.build().unwrap();
        let (sender, links) = channel();
        let told = system.spawn(move || Told(sender));
        // All in one turn: the monitor is there before much can have happened.
        let probe = spawn(&system, 0, |probe| probe);
        let held = hold(&probe);
        let feed = system.handle().spawn_on(0, move || {
            prepare(
                Reconnect::new(to, make)
                    .backoff(SOON, Duration::from_millis(20))
                    .tell(told),
            )
        });
        let (sender, gone) = channel();
        let of = feed.clone();
        let mourner = move || Mourner { of, told: sender };
        system.handle().spawn_on(0, mourner);
        drop(held);
        settle(&system);
        Play {
            system,
            feed,
            links,
            gone,
        }
    }

    #[track_caller]
    fn down(&self) -> Down {
        match next(&self.links) {
            Link::Down(down) => down,
            up => panic!("{up:?}"),
        }
    }

    /// Passes over tries that come to nothing.
    #[track_caller]
    fn up(&self) -> Addr<Feed> {
        loop {
            match next(&self.links) {
                Link::Up(addr) => return addr,
                Link::Down(down) => assert_eq!(down.reason, "not connected"),
            }
        }
    }

    /// Passes a line on; or it comes back.
    #[track_caller]
    fn pass(&self, line: &str) -> Result<(), String> {
        let line = line.to_owned();
        let or_back = |reply| ReconnectMessage::or_back(line, reply);
        self.feed.ask(TIMEOUT, or_back).unwrap()
    }
}

#[track_caller]
fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    BufReader::new(stream)
}

#[track_caller]
fn hears(peer: &mut BufReader<TcpStream>, wanted: &str) {
    let mut line = String::new();
    peer.read_line(&mut line).unwrap();
    assert_eq!(line, wanted);
}

#[test]
fn a_server_that_is_restarted_is_connected_to_again() {
    let to = place(1);
    let mut listener = TcpListener::bind(to).unwrap();
    let play = Play::new(to, |reconnect| reconnect.settled_after(Duration::ZERO));
    let lines: Recipient<String> = play.feed.recipient();
    for _ in 0..5 {
        let up = play.up();
        let mut peer = accept(&listener);
        lines.send("to whoever is there".to_owned()).unwrap();
        hears(&mut peer, "to whoever is there\n");
        up.send("to this one".to_owned()).unwrap();
        hears(&mut peer, "to this one\n");
        drop(listener);
        drop(peer);
        let lost = play.down();
        assert_eq!((lost.reason, lost.not_connected), ("peer closed", None));
        assert_eq!(lost.failures, 0, "it had settled");
        assert!(lost.next_in.is_some_and(|next_in| next_in <= SOON));
        assert!(up.is_gone());
        for failures in 1..4 {
            let refused = play.down();
            assert_eq!(refused.not_connected, Some(ConnectErrorKind::Refused));
            assert_eq!(refused.failures, failures);
            let most = SOON * 2_u32.pow(failures - 1);
            assert!(refused.next_in.is_some_and(|next_in| next_in <= most));
        }
        listener = TcpListener::bind(to).unwrap();
    }
    assert!(play.gone.try_recv().is_err());
}

#[test]
fn after_so_many_failures_in_a_row_it_gives_up_and_its_monitors_are_told() {
    let play = Play::new(place(2), |reconnect| reconnect.attempts(3));
    for failures in 1..=3 {
        let down = play.down();
        assert_eq!(down.failures, failures);
        assert_eq!(down.next_in.is_some(), failures < 3);
    }
    let gone = next(&play.gone);
    assert_eq!((gone.actor, gone.reason), (play.feed.id(), Some("error")));
    assert!(play.feed.is_gone());
    assert!(play.links.try_recv().is_err(), "nothing is tried any more");
    let stats = play.system.stats();
    assert_eq!((stats.connect_failed, stats.connected), (3, 0));
}

#[test]
fn a_connection_that_does_not_hold_is_a_failure() {
    let to = place(3);
    let listener = TcpListener::bind(to).unwrap();
    let play = Play::new(to, |reconnect| reconnect.attempts(3).settled_after(NEVER));
    for failures in 1..=3 {
        play.up();
        drop(accept(&listener));
        assert_eq!(play.down().failures, failures);
    }
    assert_eq!(next(&play.gone).reason, Some("error"));
}

#[test]
fn whatever_ends_a_connection_the_next_is_made() {
    let to = place(4);
    let listener = TcpListener::bind(to).unwrap();
    let play = Play::new(to, |reconnect| reconnect.settled_after(NEVER));
    for (bytes, reason) in [("panic", "panicked"), ("error", "error")] {
        play.up();
        let mut peer = accept(&listener);
        peer.get_mut().write_all(bytes.as_bytes()).unwrap();
        assert_eq!(play.down().reason, reason);
    }
    play.up().close();
    assert_eq!(play.down().reason, "finished");
    play.up();
    let mut peer = [(); 2]
        .map(|()| accept(&listener))
        .into_iter()
        .last()
        .unwrap();
    assert_eq!(play.pass("still there"), Ok(()));
    hears(&mut peer, "still there\n");
}

#[test]
fn a_panic_where_the_actor_is_made_is_a_failure() {
    let to = place(5);
    let listener = TcpListener::bind(to).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let make = move || {
        let made = count.fetch_add(1, Ordering::Relaxed);
        assert!(made >= 3, "it is not made");
        feed()
    };
    let play = Play::with(builder(1), to, make, |reconnect| reconnect);
    for failures in 1..=3 {
        let down = play.down();
        assert_eq!((down.reason, down.failures), ("panicked", failures));
    }
    play.up();
    accept(&listener);
    assert_eq!(play.system.stats().panics, 3);
}

#[test]
fn closed_by_its_address_it_closes_the_connection_behind_what_was_sent() {
    let to = place(6);
    let listener = TcpListener::bind(to).unwrap();
    let make = || Feed {
        farewell: "and that was it\n",
    };
    let play = Play::with(builder(2), to, make, |reconnect| reconnect);
    let up = play.up();
    let mut peer = accept(&listener);
    play.feed.send("a last line".to_owned().into()).unwrap();
    play.feed.close();
    assert_eq!(next(&play.gone).reason, Some("finished"));
    let down = play.down();
    assert_eq!((down.reason, down.next_in), ("finished", None));
    for line in ["a last line\n", "and that was it\n", ""] {
        hears(&mut peer, line);
    }
    wait_until("the connection has gone", || up.is_gone());
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "no other is made");
    assert_eq!(play.system.stats().dead_letters, 0);
}

#[test]
fn closed_while_it_waits_or_connects_it_makes_none() {
    // It waits for an hour or less.
    let to = place(7);
    let slow = |reconnect: Reconnect<Feed>| reconnect.backoff(NEVER, NEVER);
    let play = Play::new(to, slow);
    play.down();
    play.feed.close();
    assert_eq!(next(&play.gone).reason, Some("finished"));
    settle(&play.system);
    assert_eq!(play.system.stats().connect_failed, 1);
    // The backlog is full: the connect is under way, and stays so.
    let listener = TcpListener::bind(to).unwrap();
    // SAFETY: takes no pointers; a socket that listens may be told a smaller backlog.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let _in_front = TcpStream::connect(to).unwrap();
    let play = Play::new(to, |reconnect| reconnect);
    let stats = play.system.stats();
    assert_eq!((stats.connections, stats.connected), (1, 0));
    play.feed.close();
    assert_eq!(next(&play.gone).reason, Some("finished"));
    wait_until("the connect is given up", || {
        play.system.stats().connections == 0
    });
    assert!(play.links.try_recv().is_err(), "it was never up");
}

#[test]
fn the_stop_of_the_system_ends_it_at_once() {
    let to = place(8);
    let slow = |reconnect: Reconnect<Feed>| reconnect.backoff(NEVER, NEVER);
    let play = Play::new(to, slow);
    play.down();
    play.system.handle().stop(NEVER);
    play.system.run().unwrap();

    let listener = TcpListener::bind(to).unwrap();
    let play = Play::new(to, |reconnect| reconnect);
    play.up();
    let mut peer = accept(&listener);
    play.system.handle().stop(NEVER);
    let down = play.down();
    assert_eq!((down.reason, down.next_in), ("finished", None));
    hears(&mut peer, "");
    drop(peer);
    play.system.run().unwrap();
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "no other is made");
}

#[test]
fn what_nobody_is_there_for_comes_back_or_is_a_dead_letter() {
    let to = place(9);
    let play = Play::new(to, |reconnect| {
        reconnect.backoff(NEVER, NEVER).attempts(None)
    });
    play.down();
    assert_eq!(play.pass("nobody"), Err("nobody".to_owned()));
    let lines: Recipient<String> = play.feed.recipient();
    assert_eq!(play.system.stats().dead_letters, 0);
    lines.send("in vain".to_owned()).unwrap();
    settle(&play.system);
    assert_eq!(play.system.stats().dead_letters, 1);
    play.feed.close();
    next(&play.gone);
    assert!(lines.send("in vain".to_owned()).unwrap_err().is_gone());
}

#[test]
fn messages_wait_for_room_and_keep_their_order() {
    const LINES: usize = 2_000;
    let to = place(10);
    let listener = TcpListener::bind(to).unwrap();
    let play = Play::with(builder(2).mailbox_bound(2), to, feed, |reconnect| reconnect);
    play.up();
    let mut peer = accept(&listener);
    let reader = std::thread::spawn(move || {
        for number in 0..LINES {
            hears(&mut peer, &format!("{number}\n"));
        }
        peer
    });
    for number in 0..LINES {
        assert!(send_patiently(&play.feed, number.to_string().into()));
    }
    let _peer = reader.join().unwrap();
    assert_eq!(play.system.stats().dead_letters, 0);
}

#[test]
fn while_the_connections_mailbox_is_full_a_message_waits() {
    let to = place(11);
    let listener = TcpListener::bind(to).unwrap();
    let play = Play::with(builder(1).mailbox_bound(4), to, feed, |reconnect| reconnect);
    let up = play.up();
    let mut peer = accept(&listener);
    for _ in 0..10 {
        let probe = spawn(&play.system, 0, |probe| probe);
        let held = hold(&probe);
        let mut direct = 0;
        while up.send(format!("direct {direct}")).is_ok() {
            direct += 1;
        }
        assert!(direct > 0);
        play.feed.send("first behind".to_owned().into()).unwrap();
        play.feed.send("second behind".to_owned().into()).unwrap();
        drop(held);
        for number in 0..direct {
            hears(&mut peer, &format!("direct {number}\n"));
        }
        hears(&mut peer, "first behind\n");
        hears(&mut peer, "second behind\n");
    }
    assert_eq!(play.system.stats().dead_letters, 0);
}

#[test]
fn it_knows_no_network_on_a_stage_and_says_so() {
    let to = SocketAddr::from(([127, 0, 0, 1], 9));
    let (sender, links) = channel();
    let system = builder(1).build().unwrap();
    let told = system.spawn(move || Told(sender));
    let reconnect = Reconnect::new(to, feed).tell(told);
    let mut stage = greenroom::testing::Stage::without_socket(reconnect);
    for failures in 1..=20 {
        let Link::Down(down) = next(&links) else {
            panic!("it cannot be up")
        };
        assert_eq!(down.not_connected, Some(ConnectErrorKind::Other));
        assert_eq!(down.failures, failures);
        let next_in = down.next_in.expect("it goes on");
        let most = Duration::from_millis(100) * 2_u32.pow(failures - 1).min(300);
        assert!(next_in <= most, "{failures}: {next_in:?}");
        stage.advance(next_in);
    }
}
