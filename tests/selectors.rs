//! The choice of what pollers wait in: by the program, by the environment, and what is refused.
//!
//! That the choice changes nothing else is shown by the whole suite: `GREENROOM_SELECTOR=poll cargo
//! test`. With `RUSTFLAGS="--cfg greenroom_kqueue_double" GREENROOM_SELECTOR=kqueue` it runs over the
//! kqueue selector, on its double of the kernel's side.

mod util;

use std::io::{ErrorKind, Write};

use greenroom::*;
use util::*;

const KINDS: &[SelectorKind] = &[
    SelectorKind::Epoll,
    #[cfg(greenroom_kqueue_double)]
    SelectorKind::Kqueue,
    SelectorKind::Poll,
];

/// More than the kernel takes for a client that does not read.
const MUCH: usize = 8 << 20;

fn stage(kind: SelectorKind) -> Stage {
    let options = ConnectionOptions::new().output_max(2 * MUCH);
    Stage::listen(
        builder(2).selector(kind),
        "127.0.0.1:0",
        ListenOptions::new().connection(options),
        |probe| probe,
    )
}

#[test]
fn bytes_go_both_ways() {
    for kind in KINDS {
        let stage = stage(*kind);
        let (mut client, probe) = stage.pair();
        client.write_all(b"ping").unwrap();
        assert_eq!(probe.read(4), b"ping");
        // A message wakes the poller that sleeps by now.
        probe.run(|ctx| ctx.write(b"pong"));
        assert_eq!(read(&client, 4), b"pong");
    }
}

#[test]
fn what_the_kernel_refuses_goes_out_when_there_is_room() {
    for kind in KINDS {
        let stage = stage(*kind);
        let (client, probe) = stage.pair();
        let bytes = pattern(MUCH);
        let sent = bytes.clone();
        probe.run(move |ctx| ctx.write(&sent));
        assert_same(&read(&client, MUCH), &bytes);
        probe.until(|event| matches!(event, Event::Drained).then_some(()));
    }
}

#[test]
fn a_paused_connection_is_read_again() {
    for kind in KINDS {
        let stage = stage(*kind);
        let (mut client, probe) = stage.pair();
        for round in 0..3 {
            probe.run(|ctx| ctx.pause());
            settle(&stage.system);
            client.write_all(&[round]).unwrap();
            settle(&stage.system);
            assert!(probe.events.try_recv().is_err(), "read while it was paused");
            probe.run(|ctx| ctx.resume());
            assert_eq!(probe.read(1), [round]);
        }
    }
}

#[test]
fn ends_are_told_apart() {
    for kind in KINDS {
        let stage = stage(*kind);
        let (mut client, probe) = stage.pair();
        client.write_all(b"last words").unwrap();
        half_close(&client);
        assert_eq!(probe.read(10), b"last words");
        probe.until(|event| matches!(event, Event::ReadClosed).then_some(()));
        assert!(matches!(
            probe.closed(),
            CloseReason::PeerClosed | CloseReason::Finished
        ));
        assert_eq!(read_to_end(&client), b"");

        let (client, probe) = stage.pair();
        reset(client);
        assert!(matches!(probe.closed(), CloseReason::Reset));
        wait_until("all is over", || stage.is_over());
    }
}

#[test]
fn of_many_connections_all_are_served() {
    for kind in KINDS {
        let stage = stage(*kind);
        let pairs: Vec<_> = (0..100).map(|_| stage.pair()).collect();
        for round in 0..10_u8 {
            for (client, _) in &pairs {
                let mut client = client;
                client.write_all(&[round]).unwrap();
            }
            for (_, probe) in &pairs {
                assert_eq!(probe.read(1), [round]);
            }
        }
    }
}

/// How many descriptors of the process are epoll instances.
fn epolls() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").expect("/proc is there");
    links
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|to| to.to_string_lossy().contains("eventpoll"))
        .count()
}

#[test]
fn the_environment_replaces_the_default_and_not_a_choice() {
    in_child(
        "the_environment_replaces_the_default_and_not_a_choice",
        256,
        || {
            let build = |named: Option<&str>, chosen: Option<SelectorKind>| {
                // SAFETY: this process has no other thread that looks at the environment: its
                // systems are joined.
                unsafe {
                    match named {
                        Some(name) => std::env::set_var("GREENROOM_SELECTOR", name),
                        None => std::env::remove_var("GREENROOM_SELECTOR"),
                    }
                }
                let builder = builder(2);
                match chosen {
                    Some(kind) => builder.selector(kind).build(),
                    None => builder.build(),
                }
            };
            let epolls_of = |named, chosen| {
                let _system = build(named, chosen).expect("the system starts");
                epolls()
            };
            let (epoll, poll) = (Some(SelectorKind::Epoll), Some(SelectorKind::Poll));
            assert_eq!(epolls_of(None, None), 2);
            assert_eq!(epolls_of(None, poll), 0);
            assert_eq!(epolls_of(Some("poll"), None), 0);
            assert_eq!(epolls_of(Some("epoll"), None), 2);
            assert_eq!(epolls_of(Some("poll"), epoll), 2);

            let error = build(Some("pool"), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(text.contains("GREENROOM_SELECTOR=pool"), "{text}");
            assert!(text.contains("epoll, kqueue, poll"), "{text}");
            // Nobody asks the environment when the program has chosen.
            assert_eq!(epolls_of(Some("pool"), poll), 0);
        },
    );
}

#[test]
#[cfg(not(greenroom_kqueue_double))]
fn what_the_platform_lacks_is_refused() {
    let error = builder(1).selector(SelectorKind::Kqueue).build();
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("kqueue"), "{error}");
}

#[test]
fn a_simulation_is_the_same_whatever_is_chosen() {
    use greenroom::testing::Simulation;
    for kind in [
        SelectorKind::Epoll,
        SelectorKind::Kqueue,
        SelectorKind::Poll,
    ] {
        let mut simulation = Simulation::new(1);
        let system = simulation.system(System::builder().selector(kind));
        assert_eq!(system.handle().pollers(), 2);
    }
}
