//! What waits for a socket, as other threads see it, and as its poller's budget bounds it.

mod util;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::testing::{Faults, Simulation, for_each_seed};
use greenroom::*;
use util::*;

/// What the kernel takes for a client that does not read, on both sides, stays below this many
/// bytes.
const MORE_THAN_THE_KERNEL_TAKES: usize = 12 << 20;

fn patient() -> ConnectionOptions {
    ConnectionOptions::new()
        .output_max(4 * MORE_THAN_THE_KERNEL_TAKES)
        .stuck_timeout(Duration::from_secs(600))
}

fn small(options: ConnectionOptions) -> ListenOptions {
    ListenOptions::new().connection(options).send_buffer(4096)
}

#[test]
fn what_waits_is_seen_from_any_thread_and_falls_as_the_peer_takes_it() {
    let stage = Stage::with(patient(), |probe| probe);
    let client = connect_small(&stage.listener, 16 << 10);
    let seen = stage.accepted();
    assert_eq!(seen.addr.queued(), Some(0));
    seen.run(|ctx| ctx.write("at once"));
    read(&client, 7);
    assert_eq!(
        seen.addr.queued(),
        Some(0),
        "what is taken at once never waits"
    );

    seen.run(|ctx| ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES)));
    settle(&stage.system);
    let told = seen.run(|ctx| ctx.queued());
    assert!(told > 0);
    assert_eq!(seen.addr.queued(), Some(told));
    let recipient = seen.addr.recipient::<Job>();
    assert_eq!(recipient.queued(), Some(told));
    assert_eq!(stage.system.stats().output_waiting, told as u64);
    seen.run(|ctx| ctx.write([0; 1000]));
    settle(&stage.system);
    assert_eq!(seen.addr.queued(), Some(told + 1000), "more counts at once");

    let addr = seen.addr.clone();
    let is_done = Arc::new(AtomicBool::new(false));
    let done = is_done.clone();
    let watcher = std::thread::spawn(move || {
        let mut last = usize::MAX;
        loop {
            // Before the last look: this thread may wait for a processor between the two.
            let is_last = done.load(Ordering::Acquire);
            let now = addr.queued().unwrap_or(0);
            assert!(now <= last, "{last}, then {now}, and nothing was written");
            last = now;
            if is_last {
                return last;
            }
        }
    });
    read(&client, MORE_THAN_THE_KERNEL_TAKES + 1000);
    wait_until("nothing waits", || seen.addr.queued() == Some(0));
    is_done.store(true, Ordering::Release);
    assert_eq!(watcher.join().unwrap(), 0);
    assert_eq!(stage.system.stats().output_waiting, 0);

    drop(client);
    wait_until("it has gone", || seen.addr.queued().is_none());
    let spawned = spawn(&stage.system, 0, |probe| probe);
    assert_eq!(spawned.addr.queued(), Some(0), "no socket");
}

#[test]
fn what_waits_is_told_to_the_end_of_a_close_and_not_of_who_comes_next() {
    let stage = Stage::with(patient(), |probe| probe);
    for round in 0..6 {
        let client = connect_small(&stage.listener, 16 << 10);
        let seen = stage.accepted();
        assert_eq!(seen.addr.queued(), Some(0), "round {round}");
        seen.tell(|ctx| {
            ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES));
            ctx.close();
            Ok(())
        });
        wait_until("it waits, closing", || {
            seen.addr.queued().is_some_and(|queued| queued > 0)
        });
        if round % 2 == 0 {
            reset(client);
        } else {
            assert_eq!(read_to_end(client).len(), MORE_THAN_THE_KERNEL_TAKES);
        }
        seen.closed();
        wait_until("it has gone", || {
            seen.addr.queued().is_none() && stage.is_over()
        });
        assert_eq!(stage.system.stats().output_waiting, 0);
    }
}

#[test]
fn past_the_budget_of_a_poller_those_with_the_most_pay_and_no_small_one() {
    let budget = 16 << 20;
    let stage = Stage::listen(
        builder(1).output_budget(budget),
        "127.0.0.1:0",
        small(patient()),
        |probe| probe,
    );
    let connections: Vec<_> = (0..12)
        .map(|_| (connect_small(&stage.listener, 4096), stage.accepted()))
        .collect();
    let (hogs, modest) = connections.split_at(6);
    let mut highest = 0;
    let piece = 256 << 10;
    for round in 0..20 {
        for (n, (_, seen)) in connections.iter().enumerate() {
            // The last of them takes a tenth of what the others do.
            let len = if n < 6 { piece } else { piece / 10 };
            let write = move |ctx: &mut Context<'_, Probe>| {
                ctx.write(pattern(len));
                Ok(())
            };
            let sent = seen.addr.send(Box::new(write));
            assert!(sent.is_ok() || n < 6, "round {round}: {n} has gone");
            settle(&stage.system);
            highest = highest.max(stage.system.stats().output_waiting);
        }
    }
    assert!(highest <= budget as u64, "{highest} bytes waited");
    let gone = stage.system.stats().closed_by["output budget"];
    assert!((1..6).contains(&gone), "{gone} of the hogs have paid");
    let mut ends = 0;
    for (_, seen) in hogs {
        if seen.addr.is_gone() {
            let reason = seen.closed();
            let CloseReason::OutputBudget { queued, limit } = reason else {
                panic!("{reason:?}")
            };
            assert!(limit == budget && queued > budget / 12, "{queued} bytes");
            assert!(reason.to_string().starts_with("output budget: "));
            ends += 1;
        }
    }
    assert_eq!(ends, gone);
    for (client, seen) in modest {
        assert_same(
            &read(client, 20 * (piece / 10)),
            &pattern(piece / 10).repeat(20),
        );
        assert!(!seen.addr.is_gone());
    }
}

#[test]
fn a_budget_of_nothing_ends_whoever_does_not_take_all_at_once() {
    let stage = Stage::listen(
        builder(1).output_budget(0),
        "127.0.0.1:0",
        ListenOptions::new().connection(patient()),
        |probe| probe,
    );
    let (client, seen) = stage.pair();
    for _ in 0..100 {
        seen.run(|ctx| ctx.write("taken at once"));
        read(&client, 13);
    }
    seen.run(|ctx| ctx.write(pattern(MORE_THAN_THE_KERNEL_TAKES)));
    assert!(matches!(
        seen.closed(),
        CloseReason::OutputBudget { limit: 0, .. }
    ));
    wait_until("nothing waits", || {
        stage.is_over() && stage.system.stats().output_waiting == 0
    });
}

#[test]
fn simulated_pollers_count_what_waits_and_keep_their_budget() {
    struct Flood(Arc<Mutex<Vec<Addr<Flood>>>>);
    impl Actor for Flood {
        type Message = ();
        fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
            self.0.lock().unwrap().push(ctx.addr());
            Ok(())
        }
        fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
            for _ in input.take_all() {
                ctx.write([b'x'; 1000]);
            }
            Ok(())
        }
    }
    for_each_seed(100, |sim| {
        let budget = sim.random().range(100_000..1_000_000) as usize;
        let system = sim.system(System::builder().pollers(1).output_budget(budget));
        // On a slow path a client may be one of those with the most.
        let is_calm = sim.random().one_in(2);
        if !is_calm {
            sim.faults(Faults::harmless());
        }
        let options = ListenOptions::new().connection(patient());
        let addrs = Arc::<Mutex<Vec<Addr<Flood>>>>::default();
        let here = addrs.clone();
        system
            .listen_with("127.0.0.1:9000", options, move |_| Flood(here.clone()))
            .unwrap();
        let clients: Vec<_> = (0..10).map(|_| sim.client("127.0.0.1:9000")).collect();
        for client in &clients[1..] {
            client.stop_reading();
        }
        let mut asked = 0;
        for _ in 0..300 {
            let n = sim.random().below(clients.len() as u64) as usize;
            let len = sim.random().range(1..20) as usize;
            if clients[n].is_connected() && !clients[n].is_closed() && !clients[n].is_reset() {
                clients[n].send(vec![b'.'; len]);
                asked += if n == 0 { len } else { 0 };
            }
            sim.run_for(Duration::from_millis(1));
            let waiting = system.stats().output_waiting;
            assert!(waiting <= budget as u64, "{waiting} of {budget}");
            let addrs = addrs.lock().unwrap();
            let of_all: usize = addrs.iter().filter_map(Addr::queued).sum();
            assert_eq!(of_all as u64, waiting);
        }
        sim.heal();
        sim.faults(Faults::none());
        sim.run_for(Duration::from_secs(1000));
        if is_calm {
            assert_eq!(clients[0].received().len(), 1000 * asked, "it takes all");
        }
        drop(clients);
        sim.run_for(Duration::from_secs(1000));
        assert_eq!(system.stats().output_waiting, 0);
        assert!(
            addrs
                .lock()
                .unwrap()
                .iter()
                .all(|addr| addr.queued().is_none())
        );
    });
}

#[test]
fn what_is_written_just_before_a_close_counts_against_the_budget() {
    struct Last;
    impl Actor for Last {
        type Message = ();
        /// Fills what is between it and its peer with the first byte, and closes behind more with
        /// the second.
        fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
            match input.take_all() {
                b"1" => {
                    ctx.write([b'x'; 200_000]);
                }
                _ => {
                    ctx.write([b'x'; 400_000]);
                    ctx.close();
                }
            }
            Ok(())
        }
    }
    let mut sim = Simulation::new(1);
    let budget = 1_000_000;
    let system = sim.system(System::builder().pollers(1).output_budget(budget));
    let options = ListenOptions::new().connection(patient());
    system
        .listen_with("127.0.0.1:9000", options, |_| Last)
        .unwrap();
    let clients: Vec<_> = (0..6).map(|_| sim.client("127.0.0.1:9000")).collect();
    for bytes in ["1", "2"] {
        for client in &clients {
            client.stop_reading();
            client.send(bytes);
        }
        sim.run_for(Duration::from_secs(1));
    }
    let stats = system.stats();
    let waiting = stats.output_waiting;
    assert!(waiting > 400_000 && waiting <= budget as u64, "{waiting}");
    assert!(stats.closed_by["output budget"] > 0);
}
