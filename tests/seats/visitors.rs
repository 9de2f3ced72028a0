use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use greenroom::testing::{Faults, Simulation};
use greenroom::*;

use seats::{Clerk, ToClerk};

const ADDR: &str = "127.0.0.1:9000";
const SEATS: usize = 3;
const VISITORS: usize = 20;

/// What the visitors see, all of them together.
#[derive(Default)]
struct Log {
    /// How many visitors sit on each seat.
    seated: BTreeMap<usize, usize>,
    gone: usize,
}

/// A client: takes a seat, stays for a while, gives it back and goes.
struct Visitor {
    stay: Duration,
    seat: Option<usize>,
    log: Rc<RefCell<Log>>,
}

impl Visitor {
    fn stand_up(&mut self) {
        if let Some(seat) = self.seat.take() {
            *self.log.borrow_mut().seated.entry(seat).or_default() -= 1;
        }
    }
}

impl Actor for Visitor {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write("take\n");
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(80)? {
            match str::from_utf8(line)?.strip_prefix("seat ") {
                Some(seat) => {
                    let seat = seat.parse()?;
                    *self.log.borrow_mut().seated.entry(seat).or_default() += 1;
                    self.seat = Some(seat);
                    ctx.set_timer(self.stay);
                }
                // `full` or `thanks`.
                None => ctx.close(),
            }
        }
        Ok(())
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.stand_up();
        ctx.write("give\n");
        Ok(())
    }

    fn closed(&mut self, _reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        self.stand_up();
        self.log.borrow_mut().gone += 1;
    }
}

/// The server, and visitors who come within ten seconds and stay for up to ten.
fn begin(simulation: &mut Simulation) -> (System, Addr<Clerk>, Rc<RefCell<Log>>) {
    let system = simulation.system(System::builder().pollers(2).name("server"));
    let clerk = seats::open(&system, ADDR, SEATS).unwrap();
    let log = Rc::<RefCell<Log>>::default();
    for _ in 0..VISITORS {
        let comes = simulation.random().duration(Duration::from_secs(10));
        let visitor = Visitor {
            stay: simulation.random().duration(Duration::from_secs(10)),
            seat: None,
            log: log.clone(),
        };
        simulation.after(comes, |simulation| simulation.connect(ADDR, visitor));
    }
    (system, clerk, log)
}

fn one_visitor_to_a_seat(simulation: &mut Simulation) {
    simulation.faults(Faults::harmless());
    let (_system, _clerk, log) = begin(simulation);
    simulation.run_until(Duration::from_secs(600), |_| {
        let log = log.borrow();
        let is_fair = log.seated.values().all(|visitors| *visitors <= 1);
        assert!(is_fair, "how many on each seat: {:?}", log.seated);
        log.gone == VISITORS
    });
}
