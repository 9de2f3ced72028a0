//! What simulated runs found, in the framework and in the simulation itself: one test for each,
//! named after what was seen.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use greenroom::testing::{Fault, Faults, Simulation, for_each_seed};
use greenroom::*;

// ---- the network of the simulation --------------------------------------------------------------

/// Keeps what comes. All on the thread of the test.
struct Sink;

thread_local! {
    static SUNK: Rc<RefCell<Vec<u8>>> = Rc::default();
}

impl Actor for Sink {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        SUNK.with(|sunk| sunk.borrow_mut().extend_from_slice(input.take_all()));
        Ok(())
    }
}

/// Has a client send in pieces to a [`Sink`], with these faults; returns what was sent and what came.
fn send_with(sim: &mut Simulation, faults: Faults) -> (Vec<u8>, Vec<u8>) {
    SUNK.with(|sunk| sunk.borrow_mut().clear());
    let system = sim.system(System::builder().pollers(1));
    system.listen("10.0.0.1:9000", |_| Sink).unwrap();
    sim.run_for(Duration::from_millis(1));
    sim.faults(faults);
    let client = sim.client("10.0.0.1:9000");
    let mut sent = Vec::new();
    for _ in 0..200 {
        let piece: Vec<u8> = (0..40).map(|_| sim.random().below(256) as u8).collect();
        client.send(&piece);
        sent.extend(piece);
        sim.run_for(Duration::from_millis(1));
    }
    sim.run_for(Duration::from_secs(200));
    let came = SUNK.with(|sunk| sunk.borrow().clone());
    (sent, came)
}

/// The first piece of a send that was split was the last that the client lived to send, and the
/// pieces behind it arrived all the same.
#[test]
fn nothing_comes_of_a_client_behind_where_it_died() {
    for_each_seed(100, |sim| {
        let faults = Faults::none().with(Fault::Die).with(Fault::Split);
        let (sent, came) = send_with(sim, faults);
        assert!(sent.starts_with(&came), "{} bytes came", came.len());
    });
}

/// A send for which the kernel had no memory was dropped, and the next one was not.
#[test]
fn a_client_loses_nothing_for_want_of_memory() {
    for_each_seed(100, |sim| {
        let (sent, came) = send_with(sim, Faults::none().with(Fault::NoMemory));
        assert!(sent.starts_with(&came), "{} bytes came", came.len());
    });
}
