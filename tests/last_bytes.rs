//! The last bytes of a peer reach its actor, however the connection ends behind them.

mod util;

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use greenroom::testing::{Faults, Simulation, for_each_seed};
use greenroom::*;
use util::*;

/// More than one read takes.
const LEN: usize = 100_000;

/// Waits until the other kernel has taken all that this client sent.
fn wait_until_arrived(client: &TcpStream) {
    wait_until("all has arrived", || {
        let mut waits: libc::c_int = 0;
        // SAFETY: the number is writable, and outlives the call.
        let result = unsafe { libc::ioctl(client.as_raw_fd(), libc::TIOCOUTQ, &raw mut waits) };
        result == 0 && waits == 0
    });
}

/// Has the actor write until the socket fails it: the first write after a reset may be what
/// provokes it.
fn write_in_vain(seen: &Seen) {
    for _ in 0..3 {
        let write = |ctx: &mut Context<'_, Probe>| {
            ctx.write(b"is anybody there?");
            Ok(())
        };
        let _ = seen.addr.send(Box::new(write));
        let nothing = |_: &mut Context<'_, Probe>| Ok(());
        let _ = seen.addr.send(Box::new(nothing));
    }
}

/// All that an actor that consumes everything was shown before its end, and that end.
fn to_the_end(seen: &Seen) -> (Vec<u8>, CloseReason) {
    let (mut bytes, mut reason) = (Vec::new(), None);
    for event in seen.to_the_end() {
        match event {
            Event::Readable(more, _) => bytes.extend(more),
            Event::Closed(why) => reason = Some(why),
            _ => {}
        }
    }
    (bytes, reason.expect("it was closed"))
}

#[test]
fn bytes_before_the_end_of_the_stream_come_before_it() {
    let stage = Stage::new();
    let (mut client, seen) = stage.pair();
    let held = hold(&seen);
    client.write_all(&pattern(LEN)).unwrap();
    wait_until_arrived(&client);
    // Bytes and the hang-up are reported together.
    drop(client);
    drop(held);
    let (bytes, reason) = to_the_end(&seen);
    assert_same(&bytes, &pattern(LEN));
    assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
}

#[test]
fn bytes_before_a_reset_come_before_it() {
    let stage = Stage::new();
    let (mut client, seen) = stage.pair();
    let held = hold(&seen);
    client.write_all(&pattern(LEN)).unwrap();
    wait_until_arrived(&client);
    reset(client);
    drop(held);
    let (bytes, reason) = to_the_end(&seen);
    assert_same(&bytes, &pattern(LEN));
    assert!(matches!(reason, CloseReason::Reset), "{reason:?}");
}

#[test]
fn a_write_that_finds_the_reset_does_not_lose_the_bytes_before_it() {
    let stage = Stage::new();
    let (mut client, seen) = stage.pair();
    let held = hold(&seen);
    client.write_all(&pattern(LEN)).unwrap();
    wait_until_arrived(&client);
    reset(client);
    // Delivered in the turn in which the first part of the bytes is read.
    write_in_vain(&seen);
    drop(held);
    let (bytes, reason) = to_the_end(&seen);
    assert_same(&bytes, &pattern(LEN));
    assert!(matches!(reason, CloseReason::Reset), "{reason:?}");
}

#[test]
fn an_answer_to_the_first_bytes_that_finds_the_reset_does_not_lose_the_others() {
    let stage = Stage::with(ConnectionOptions::new(), |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(&input.take_all()[..1]);
            Ok(())
        })
    });
    let (mut client, seen) = stage.pair();
    let held = hold(&seen);
    client.write_all(&pattern(LEN)).unwrap();
    wait_until_arrived(&client);
    reset(client);
    drop(held);
    let (bytes, reason) = to_the_end(&seen);
    assert_same(&bytes, &pattern(LEN));
    assert!(matches!(reason, CloseReason::Reset), "{reason:?}");
}

#[test]
fn output_that_waited_for_a_peer_that_resets_does_not_lose_its_last_bytes() {
    let options = ConnectionOptions::new().output_max(16 << 20);
    let stage = Stage::with(options, |probe| probe);
    let mut client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    seen.run(|ctx| {
        ctx.pause();
        ctx.write(pattern(8 << 20))
    });
    settle(&stage.system);
    client.write_all(&pattern(LEN / 2)).unwrap();
    wait_until_arrived(&client);
    // The selector reports the reset to who waits for writing; the actor does not read.
    reset(client);
    settle(&stage.system);
    seen.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    let (bytes, reason) = to_the_end(&seen);
    assert_same(&bytes, &pattern(LEN / 2));
    assert!(matches!(reason, CloseReason::Reset), "{reason:?}");
}

#[test]
fn a_paused_actor_is_shown_the_last_bytes_though_a_write_has_failed() {
    let stage = Stage::new();
    let (mut client, seen) = stage.pair();
    seen.run(|ctx| ctx.pause());
    client.write_all(&pattern(LEN)).unwrap();
    wait_until_arrived(&client);
    reset(client);
    write_in_vain(&seen);
    settle(&stage.system);
    seen.tell(|ctx| {
        ctx.resume();
        Ok(())
    });
    let (bytes, reason) = to_the_end(&seen);
    assert_same(&bytes, &pattern(LEN));
    assert!(matches!(reason, CloseReason::Reset), "{reason:?}");
}

#[test]
fn who_does_not_read_the_last_bytes_makes_nobody_spin() {
    let builder = builder(1).name("lastbytes");
    let stage = Stage::listen(builder, "127.0.0.1:0", ListenOptions::new(), |probe| probe);
    let (mut client, seen) = stage.pair();
    seen.run(|ctx| ctx.pause());
    client.write_all(b"nobody reads this").unwrap();
    wait_until_arrived(&client);
    reset(client);
    write_in_vain(&seen);
    assert_quiet("lastbytes");
}

#[test]
fn who_never_reads_the_last_bytes_ends_in_time() {
    let after = Duration::from_millis(300);
    let options = ConnectionOptions::new().stuck_timeout(after);
    let stage = Stage::with(options, |probe| probe);
    let (mut client, seen) = stage.pair();
    seen.run(|ctx| ctx.pause());
    client.write_all(b"nobody reads this").unwrap();
    wait_until_arrived(&client);
    reset(client);
    write_in_vain(&seen);
    let turns = std::time::Instant::now();
    let (bytes, reason) = to_the_end(&seen);
    assert!(bytes.is_empty());
    assert!(matches!(reason, CloseReason::Reset), "{reason:?}");
    assert!(turns.elapsed() >= after / 2, "it had its time");
    wait_until("all is over", || stage.is_over());
}

#[test]
fn an_actor_that_closes_after_a_failed_write_is_told_the_reset() {
    let stage = Stage::new();
    let (mut client, seen) = stage.pair();
    seen.run(|ctx| ctx.pause());
    client.write_all(b"nobody reads this").unwrap();
    wait_until_arrived(&client);
    reset(client);
    write_in_vain(&seen);
    let close = |ctx: &mut Context<'_, Probe>| {
        ctx.close();
        Ok(())
    };
    let _ = seen.addr.send(Box::new(close));
    let (_, reason) = to_the_end(&seen);
    assert!(matches!(reason, CloseReason::Reset), "{reason:?}");
    wait_until("all is over", || stage.is_over());
}

#[test]
fn over_a_unix_socket_the_last_bytes_survive_a_failed_write_too() {
    let dir = TempDir::new();
    let path = dir.path().join("x.sock");
    let endpoint = format!("unix:{}", path.display());
    let stage = Stage::listen(builder(1), &endpoint, ListenOptions::new(), |probe| probe);
    let mut client = UnixStream::connect(&path).unwrap();
    let seen = stage.accepted();
    let held = hold(&seen);
    client.write_all(&pattern(LEN)).unwrap();
    drop(client);
    write_in_vain(&seen);
    drop(held);
    let (bytes, _) = to_the_end(&seen);
    assert_same(&bytes, &pattern(LEN));
}

/// Counts what it is shown, answers each piece, and is pushed to all the while.
struct Counts {
    shown: usize,
    ended: std::sync::mpsc::Sender<(usize, String)>,
}

impl Actor for Counts {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.set_interval(Duration::from_millis(1));
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(b"push");
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.shown += input.take_all().len();
        ctx.write(b"more");
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        let _ = self.ended.send((self.shown, reason.to_string()));
    }
}

/// Whatever the order in which the poller notices. A simulated reset takes what has arrived with it
/// or not, as kernels differ in that; where it does, the trace says so.
#[test]
fn in_any_order_of_a_seed_nothing_that_has_arrived_is_lost() {
    let kept = std::cell::Cell::new(0);
    for_each_seed(100, |simulation: &mut Simulation| {
        simulation.faults(Faults::none());
        let system = simulation.system(System::builder().pollers(2));
        let (ended, ends) = std::sync::mpsc::channel();
        let make = move |_| Counts {
            shown: 0,
            ended: ended.clone(),
        };
        system.listen("127.0.0.1:9000", make).unwrap();
        let client = simulation.client("127.0.0.1:9000");
        simulation.run_for(Duration::from_millis(20));
        let len = 1 + simulation.random().below(LEN as u64) as usize;
        client.send(pattern(len));
        let steps = simulation.random().below(4);
        for _ in 0..steps {
            simulation.step();
        }
        client.reset();
        simulation.run_for(Duration::from_secs(1));
        let (shown, reason) = ends.try_recv().expect("it has ended");
        assert_eq!(reason, "reset by the peer");
        if simulation
            .trace()
            .to_string()
            .contains("has arrived is lost")
        {
            assert!(shown < len);
        } else {
            assert_eq!(shown, len);
            kept.set(kept.get() + 1);
        }
    });
    assert!(kept.get() > 0 || std::env::var("GREENROOM_SEED").is_ok());
}
