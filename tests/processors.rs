//! Where pollers run, and how much they read at once.

mod util;

use std::io::{ErrorKind, Write};
use std::time::Duration;

use greenroom::testing::{Faults, Simulation};
use greenroom::*;
use util::*;

/// The processors that each poller of the system of this name may run on, as the kernel writes them.
fn allowed(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        // One that has just ended cannot be read.
        let read = |file: &str| {
            let path = task.as_ref().unwrap().path();
            std::fs::read_to_string(path.join(file)).unwrap_or_default()
        };
        let comm = read("comm");
        let Some(number) = comm.trim().strip_prefix(name) else {
            continue;
        };
        let status = read("status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        found.push((
            number.to_owned(),
            line.unwrap_or_default().trim().to_owned(),
        ));
    }
    found.sort();
    found.into_iter().map(|(_, allowed)| allowed).collect()
}

/// The processors of this process.
fn processors() -> Vec<String> {
    let name = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let list = name
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut all = Vec::new();
    for part in list.unwrap().trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<usize>().unwrap()..=last.parse().unwrap());
    }
    all.iter().map(ToString::to_string).collect()
}

#[test]
fn pollers_run_where_they_are_pinned() {
    let all = processors();
    let first: usize = all[0].parse().unwrap();
    let system = builder(2).name("pin-one").pin([first]).build().unwrap();
    assert_eq!(allowed("pin-one"), [all[0].clone(), all[0].clone()]);
    drop(system);
    let pollers = all.len() + 1;
    let _system = builder(pollers)
        .name("pin-each")
        .pin_each()
        .build()
        .unwrap();
    let mut expected = all.clone();
    expected.push(all[0].clone());
    assert_eq!(allowed("pin-each"), expected);
    let _free = builder(1).name("pin-none").build().unwrap();
    wait_until("it has its name", || allowed("pin-none").len() == 1);
    let free = allowed("pin-none");
    assert!(all.len() == 1 || free[0] != all[0], "{free:?}");
}

#[test]
fn a_processor_that_is_not_there_is_an_error_and_nothing_is_left_behind() {
    // One that the machine has not, and one that no machine has.
    for processor in [1000, 100_000] {
        let first = processors()[0].parse().unwrap();
        let error = builder(2)
            .name("pin-bad")
            .pin([first, processor])
            .build()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let text = error.to_string();
        assert!(text.contains(&format!("processor {processor}")), "{text}");
        assert!(text.contains("may use"), "{text}");
        wait_until("its threads have ended", || allowed("pin-bad").is_empty());
    }
}

#[test]
#[should_panic(expected = "pin: there must be")]
fn a_list_of_no_processors_is_a_mistake() {
    let _ = System::builder().pin([]);
}

/// How many bytes are shown at once, of a stream that is there as a whole.
fn largest(system: System, len: usize) -> usize {
    let stage = util::listen(&system, "127.0.0.1:0", ListenOptions::new(), |probe| probe);
    let mut client = connect(&stage.0);
    let events = next(&stage.1);
    let writing = std::thread::spawn(move || {
        client.write_all(&pattern(len)).unwrap();
        client
    });
    let (mut shown, mut most) = (Vec::new(), 0);
    while shown.len() < len {
        if let Event::Readable(bytes, _) = next(&events) {
            most = most.max(bytes.len());
            shown.extend(bytes);
        }
    }
    assert_same(&shown, &pattern(len));
    writing.join().unwrap();
    most
}

#[test]
fn a_read_takes_no_more_than_the_buffer() {
    for bytes in [512, 4096] {
        let system = builder(1).read_buffer(bytes).build().unwrap();
        assert_eq!(largest(system, 1_000_000), bytes);
    }
    // Half a MiB waits while the poller is held, and is one read.
    let big = 1 << 20;
    let builder = builder(1).read_buffer(big);
    let stage = Stage::listen(builder, "127.0.0.1:0", ListenOptions::new(), |probe| probe);
    let (mut client, seen) = stage.pair();
    let held = hold(&seen);
    let writer = std::thread::spawn(move || {
        client.write_all(&pattern(100_000)).unwrap();
        client
    });
    let client = writer.join().unwrap();
    wait_until("it has arrived", || unsent(&client) == 0);
    drop(held);
    match seen.next() {
        Event::Readable(shown, _) => assert_same(&shown, &pattern(100_000)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn in_each_turn_each_connection_is_read_from_once() {
    let (shown, order) = std::sync::mpsc::channel();
    let stage = Stage::with(ConnectionOptions::new(), move |probe| {
        let shown = shown.clone();
        probe.on_readable(move |input, _| Ok(shown.send(input.take_all().len())?))
    });
    let (mut flood, held_by) = stage.pair();
    let (mut little, _seen) = stage.pair();
    let held = hold(&held_by);
    flood.write_all(&pattern(100_000)).unwrap();
    little.write_all(b"x").unwrap();
    for client in [&flood, &little] {
        wait_until("it has arrived", || unsent(client) == 0);
    }
    drop(held);
    let first = [next(&order), next(&order)];
    assert!(
        first.contains(&1) && first.contains(&(64 << 10)),
        "{first:?}"
    );
}

/// Bytes that the other kernel has not taken yet.
fn unsent(client: &std::net::TcpStream) -> libc::c_int {
    let mut waits: libc::c_int = 0;
    let fd = std::os::fd::AsRawFd::as_raw_fd(client);
    // SAFETY: the number is writable, and outlives the call.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut waits) };
    assert_eq!(result, 0);
    waits
}

#[test]
fn kept_input_is_in_one_piece_with_what_a_small_buffer_reads() {
    let builder = builder(1).read_buffer(512);
    let stage = Stage::listen(builder, "127.0.0.1:0", ListenOptions::new(), |probe| {
        probe.on_readable(|input, ctx| {
            if let Some(frame) = input.take(50_000) {
                ctx.write(frame);
            }
            Ok(())
        })
    });
    let (mut client, _seen) = stage.pair();
    let bytes = pattern(100_000);
    client.write_all(&bytes).unwrap();
    assert_same(&read(&client, bytes.len()), &bytes);
}

#[test]
fn a_simulated_system_reads_as_much_and_is_pinned_nowhere() {
    struct Sizes(std::sync::mpsc::Sender<usize>);
    impl Actor for Sizes {
        type Message = ();
        fn readable(&mut self, input: &mut Input<'_>, _: &mut Context<'_, Self>) -> Outcome {
            let _ = self.0.send(input.take_all().len());
            Ok(())
        }
    }
    let mut simulation = Simulation::new(1);
    simulation.faults(Faults::none());
    let builder = System::builder()
        .pollers(1)
        .read_buffer(1000)
        .pin([100_000]);
    let system = simulation.system(builder);
    let (sizes, seen) = std::sync::mpsc::channel();
    system
        .listen("127.0.0.1:1", move |_| Sizes(sizes.clone()))
        .unwrap();
    let client = simulation.client("127.0.0.1:1");
    client.send([0; 2500]);
    simulation.run_for(Duration::from_secs(1));
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), [1000, 1000, 500]);
}

#[test]
#[should_panic(expected = "read_buffer: at least 512")]
fn a_buffer_of_next_to_nothing_is_a_mistake() {
    let _ = System::builder().read_buffer(511);
}
