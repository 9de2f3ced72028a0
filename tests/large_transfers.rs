//! Files sent by the kernel: in order with other writes, at the reader's pace, in flat memory, and
//! never cut without a reset.

mod util;

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenroom::testing::{Faults, Stage as OneActor, for_each_seed};
use greenroom::*;
use util::*;

/// A file, and what is in it.
struct TestFile {
    _dir: TempDir,
    file: Arc<File>,
    bytes: Vec<u8>,
}

impl TestFile {
    fn new(len: usize) -> TestFile {
        let dir = TempDir::new();
        let (path, bytes) = (dir.join("file"), pattern(len));
        std::fs::write(&path, &bytes).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        TestFile {
            _dir: dir,
            file,
            bytes,
        }
    }
}

fn patient() -> ConnectionOptions {
    ConnectionOptions::new().stuck_timeout(Duration::from_secs(600))
}

// ---- over sockets -------------------------------------------------------------------------------

#[test]
fn a_file_stands_in_line_with_what_is_written_before_and_after() {
    // TCP and Unix, a client with a small buffer and one with the usual.
    let dir = TempDir::new();
    let unix = dir.join("socket");
    let file = TestFile::new(3 << 20);
    for endpoint in ["127.0.0.1:0", &format!("unix:{}", unix.display())] {
        let options = ListenOptions::new().connection(patient());
        let stage = Stage::listen(builder(1), endpoint, options, |probe| probe);
        let mut client: Box<dyn Read> = match endpoint {
            "127.0.0.1:0" => Box::new(connect_small(&stage.listener, 16 << 10)),
            _ => Box::new(std::os::unix::net::UnixStream::connect(&unix).unwrap()),
        };
        let seen = stage.accepted();
        let shared = file.file.clone();
        let queued = seen.run(move |ctx| {
            ctx.write("before ");
            ctx.write_file(shared.clone(), 1000, 2 << 20).unwrap();
            ctx.notify_written(1);
            ctx.write(" between ");
            ctx.write_file(shared.clone(), 0, 0).unwrap();
            ctx.write_file(shared, 5, 10).unwrap();
            ctx.notify_written(2);
            ctx.write(" after");
            ctx.queued()
        });
        assert_eq!(queued, 7 + (2 << 20) + 9 + 10 + 6);
        seen.run(|ctx| ctx.write(" and later"));
        seen.addr.close();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        let mut expected = b"before ".to_vec();
        expected.extend(&file.bytes[1000..1000 + (2 << 20)]);
        expected.extend(b" between ");
        expected.extend(&file.bytes[5..15]);
        expected.extend(b" after and later");
        assert_same(&got, &expected);
        let events = seen.to_the_end();
        let told = events.iter().filter_map(|event| match event {
            Event::Written(token) => Some(*token),
            _ => None,
        });
        assert!(told.eq([1, 2]));
        assert!(matches!(
            events.last(),
            Some(Event::Closed(CloseReason::Finished))
        ));
    }
}

#[test]
fn a_file_counts_for_the_watermarks_and_not_for_the_budget() {
    let file = TestFile::new(8 << 20);
    let options = patient().output_max(1000).watermarks(100, 500);
    let stage = Stage::with(options, |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let shared = file.file.clone();
    seen.run(move |ctx| {
        ctx.write_file(shared, 0, 8 << 20).unwrap();
        assert!(ctx.is_above_high_watermark());
        assert!(ctx.queued() == 8 << 20);
    });
    settle(&stage.system);
    let waits = seen.addr.queued().unwrap();
    assert!(waits > 0 && waits < 8 << 20);
    assert!(
        seen.run(|ctx| ctx.write([0; 900])),
        "there is room beside it"
    );
    assert_same(&read(&client, 8 << 20), &file.bytes);
    read(&client, 900);
    seen.until(|event| matches!(event, Event::Drained).then_some(()));
    assert!(!seen.addr.is_gone());
    // The bound on how many may wait is that of the budget.
    let shared = file.file.clone();
    seen.tell(move |ctx| {
        for _ in 0..15 {
            ctx.write_file(shared.clone(), 0, 1)?;
        }
        ctx.write_file(shared, 0, 1)?;
        Ok(())
    });
    assert!(matches!(seen.closed(), CloseReason::SlowReader { .. }));
}

#[test]
fn a_file_does_not_count_against_the_budget_of_a_poller() {
    let file = TestFile::new(8 << 20);
    let stage = Stage::listen(
        builder(1).output_budget(10_000),
        "127.0.0.1:0",
        ListenOptions::new().connection(patient()),
        |probe| probe,
    );
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let shared = file.file.clone();
    seen.run(move |ctx| ctx.write_file(shared, 0, 8 << 20).unwrap());
    settle(&stage.system);
    assert!(seen.addr.queued().unwrap() > 10_000);
    let waiting = stage.system.stats().output_waiting;
    assert!((1..1000).contains(&waiting), "{waiting} of memory");
    assert_same(&read(&client, 8 << 20), &file.bytes);
}

#[test]
fn lengths_beyond_all_files_are_an_error_and_no_overflow() {
    let file = TestFile::new(10);
    let mut stage = OneActor::with_options(
        Sender {
            file: file.file.clone(),
            refused: None,
        },
        patient(),
    );
    stage.stall();
    for _ in 0..5 {
        stage.send((0, u64::MAX));
    }
    stage.send((u64::MAX, u64::MAX));
    assert!(stage.queued() >= usize::MAX / 2);
    stage.unstall();
    assert!(matches!(stage.reason(), Some(CloseReason::Io(_))));
    assert!(stage.output().starts_with(b"<"));
}

#[test]
fn a_file_shorter_than_promised_resets_the_connection_and_tells_why() {
    let file = TestFile::new(100_000);
    for (offset, len) in [(0, 100_001), (200_000, 1), (99_999, 2)] {
        let stage = Stage::with(patient(), |probe| probe);
        let (mut client, seen) = stage.pair();
        let shared = file.file.clone();
        seen.run(move |ctx| {
            ctx.write("head");
            ctx.write_file(shared, offset, len).unwrap();
            ctx.write("tail");
            ctx.notify_written(1);
        });
        let events = seen.to_the_end();
        let Some(Event::Closed(CloseReason::Io(error))) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        assert!(
            error
                .to_string()
                .starts_with("write_file: the file ends 1 bytes"),
            "{error}"
        );
        assert!(
            !events
                .iter()
                .any(|event| matches!(event, Event::Written(_)))
        );
        let end = client.read_to_end(&mut Vec::new());
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn what_cannot_be_read_as_a_file_ends_with_its_error() {
    let stage = Stage::with(patient(), |probe| probe);
    for path in ["/tmp", "/proc/self/mem"] {
        let (_client, seen) = stage.pair();
        let file = File::open(path).unwrap();
        seen.run(move |ctx| ctx.write_file(file, 0, 100).unwrap());
        let reason = seen.closed();
        assert!(matches!(reason, CloseReason::Io(_)), "{path}: {reason:?}");
    }
    // One that the kernel cannot move by itself is read.
    let (client, seen) = stage.pair();
    let file = File::open("/proc/self/status").unwrap();
    seen.run(move |ctx| ctx.write_file(file, 0, 5).unwrap());
    assert_eq!(read(&client, 5), b"Name:");
}

#[test]
fn a_peer_that_goes_in_the_midst_ends_the_connection_and_closes_the_file() {
    let file = TestFile::new(8 << 20);
    let stage = Stage::with(patient(), |probe| probe);
    for _ in 0..10 {
        let client = connect_small(&stage.listener, 16 << 10);
        let seen = stage.accepted();
        let shared = file.file.clone();
        seen.run(move |ctx| ctx.write_file(shared, 0, 8 << 20).unwrap());
        read(&client, 100_000);
        reset(client);
        assert!(matches!(seen.closed(), CloseReason::Reset));
    }
    wait_until("all is over", || stage.is_over());
    wait_until("nobody has the file", || Arc::strong_count(&file.file) == 1);
    assert_eq!(stage.system.stats().output_waiting, 0);
}

#[test]
fn a_stuck_reader_of_a_file_is_closed() {
    let after = Duration::from_millis(50);
    let file = TestFile::new(16 << 20);
    let stage = Stage::with(ConnectionOptions::new().stuck_timeout(after), |probe| probe);
    let _client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let shared = file.file.clone();
    seen.run(move |ctx| ctx.write_file(shared, 0, 16 << 20).unwrap());
    let reason = seen.closed();
    let CloseReason::StuckReader { queued, .. } = reason else {
        panic!("{reason:?}")
    };
    assert!(queued > 0 && queued < 16 << 20);
}

#[test]
fn others_have_their_turn_beside_a_reader_as_fast_as_can_be() {
    let file = TestFile::new(64 << 20);
    let stage = Stage::with(patient(), |probe| {
        probe.on_readable(|input, ctx| {
            ctx.write(input.take_all());
            Ok(())
        })
    });
    let (fast, seen) = stage.pair();
    let (mut echo, _echo) = stage.pair();
    let shared = file.file.clone();
    let all = file.bytes.len();
    seen.run(move |ctx| ctx.write_file(shared, 0, all as u64).unwrap());
    let progress = Arc::new(AtomicUsize::new(0));
    let count = progress.clone();
    let reader = std::thread::spawn(move || {
        let (mut fast, mut buffer) = (fast, vec![0; 256 << 10]);
        while count.load(Ordering::Relaxed) < all {
            let n = fast.read(&mut buffer).unwrap();
            assert!(n > 0);
            count.fetch_add(n, Ordering::Relaxed);
        }
    });
    let mut echoes = 0;
    while progress.load(Ordering::Relaxed) < all {
        echo.write_all(b"ping").unwrap();
        read(&echo, 4);
        echoes += 1;
    }
    reader.join().unwrap();
    assert!(echoes >= 5, "{echoes} echoes beside 64 MiB");
}

#[test]
fn one_turn_sends_no_more_of_many_files_than_of_one() {
    const TURN: usize = 256 << 10;
    let file = TestFile::new(TURN);
    let options = ListenOptions::new().connection(patient());
    let options = options.send_buffer(8 * TURN as u32);
    let stage = Stage::listen(builder(1), "127.0.0.1:0", options, |probe| probe);
    let (client, seen) = stage.pair();
    for len in [TURN, TURN / 2, 10_000] {
        let files = 4 * TURN / len;
        let held = hold(&seen);
        let (shared, all) = (file.file.clone(), files * len);
        seen.tell(move |ctx| {
            for _ in 0..files {
                ctx.write_file(shared.clone(), 0, len as u64)?;
            }
            Ok(())
        });
        // Of the same turn, behind what the first has sent.
        let (told, left) = std::sync::mpsc::channel();
        seen.tell(move |ctx| Ok(told.send(ctx.queued())?));
        drop(held);
        let sent = all - next(&left);
        assert!(sent <= TURN, "{sent} bytes of files of {len}");
        assert_same(&read(&client, all), &file.bytes[..len].repeat(files));
    }
}

#[test]
fn thousands_of_slow_readers_take_no_memory_and_whoever_reads_on_gets_it_whole() {
    // Alone: what it looks at is the memory of the process. Both ends of each connection are in
    // it, so with 1,024 descriptors there are but hundreds.
    let descriptors = most_descriptors().min(4_500);
    let readers = (descriptors - 200) / 2;
    in_child(
        "thousands_of_slow_readers_take_no_memory_and_whoever_reads_on_gets_it_whole",
        descriptors,
        || {
            let file = TestFile::new(256 << 10);
            let options = ListenOptions::new().connection(patient()).send_buffer(4096);
            let stage = Stage::listen(builder(1), "127.0.0.1:0", options, |probe| probe);
            let connections: Vec<_> = (0..readers)
                .map(|_| (connect_small(&stage.listener, 4096), stage.accepted()))
                .collect();
            settle(&stage.system);
            let before = resident();
            for (_, seen) in &connections {
                let shared = file.file.clone();
                seen.run(move |ctx| {
                    ctx.write("head");
                    ctx.write_file(shared, 0, 256 << 10).unwrap();
                    ctx.close();
                });
            }
            wait_until("all wait", || {
                connections
                    .iter()
                    .all(|(_, seen)| seen.addr.queued().is_some_and(|queued| queued > 0))
            });
            let taken = resident().saturating_sub(before);
            assert!(
                taken < readers * (4 << 10),
                "{taken} bytes for {readers} readers"
            );
            // Some thirty of them; the others have seen enough.
            for (client, seen) in connections.into_iter().step_by(readers / 30) {
                let got = read_to_end(client);
                assert_eq!(&got[..4], b"head");
                assert_same(&got[4..], &file.bytes);
                assert!(matches!(seen.closed(), CloseReason::Finished));
            }
            wait_until("all is over", || stage.is_over());
        },
    );
}

/// How many descriptors a process may have at most, as the kernel writes it.
fn most_descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let hard = line.unwrap().split_whitespace().nth(4).unwrap();
    hard.parse().unwrap_or(usize::MAX)
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_detach_does_not_leave_a_file_behind() {
    let file = TestFile::new(8 << 20);
    let stage = Stage::with(patient(), |probe| probe);
    let _client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    let shared = file.file.clone();
    seen.tell(move |ctx| {
        ctx.write_file(shared, 0, 8 << 20)?;
        ctx.detach(|_| panic!("not with a file that waits"))
            .unwrap();
        Ok(())
    });
    let reason = seen.closed();
    let CloseReason::Io(error) = reason else {
        panic!("{reason:?}")
    };
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    assert_eq!(stage.system.stats().panics, 0);
}

// ---- without sockets ----------------------------------------------------------------------------

struct Sender {
    file: Arc<File>,
    refused: Option<FileRefused>,
}

impl Actor for Sender {
    type Message = (u64, u64);

    fn message(&mut self, (at, len): (u64, u64), ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write("<");
        self.refused = ctx.write_file(self.file.clone(), at, len).err();
        ctx.write(">");
        Ok(())
    }
}

#[test]
fn without_a_kernel_the_contents_are_copied() {
    let file = TestFile::new(200_000);
    let mut stage = OneActor::new(Sender {
        file: file.file.clone(),
        refused: None,
    });
    stage.stall();
    stage.send((10, 150_000));
    assert_eq!(stage.queued(), 150_002);
    assert_eq!(
        stage.take_output(3),
        &[b"<", &file.bytes[10..12]].concat()[..]
    );
    stage.unstall();
    assert_eq!(
        stage.output(),
        &[&file.bytes[12..150_010], b">"].concat()[..]
    );
    assert_eq!(stage.queued(), 0);
    stage.send((199_999, 2));
    assert!(matches!(stage.reason(), Some(CloseReason::Io(_))) && stage.is_reset());
}

#[test]
fn an_adapter_is_given_its_file_back() {
    struct Adapter(Sender);
    impl Actor for Adapter {
        type Message = (u64, u64);
        fn message(&mut self, message: (u64, u64), ctx: &mut Context<'_, Self>) -> Outcome {
            let (outcome, written) = ctx.nested(|ctx| self.0.message(message, ctx));
            for part in written.parts() {
                ctx.write(part);
            }
            outcome
        }
    }
    let file = TestFile::new(1);
    let mut stage = OneActor::new(Adapter(Sender {
        file: file.file.clone(),
        refused: None,
    }));
    stage.send((0, 1));
    assert_eq!(stage.output(), "<>");
    let actor = stage.actor();
    let refused = actor.0.refused.as_ref().expect("it is refused");
    assert!(refused.is_within_adapter() && refused.to_string().starts_with("write_file: inside"));
    drop(actor);
    drop(stage);
}

#[test]
fn where_writes_are_dropped_a_file_too_many_comes_back() {
    let file = TestFile::new(10);
    for policy in [SlowReader::DropNewest, SlowReader::DropOldest] {
        let options = ConnectionOptions::new().output_max(300).slow_reader(policy);
        let sender = Sender {
            file: file.file.clone(),
            refused: None,
        };
        let mut stage = OneActor::with_options(sender, options);
        stage.stall();
        for _ in 0..4 {
            stage.send((0, 10));
        }
        let refused = stage.actor().refused.is_some();
        assert!(refused, "{policy:?}");
        stage.unstall();
        let output = stage.output();
        let whole = [b"<", &file.bytes[..], b">"].concat();
        assert!(output.starts_with(&whole) || policy == SlowReader::DropOldest);
        assert!(stage.reason().is_none());
    }
}

#[test]
fn simulated_files_arrive_whole_or_the_connection_fails() {
    thread_local! {
        static FILE: RefCell<Option<TestFile>> = const { RefCell::new(None) };
    }
    struct Server;
    impl Actor for Server {
        type Message = ();
        fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
            while let Some(line) = input.line(80)? {
                let text = std::str::from_utf8(line)?;
                let (at, len) = text.split_once(' ').ok_or("two numbers")?;
                let file = FILE.with_borrow(|file| file.as_ref().map(|file| file.file.clone()));
                ctx.write(format!("{len}:"));
                ctx.write_file(file.ok_or("no file")?, at.parse()?, len.parse()?)?;
                ctx.write("\n");
            }
            Ok(())
        }
    }
    FILE.set(Some(TestFile::new(300_000)));
    let whole = RefCell::new(0);
    for_each_seed(100, |sim| {
        let is_foul = sim.random().one_in(2);
        let system = sim.system(System::builder().pollers(2));
        sim.faults(if is_foul {
            Faults::all()
        } else {
            Faults::harmless()
        });
        let options = ListenOptions::new().connection(patient());
        system
            .listen_with("127.0.0.1:9000", options, |_| Server)
            .unwrap();
        let client = sim.client("127.0.0.1:9000");
        let (mut expected, mut got) = (Vec::new(), Vec::new());
        for _ in 0..sim.random().range(1..8) {
            let at = sim.random().below(200_000);
            let len = sim.random().below(100_000);
            if client.is_closed() || client.is_reset() {
                break;
            }
            client.send(format!("{at} {len}\n"));
            expected.extend(format!("{len}:").bytes());
            FILE.with_borrow(|file| {
                let bytes = &file.as_ref().unwrap().bytes;
                expected.extend(&bytes[at as usize..(at + len) as usize]);
            });
            expected.push(b'\n');
            match sim.random().below(4) {
                0 => client.stop_reading(),
                1 => client.read_on(),
                _ => {}
            }
            let time = sim.random().duration(Duration::from_secs(1));
            sim.run_for(time);
            got.extend(client.received());
        }
        sim.faults(Faults::none());
        sim.heal();
        client.read_on();
        sim.run_for(Duration::from_secs(500));
        got.extend(client.received());
        assert!(expected.starts_with(&got));
        if got.len() < expected.len() {
            assert!(
                is_foul || !client.is_connected(),
                "{} of {}",
                got.len(),
                expected.len()
            );
        } else {
            *whole.borrow_mut() += 1;
        }
    });
    FILE.take();
    if std::env::var_os("GREENROOM_SEED").is_none() {
        assert!(*whole.borrow() > 30);
    }
}
