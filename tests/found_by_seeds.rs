//! What simulated runs found, in the framework and in the simulation itself: one test for each,
//! named after what was seen.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use greenroom::testing::{Fault, Faults, Simulation, for_each_seed};
use greenroom::*;

// ---- waiting for one's own mailbox --------------------------------------------------------------

/// What a [`Courier`] is told.
enum Order {
    /// Who the others are.
    Meet(Vec<Addr<Courier>>),
    /// Wait for the mailbox that all couriers share, then send twice to each of the others.
    Fill,
    /// Hand this on to the other one.
    HandOn,
    /// Here it is.
    Parcel,
}

/// One parcel out for one order in; an order that is refused waits.
struct Courier {
    others: Vec<Addr<Courier>>,
    fills: bool,
    handed_on: u32,
    parcels: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

impl Courier {
    fn hand_on(&mut self, ctx: &mut Context<'_, Self>) {
        match self.others[0].send(Order::Parcel) {
            Ok(()) => self.handed_on += 1,
            Err(_) => ctx.wait_for_room(&self.others[0]),
        }
    }
}

impl Actor for Courier {
    type Message = Order;

    fn message(&mut self, order: Order, ctx: &mut Context<'_, Self>) -> Outcome {
        match order {
            Order::Meet(others) => self.others = others,
            Order::Fill => {
                self.fills = true;
                ctx.wait_for_room(&ctx.addr());
            }
            Order::HandOn => self.hand_on(ctx),
            Order::Parcel => {
                use std::sync::atomic::Ordering;
                self.parcels.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.fills {
            for to in &self.others {
                assert!(to.send(Order::HandOn).is_ok() && to.send(Order::HandOn).is_ok());
            }
            self.fills = false;
        } else {
            self.hand_on(ctx);
        }
        Ok(())
    }
}

/// Four orders stand in a mailbox for two, which is as far as it may be filled from within: whoever
/// waits for it then has to be told when that has passed. What had been set aside for those who
/// waited kept the mailbox half full, and so they were never told.
#[test]
fn who_waits_for_its_own_mailbox_at_its_fullest_is_told_when_it_is_not() {
    for_each_seed(20, |sim| {
        let system = sim.system(System::builder().pollers(1).mailbox_bound(2));
        let parcels = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let spawn = || {
            let parcels = parcels.clone();
            system.spawn(move || Courier {
                others: Vec::new(),
                fills: false,
                handed_on: 0,
                parcels,
            })
        };
        let (first, second, third) = (spawn(), spawn(), spawn());
        let meet = |one: &Addr<Courier>, others: &[&Addr<Courier>]| {
            let others = others.iter().map(|other| (*other).clone()).collect();
            assert!(one.send(Order::Meet(others)).is_ok());
        };
        meet(&first, &[&second, &third]);
        sim.run_for(Duration::from_millis(1));
        meet(&second, &[&third]);
        sim.run_for(Duration::from_millis(1));
        meet(&third, &[&second]);
        sim.run_for(Duration::from_millis(1));
        assert!(first.send(Order::Fill).is_ok());
        sim.run_for(Duration::from_secs(1));
        assert_eq!(parcels.load(std::sync::atomic::Ordering::Relaxed), 4);
    });
}

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
