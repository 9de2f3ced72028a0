//! `closing`: what an actor says last leaves in front of the end of the stream, whatever orderly end
//! that is; and where the end is none of these it is not asked.

#[path = "util/tls.rs"]
mod tls;
mod util;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use greenroom::testing::{Faults, for_each_seed};
use greenroom::*;
use util::next;

type Stage = greenroom::testing::Stage<Polite>;

const SECOND: Duration = Duration::from_secs(1);

/// Does what the lines say, and says farewell.
struct Polite {
    /// What is done in the farewell besides.
    last: fn(&mut Context<'_, Polite>),
    stays: bool,
    calls: Vec<String>,
    out: Option<Sender<Seen>>,
}

#[derive(Debug)]
enum Seen {
    Opened(Addr<Polite>),
    Closed(Vec<String>),
}

impl Default for Polite {
    fn default() -> Polite {
        Polite {
            last: |_| (),
            stays: false,
            calls: Vec::new(),
            out: None,
        }
    }
}

impl Polite {
    fn and(last: fn(&mut Context<'_, Polite>)) -> Polite {
        Polite {
            last,
            ..Polite::default()
        }
    }

    fn tell(&self, seen: Seen) {
        if let Some(out) = &self.out {
            let _ = out.send(seen);
        }
    }
}

impl Actor for Polite {
    type Message = &'static str;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.tell(Seen::Opened(ctx.addr()));
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let Some(line) = input.line(20)? else {
            return Ok(());
        };
        ctx.write_parts(&[line, b"\n"]);
        match line {
            b"close" => ctx.close(),
            b"within" => ctx.close_within(SECOND),
            b"abort" => ctx.abort(),
            b"error" => return Err("an error".into()),
            b"panic" => panic!("told to"),
            b"shut" => ctx.shutdown_write(),
            b"shut and close" => {
                ctx.shutdown_write();
                ctx.close();
            }
            b"notify" => {
                ctx.notify_written(1);
                ctx.close();
            }
            b"stay" => self.stays = true,
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, text: &'static str, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(text);
        Ok(())
    }

    fn written(&mut self, token: u64, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.calls.push(format!("written {token}"));
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.calls.push("timer".into());
        Ok(())
    }

    fn stopping(&mut self, _deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        if !self.stays {
            ctx.close();
        }
        Ok(())
    }

    fn closing(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        assert!(ctx.is_closing() && !ctx.is_reading());
        self.calls.push(format!("closing: {reason}"));
        ctx.write(format!("bye: {reason}\n"));
        (self.last)(ctx);
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        self.calls.push(format!("closed: {reason}"));
        self.tell(Seen::Closed(self.calls.clone()));
    }
}

/// What a peer got that sent this line, and what the actor was told.
fn said(line: &str) -> (String, Vec<String>) {
    let mut stage = Stage::new(Polite::default());
    stage.receive(format!("{line}\n"));
    ended(&mut stage)
}

fn ended(stage: &mut Stage) -> (String, Vec<String>) {
    let output = String::from_utf8(stage.output().to_vec()).unwrap();
    (output, stage.actor().calls.clone())
}

fn told(reason: &str) -> Vec<String> {
    vec![format!("closing: {reason}"), format!("closed: {reason}")]
}

// ---- on a stage ---------------------------------------------------------------------------------

#[test]
fn a_farewell_is_the_last_that_leaves_before_every_orderly_end() {
    for (line, reason) in [
        ("close", "finished"),
        ("within", "finished"),
        ("error", "an error"),
    ] {
        let (output, calls) = said(line);
        assert_eq!(output, format!("{line}\nbye: {reason}\n"));
        assert_eq!(calls, told(reason), "{line}");
    }

    let mut stage = Stage::new(Polite::default());
    stage.half_close();
    let reason = "closed by the peer";
    assert_eq!(
        ended(&mut stage),
        (format!("bye: {reason}\n"), told(reason))
    );

    let mut stage = Stage::new(Polite::default());
    stage.addr().close();
    stage.run();
    let reason = "finished";
    assert_eq!(
        ended(&mut stage),
        (format!("bye: {reason}\n"), told(reason))
    );
    assert!(stage.is_write_shut() && !stage.is_reset());
}

#[test]
fn a_farewell_is_said_at_a_stop_and_at_its_deadline() {
    let mut stage = Stage::new(Polite::default());
    stage.stop(SECOND);
    assert_eq!(
        ended(&mut stage),
        ("bye: finished\n".into(), told("finished"))
    );

    let mut stage = Stage::new(Polite::default());
    stage.receive("stay\n");
    stage.stop(SECOND);
    assert_eq!(ended(&mut stage), ("stay\n".into(), vec![]));
    stage.advance(SECOND);
    let reason = "the system stopped";
    assert_eq!(
        ended(&mut stage),
        (format!("bye: {reason}\n"), told(reason))
    );
    assert!(!stage.is_reset() && !stage.is_connected());

    // Nothing could be flushed in no time: it is cut, as it is without a farewell.
    let mut stage = Stage::new(Polite::default());
    stage.stall();
    stage.receive("stay\n");
    stage.stop(SECOND);
    stage.advance(SECOND);
    assert_eq!(stage.actor().calls, ["closed: the system stopped"]);
    assert!(stage.is_reset());
}

#[test]
fn a_farewell_is_said_when_time_or_room_for_input_is_over() {
    let options = || ConnectionOptions::new().first_bytes_timeout(None);
    let mut idle = Stage::with_options(Polite::default(), options().idle_timeout(SECOND));
    idle.advance(SECOND);
    assert_eq!(
        ended(&mut idle),
        ("bye: idle for 1s\n".into(), told("idle for 1s"))
    );
    assert!(idle.is_write_shut());

    let mut stuck = Stage::with_options(Polite::default(), options().idle_timeout(SECOND));
    stuck.stall();
    stuck.receive("x\n");
    stuck.advance(SECOND);
    assert_eq!(stuck.actor().calls, ["closed: idle for 1s"]);
    assert!(stuck.is_reset());

    let mut slow = Stage::with_options(Polite::default(), options().incomplete_timeout(SECOND));
    slow.receive("begun");
    slow.advance(SECOND);
    let reason = "slow sender: a frame of which 5 bytes had come was not complete after 1s";
    assert_eq!(ended(&mut slow), (format!("bye: {reason}\n"), told(reason)));

    let mut rate = Stage::with_options(Polite::default(), options().least_input_rate(9, SECOND));
    rate.receive("begun");
    rate.advance(SECOND);
    let reason = "input rate: 5 bytes of a frame had come where 9 must in each 1s";
    assert_eq!(ended(&mut rate), (format!("bye: {reason}\n"), told(reason)));

    let mut long = Stage::with_options(Polite::default(), options().input_max(10));
    long.receive("eleven byte");
    let reason = "input too long: 11 bytes not consumed where 10 may be kept";
    assert_eq!(ended(&mut long), (format!("bye: {reason}\n"), told(reason)));
}

#[test]
fn nothing_is_asked_where_nothing_more_can_leave() {
    assert_eq!(said("abort"), ("".into(), vec!["closed: aborted".into()]));
    let (output, calls) = said("shut and close");
    assert_eq!(output, "shut and close\n");
    assert_eq!(calls, ["closed: finished"]);

    let mut stage = Stage::new(Polite::default());
    stage.receive("shut\n");
    stage.half_close();
    assert_eq!(ended(&mut stage).1, ["closed: closed by the peer"]);

    let mut stage = Stage::new(Polite::default());
    stage.reset();
    assert_eq!(ended(&mut stage).1, ["closed: reset by the peer"]);

    let mut stage = Stage::new(Polite::default());
    catch_unwind(AssertUnwindSafe(|| stage.receive("panic\n"))).unwrap_err();
    assert_eq!(
        ended(&mut stage).1,
        ["closed: a callback panicked: told to"]
    );

    // A reader past its budget, and one that is stuck.
    let options = ConnectionOptions::new()
        .output_max(100)
        .stuck_timeout(SECOND);
    let mut slow = Stage::with_options(Polite::default(), options.clone());
    slow.stall();
    for _ in 0..11 {
        slow.send("ten bytes.");
    }
    assert_eq!(slow.actor().calls.len(), 1);
    assert!(slow.is_reset());
    let mut stuck = Stage::with_options(Polite::default(), options);
    stuck.stall();
    stuck.send("ten bytes.");
    stuck.advance(SECOND);
    assert_eq!(stuck.actor().calls.len(), 1);

    let mut without = Stage::without_socket(Polite::default());
    without.addr().close();
    without.run();
    assert_eq!(without.actor().calls, ["closed: finished"]);
}

#[test]
fn a_farewell_waits_behind_all_that_waits_and_is_asked_for_once() {
    let mut stage = Stage::new(Polite::default());
    stage.stall();
    stage.receive("one\ntwo\nclose\nlost\n");
    assert_eq!(stage.actor().calls, ["closing: finished"]);
    stage.addr().close();
    stage.stop(10 * SECOND);
    stage.half_close();
    stage.run();
    assert_eq!(stage.actor().calls, ["closing: finished"]);
    stage.unstall();
    assert_eq!(stage.output(), "one\ntwo\nclose\nbye: finished\n");
    assert_eq!(stage.actor().calls, told("finished"));
}

#[test]
fn notices_are_told_behind_the_farewell_and_before_the_end() {
    let (output, calls) = said("notify");
    assert_eq!(output, "notify\nbye: finished\n");
    assert_eq!(
        calls,
        ["closing: finished", "written 1", "closed: finished"]
    );
    let mut stage = Stage::new(Polite::and(|ctx| {
        ctx.notify_written(2);
    }));
    stage.receive("close\n");
    assert_eq!(
        ended(&mut stage).1,
        ["closing: finished", "written 2", "closed: finished"]
    );
}

#[test]
fn a_farewell_neither_revives_nor_delays_nor_cuts_the_close() {
    let lasts: [fn(&mut Context<'_, Polite>); 7] = [
        |ctx| ctx.close(),
        |ctx| ctx.close_within(Duration::ZERO),
        |ctx| ctx.pause(),
        |ctx| ctx.resume(),
        |ctx| ctx.shutdown_write(),
        |ctx| {
            ctx.set_timer(Duration::ZERO);
        },
        |ctx| ctx.set_option(SocketOption::NoDelay(true)),
    ];
    for last in lasts {
        let mut stage = Stage::new(Polite::and(last));
        stage.stall();
        stage.receive("close\n");
        stage.run();
        assert_eq!(stage.actor().calls, ["closing: finished"]);
        stage.unstall();
        assert_eq!(stage.output(), "close\nbye: finished\n");
        assert_eq!(stage.actor().calls, told("finished"));
    }
    // The time to flush is that of the close itself.
    let mut stage = Stage::new(Polite::and(|ctx| ctx.close_within(3600 * SECOND)));
    stage.stall();
    stage.receive("within\n");
    stage.advance(SECOND);
    assert!(matches!(
        stage.reason(),
        Some(CloseReason::NotFlushed { .. })
    ));
    // Nor does what it asked for reach the next in its place.
    let mut stage = Stage::new(Polite::and(|ctx| {
        ctx.spawn(Polite::default());
    }));
    stage.receive("close\n");
    assert_eq!(stage.spawned::<Polite>().len(), 1);
}

#[test]
fn an_abort_or_a_panic_in_a_farewell_is_the_end() {
    let mut stage = Stage::new(Polite::and(|ctx| ctx.abort()));
    stage.receive("error\n");
    assert!(matches!(stage.reason(), Some(CloseReason::Aborted)));
    assert!(stage.is_reset());

    let mut stage = Stage::new(Polite::and(|_| panic!("no farewell")));
    stage.stall();
    catch_unwind(AssertUnwindSafe(|| stage.receive("close\n"))).unwrap_err();
    assert!(matches!(stage.reason(), Some(CloseReason::Panicked(what)) if what == "no farewell"));
    assert_eq!(
        stage.actor().calls,
        [
            "closing: finished",
            "closed: a callback panicked: no farewell"
        ]
    );
    assert!(stage.is_reset());
    assert_eq!(stage.stats().panics, 1);
}

#[test]
fn a_farewell_without_room_is_dropped_whole_and_the_close_goes_on() {
    let options = ConnectionOptions::new().output_max(100);
    let last = |ctx: &mut Context<'_, Polite>| {
        ctx.write([b'x'; 90]);
    };
    let mut stage = Stage::with_options(Polite::and(last), options);
    stage.stall();
    stage.receive("close\n");
    stage.unstall();
    assert_eq!(stage.output(), "close\n");
    assert_eq!(stage.actor().calls, told("finished"));
    assert!(!stage.is_reset());
    assert_eq!(stage.stats().dropped_writes, 1);
}

// ---- over real sockets --------------------------------------------------------------------------

struct Server {
    system: System,
    addr: std::net::SocketAddr,
    seen: std::sync::mpsc::Receiver<Seen>,
}

fn server(last: fn(&mut Context<'_, Polite>), options: ConnectionOptions) -> Server {
    serve(last, ListenOptions::new().connection(options))
}

fn serve(last: fn(&mut Context<'_, Polite>), options: ListenOptions) -> Server {
    let system = System::builder().pollers(1).build().unwrap();
    let (out, seen) = channel();
    let make = move |_| Polite {
        out: Some(out.clone()),
        ..Polite::and(last)
    };
    let listener = system.listen_with("127.0.0.1:0", options, make).unwrap();
    let Endpoint::Tcp(addr) = listener.local_addr() else {
        panic!("not tcp")
    };
    let addr = *addr;
    Server { system, addr, seen }
}

impl Server {
    fn client(&self) -> (TcpStream, Addr<Polite>) {
        let client = TcpStream::connect(self.addr).unwrap();
        client.set_read_timeout(Some(util::TIMEOUT)).unwrap();
        let Seen::Opened(addr) = next(&self.seen) else {
            panic!("not opened")
        };
        (client, addr)
    }

    #[track_caller]
    fn ends_with(&self, mut client: &TcpStream, text: &str, reason: &str) {
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert!(
            got == text,
            "{} bytes: ...{:?}",
            got.len(),
            &got[got.len().saturating_sub(99)..]
        );
        let Seen::Closed(calls) = next(&self.seen) else {
            panic!("not closed")
        };
        assert_eq!(calls, told(reason));
    }
}

#[test]
fn a_farewell_leaves_in_front_of_the_end_over_sockets() {
    let server = server(|_| (), ConnectionOptions::new().idle_timeout(None));
    for (line, reason) in [("close", "finished"), ("error", "an error")] {
        let (mut client, _) = server.client();
        writeln!(client, "{line}").unwrap();
        server.ends_with(&client, &format!("{line}\nbye: {reason}\n"), reason);
    }
    let (client, _) = server.client();
    client.shutdown(Shutdown::Write).unwrap();
    server.ends_with(&client, "bye: closed by the peer\n", "closed by the peer");
    let (client, addr) = server.client();
    addr.close();
    server.ends_with(&client, "bye: finished\n", "finished");

    // With input that nobody has read, behind more output than the kernel takes at once.
    let (mut client, addr) = server.client();
    let flood: &'static str = "0123456789".repeat(100_000).leak();
    addr.send(flood).unwrap();
    assert_eq!(client.peek(&mut [0]).unwrap(), 1);
    client.write_all(b"close\nunread\n").unwrap();
    server.ends_with(
        &client,
        &format!("{flood}close\nbye: finished\n"),
        "finished",
    );

    // Both ends of a stop.
    let (client, _) = server.client();
    let (mut stays, _) = server.client();
    stays.write_all(b"stay\n").unwrap();
    let mut echo = [0; 5];
    stays.read_exact(&mut echo).unwrap();
    server.system.handle().stop(Duration::from_millis(50));
    server.ends_with(&client, "bye: finished\n", "finished");
    let reason = "the system stopped";
    server.ends_with(&stays, &format!("bye: {reason}\n"), reason);
}

#[test]
fn an_idle_farewell_and_one_that_panics_over_sockets() {
    let idle = ConnectionOptions::new().idle_timeout(Duration::from_millis(20));
    let first = server(|_| (), idle);
    let (client, _) = first.client();
    first.ends_with(&client, "bye: idle for 20ms\n", "idle for 20ms");

    let second = server(|_| panic!("no farewell"), ConnectionOptions::new());
    let (mut client, _) = second.client();
    let (mut other, _) = second.client();
    client.write_all(b"close\n").unwrap();
    // A reset, or nothing but the end where that comes first.
    let mut got = Vec::new();
    let _ = client.read_to_end(&mut got);
    assert!(!got.ends_with(b"bye: finished\n"));
    let Seen::Closed(calls) = next(&second.seen) else {
        panic!("not closed")
    };
    assert_eq!(calls[1], "closed: a callback panicked: no farewell");
    other.write_all(b"still here\n").unwrap();
    let mut got = [0; 11];
    other.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"still here\n");
    assert_eq!(second.system.stats().panics, 1);
}

#[test]
fn under_tls_a_farewell_leaves_in_front_of_the_end_that_tls_tells() {
    let with = |connection| {
        ListenOptions::new()
            .connection(connection)
            .tls(tls::server())
    };
    let client = |server: &Server| {
        let socket = TcpStream::connect(server.addr).unwrap();
        socket.set_read_timeout(Some(util::TIMEOUT)).unwrap();
        let client = tls::TlsClient::new(socket);
        let Seen::Opened(addr) = next(&server.seen) else {
            panic!("not opened")
        };
        (client, addr)
    };
    // An end without word of it would be an error here.
    let ends_with = |server: &Server, client: &mut tls::TlsClient, reason: &str| {
        let got = client.read_to_end().unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), format!("bye: {reason}\n"));
        let Seen::Closed(calls) = next(&server.seen) else {
            panic!("not closed")
        };
        assert_eq!(calls, told(reason));
    };
    let idle = ConnectionOptions::new().idle_timeout(Duration::from_millis(300));
    let server = serve(|_| (), with(idle));
    let (mut idle, _) = client(&server);
    ends_with(&server, &mut idle, "idle for 300ms");

    let server = serve(|_| (), with(ConnectionOptions::new().idle_timeout(None)));
    let (mut closed, addr) = client(&server);
    addr.close();
    ends_with(&server, &mut closed, "finished");
    let (mut half, _) = client(&server);
    half.close_notify();
    ends_with(&server, &mut half, "closed by the peer");
    let (mut stays, _) = client(&server);
    stays.send("stay\n");
    assert_eq!(stays.read(5), b"stay\n");
    server.system.handle().stop(Duration::from_millis(50));
    ends_with(&server, &mut stays, "the system stopped");
}

// ---- under seeds --------------------------------------------------------------------------------

#[test]
fn a_farewell_is_the_last_line_under_every_seed() {
    for_each_seed(100, |simulation| {
        simulation.faults(Faults::harmless());
        let system = simulation.system(System::builder().pollers(2));
        let make = |_| Polite::default();
        system.listen("127.0.0.1:9000", make).unwrap();
        for (line, reason) in [("close", "finished"), ("error", "an error")] {
            let client = simulation.client("127.0.0.1:9000");
            client.send(format!("one\n{line}\n"));
            let rest = client.rest(simulation);
            assert_eq!(rest, format!("one\n{line}\nbye: {reason}\n"));
        }
        let client = simulation.client("127.0.0.1:9000");
        client.half_close();
        assert_eq!(client.rest(simulation), "bye: closed by the peer\n");
    });
}
