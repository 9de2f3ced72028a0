//! The simulation itself: what it promises to those who test by it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use greenroom::testing::{Fault, Faults, Simulation, for_each_seed, note};
use greenroom::*;

const ADDR: &str = "127.0.0.1:9000";

/// Sends back what it is sent.
struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

/// Sends so many bytes, and notes what comes back and how it ended.
struct Asker {
    bytes: Vec<u8>,
    log: Rc<RefCell<Log>>,
}

#[derive(Default)]
struct Log {
    echoed: Vec<Vec<u8>>,
    refused: usize,
    lost: usize,
}

impl Actor for Asker {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(&self.bytes[..]);
        ctx.shutdown_write();
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        if input.at_end() {
            self.log.borrow_mut().echoed.push(input.take_all().to_vec());
        }
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        note(format_args!("an asker has ended: {reason}"));
        match reason {
            CloseReason::PeerClosed | CloseReason::Finished => {}
            CloseReason::Io(_) => self.log.borrow_mut().refused += 1,
            _ => self.log.borrow_mut().lost += 1,
        }
    }
}

fn server(simulation: &mut Simulation, pollers: usize) -> System {
    let system = simulation.system(System::builder().pollers(pollers).name("server"));
    system.listen(ADDR, |_peer| Echo).unwrap();
    system
}

fn ask(simulation: &mut Simulation, bytes: Vec<u8>, log: &Rc<RefCell<Log>>) {
    let log = log.clone();
    simulation.connect(ADDR, Asker { bytes, log });
}

#[test]
fn a_client_talks_to_a_server() {
    let mut simulation = Simulation::new(1);
    let system = server(&mut simulation, 2);
    let client = simulation.client(ADDR);
    client.send("hello\nand ");
    assert_eq!(client.line(&mut simulation), "hello");
    client.send("more\n");
    assert_eq!(client.line(&mut simulation), "and more");
    assert_eq!(system.stats().connections, 1);
    drop(client);
    simulation.run_until(Duration::from_secs(1), |_| system.stats().connections == 0);
    simulation.finish(Duration::from_secs(1));
}

#[test]
fn harmless_faults_are_not_seen_by_clients() {
    for_each_seed(200, |simulation| {
        simulation.faults(Faults::harmless());
        let _system = server(simulation, 3);
        let log = Rc::new(RefCell::new(Log::default()));
        let clients = simulation.random().range(1..20);
        for client in 0..clients {
            let len = simulation.random().range(1..3000);
            let bytes = (0..len).map(|at| (client + at) as u8).collect();
            ask(simulation, bytes, &log);
        }
        let seen = log.clone();
        simulation.run_until(Duration::from_secs(3600), move |_| {
            let log = seen.borrow();
            log.echoed.len() + log.refused == clients as usize
        });
        assert_eq!(log.borrow().lost, 0);
    });
}

#[test]
fn whatever_goes_wrong_everything_ends() {
    for_each_seed(200, |simulation| {
        simulation.faults(Faults::all());
        let system = server(simulation, 2);
        let log = Rc::new(RefCell::new(Log::default()));
        for at in 0..20 {
            let log = log.clone();
            let len = simulation.random().below(30_000) as usize;
            let delay = simulation.random().duration(Duration::from_secs(100));
            simulation.after(delay, move |simulation| {
                ask(simulation, vec![at; len], &log);
            });
        }
        simulation.run_for(Duration::from_secs(200));
        simulation.finish(Duration::from_secs(10));
        let stats = system.stats();
        assert_eq!(stats.opened, stats.closed);
    });
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut simulation = Simulation::new(seed);
        simulation.faults(Faults::all().without(Fault::Refuse));
        simulation.keep_trace(usize::MAX);
        let _system = server(&mut simulation, 3);
        let log = Rc::new(RefCell::new(Log::default()));
        for _ in 0..30 {
            let len = simulation.random().below(1000) as usize;
            ask(&mut simulation, vec![b'x'; len], &log);
        }
        simulation.run_for(Duration::from_secs(20));
        simulation.finish(Duration::from_secs(1));
        simulation.trace().to_string()
    };
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed));
        assert_ne!(run(seed), run(seed + 1));
    }
}

#[test]
#[ignore = "a measurement"]
fn steps_per_second() {
    let mut simulation = Simulation::new(1);
    simulation.faults(Faults::harmless());
    let _system = server(&mut simulation, 3);
    let log = Rc::new(RefCell::new(Log::default()));
    for _ in 0..100 {
        ask(&mut simulation, vec![b'x'; 30_000], &log);
    }
    let start = std::time::Instant::now();
    let mut steps = 0;
    while simulation.step() {
        steps += 1;
    }
    println!(
        "{steps} steps, {:?}, {}",
        start.elapsed() / steps,
        simulation.rates()
    );
}
