//! One run: a system with listeners, hubs and kids, its clients, a time in which all of them do as
//! the seed says, a time of rest, the stop.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use greenroom::testing::{Client, Faults, Simulation, note};
use greenroom::{AtLimit, Balance, ConnectionOptions, ListenOptions, Listener, SlowReader, System};

use crate::checks;
use crate::people::{Connection, Hub, Kid, Letter, Mail, Visitor, answer_of};
use crate::record::{
    self, Answer, ClientReport, Contact, Event, Habits, Kind, Record, TEST, below, log, one_in,
};

/// What is told to clients past a listener's limit.
pub const FAREWELL: &[u8] = b"full, come again\n";

/// Turns and moves of the clock after which a run would never end.
const STEPS_MAX: u64 = 500_000;

/// The numbers of clients that come at the last moment begin here.
const LATE: usize = 1000;

/// As many connects as a poller takes from one listener in a turn.
const ACCEPTS_PER_TURN: u64 = 64;

/// How long a poller has to take a letter when nothing else happens. The simulation lets no time
/// pass in a turn.
const SOON: Duration = Duration::from_millis(100);

/// What the seed says of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub pollers: usize,
    pub mailbox_bound: usize,
    pub output_budget: usize,
    pub listeners: Vec<ListenerPlan>,
    pub clients: usize,
    pub weather: Weather,
    pub habits: Habits,
    /// It stops in the midst of it all.
    pub stops_early: bool,
    pub within: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Calm,
    Harmless,
    Foul,
}

#[derive(Clone, Debug)]
pub struct ListenerPlan {
    pub endpoint: String,
    pub max: usize,
    pub refuses: bool,
    pub balance: Balance,
    pub input_max: usize,
    pub output_max: usize,
    pub slow: SlowReader,
    pub idle: Option<Duration>,
    /// How fast a frame has to come, and output to be taken.
    pub least_rate: Option<usize>,
    pub flush: Duration,
}

impl ListenerPlan {
    pub fn is_unix(&self) -> bool {
        self.endpoint.starts_with("unix:")
    }
}

impl Plan {
    fn draw() -> Plan {
        let pollers = 1 + below(3) as usize;
        let listeners = (0..1 + below(3)).map(ListenerPlan::draw).collect();
        let rarely = |n| if one_in(2) { n } else { 0 };
        let mailbox_bound = [2, 3, 8, 40, 4096][below(5) as usize];
        let weather = match below(4) {
            0 => Weather::Calm,
            1 => Weather::Foul,
            _ => Weather::Harmless,
        };
        // Where a kernel's buffer holds a few bytes, many take many turns.
        let large = match weather {
            Weather::Calm => [100, 5000, 100_000],
            _ => [100, 2000, 15_000],
        };
        Plan {
            pollers,
            mailbox_bound,
            output_budget: if one_in(4) { 6_000 } else { 1 << 30 },
            listeners,
            clients: 2 + below(12) as usize,
            weather,
            habits: Habits {
                panic: rarely(20 + below(60)),
                close: rarely(20 + below(40)),
                abort: rarely(20 + below(80)),
                fail: rarely(20 + below(60)),
                shut: rarely(20 + below(40)),
                spawn: rarely(10),
                pause: rarely(10),
                ask: rarely(6),
                push: rarely(3),
                letters: 1 + below(3),
                timers: rarely(4),
                writes: 1 + below(4),
                large: large[below(3) as usize],
                couriers: one_in(2),
            },
            stops_early: one_in(3),
            within: Duration::from_millis([5, 500, 20_000, 20_000][below(4) as usize]),
        }
    }
}

impl ListenerPlan {
    fn draw(number: u64) -> ListenerPlan {
        let is_unix = one_in(4);
        ListenerPlan {
            endpoint: if is_unix {
                format!("unix:/run/promises-{number}.sock")
            } else {
                format!("10.0.0.1:{}", 9000 + number)
            },
            max: if one_in(2) {
                1 + below(4) as usize
            } else {
                usize::MAX
            },
            refuses: one_in(2),
            balance: match below(4) {
                0 => Balance::LeastConnections,
                1 if !is_unix => Balance::PerPoller,
                2 => Balance::SourceHash,
                _ => Balance::RoundRobin,
            },
            input_max: [500, 20_000, 1 << 20][below(3) as usize],
            output_max: [2000, 100_000, 4 << 20][below(3) as usize],
            slow: match below(4) {
                0 => SlowReader::DropNewest,
                1 => SlowReader::PauseSource,
                _ => SlowReader::Close,
            },
            idle: one_in(6).then_some(Duration::from_secs(40)),
            least_rate: one_in(4).then_some(100_000),
            flush: Duration::from_secs(if one_in(3) { 8 } else { 60 }),
        }
    }

    fn options(&self) -> ListenOptions {
        let mut connection = ConnectionOptions::new()
            .input_max(self.input_max)
            .output_max(self.output_max)
            .watermarks(self.output_max / 8, self.output_max / 2)
            .slow_reader(self.slow)
            .stuck_timeout(Duration::from_secs(20))
            .idle_timeout(self.idle)
            .incomplete_timeout(Duration::from_secs(30))
            .flush_timeout(self.flush);
        if let Some(bytes) = self.least_rate {
            // Longer than anybody holds still before all come to rest.
            let over = Duration::from_secs(10);
            connection = connection
                .least_input_rate(bytes, over)
                .least_output_rate(bytes, over);
        }
        let at_limit = if self.refuses {
            AtLimit::Refuse(FAREWELL.into())
        } else {
            AtLimit::Wait
        };
        ListenOptions::new()
            .connection(connection)
            .max_connections(self.max)
            .at_limit(at_limit)
            .balance(self.balance)
    }
}

/// A client by hand, and what it has done.
struct Guest {
    number: usize,
    listener: usize,
    client: Client,
    /// What it has to do yet.
    deeds: u64,
    /// It sends at most so much at once.
    large: u64,
    sent: Vec<u8>,
    received: Vec<u8>,
    reads: bool,
    half_closed: bool,
    has_reset: bool,
    was_open_at_rest: bool,
}

type Guests = Rc<RefCell<Vec<Guest>>>;

impl Guest {
    fn new(number: usize, listener: usize, client: Client) -> Guest {
        Guest {
            number,
            listener,
            client,
            deeds: below(12),
            large: 2 * record::habits().large,
            sent: Vec::new(),
            received: Vec::new(),
            reads: true,
            half_closed: false,
            has_reset: false,
            was_open_at_rest: false,
        }
    }

    fn look(&mut self) {
        let received = self.client.received();
        self.received.extend_from_slice(&received);
    }

    fn send(&mut self, len: usize) {
        let bytes = if self.sent.is_empty() {
            (self.number as u32).to_le_bytes().to_vec()
        } else {
            record::bytes(len)
        };
        self.client.send(&bytes);
        self.sent.extend(bytes);
    }

    /// Does something; whether it wants to go on.
    fn act(&mut self) -> bool {
        self.look();
        if self.client.is_closed() || self.client.is_refused() || self.has_reset {
            return false;
        }
        if !self.client.is_connected() {
            return true;
        }
        if self.deeds == 0 {
            if !self.half_closed && !self.sent.is_empty() && !one_in(3) {
                self.half_closed = true;
                self.client.half_close();
            }
            return false;
        }
        self.deeds -= 1;
        match below(20) {
            0 if self.reads => {
                self.reads = false;
                self.client.stop_reading();
            }
            1..4 if !self.reads => {
                self.reads = true;
                self.client.read_on();
            }
            4 if one_in(6) => {
                self.has_reset = true;
                self.client.reset();
            }
            _ => self.send(record::length(self.large)),
        }
        true
    }

    /// Reads on if it has not; or reads nothing any more of what it asks for.
    fn settle(&mut self) {
        let is_open = self.client.is_connected() && !self.client.is_closed();
        if is_open && !self.half_closed && !self.has_reset && one_in(6) {
            self.reads = false;
            self.client.stop_reading();
            self.send(0);
            self.send(150_000);
        } else if !self.reads && !self.has_reset {
            self.reads = true;
            self.client.read_on();
        }
    }

    fn report(&self, foul: bool) -> ClientReport {
        ClientReport {
            number: self.number,
            listener: self.listener,
            sent: self.sent.clone(),
            received: self.received.clone(),
            is_connected: self.client.is_connected(),
            is_closed: self.client.is_closed(),
            was_reset: self.client.is_reset(),
            is_unlucky: self.has_reset || foul,
            half_closed: self.half_closed,
            reads: self.reads,
            was_open_at_rest: self.was_open_at_rest,
        }
    }
}

/// Runs what the seed of `sim` says. A panic that is not contained is part of the record.
pub fn run(sim: &mut Simulation) -> (Plan, Record) {
    record::begin(sim.seed(), sim.now(), Habits::NONE, 60);
    let plan = Plan::draw();
    let limits = plan.listeners.iter().map(|listener| listener.input_max);
    record::adopt(plan.habits, limits.collect());
    sim.allow_panics();
    note(format_args!("{plan:?}"));
    let guests = Guests::default();
    let builder = System::builder()
        .pollers(plan.pollers)
        .mailbox_bound(plan.mailbox_bound)
        .output_budget(plan.output_budget)
        .name("server");
    let system = sim.system(builder);
    let handle = system.handle();
    let ran = catch_unwind(AssertUnwindSafe(|| drive(sim, &plan, &system, &guests)));
    record::calm_down();
    let stats = handle.stats();
    let crash = ran.err().map(|panic| text_of(&*panic));
    let foul = plan.weather == Weather::Foul;
    let mut guests = guests.borrow_mut();
    let clients = guests.iter_mut().map(|guest| {
        guest.look();
        guest.report(foul)
    });
    let clients = clients.chain(record::take_visits(foul)).collect();
    let (events, streams) = record::take();
    // It takes more time than the run.
    let is_read = sim.seed().is_multiple_of(2);
    let record = Record {
        events,
        streams,
        clients,
        stats,
        client_stats: sim.client_stats(),
        crash,
        trace: is_read.then(|| sim.trace().to_string()),
    };
    drop(system);
    record::forget_contacts();
    (plan, record)
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without a text".to_owned())
}

/// Runs for some time; in vain where it would never end.
fn run_for(sim: &mut Simulation, time: Duration, done: impl Fn() -> bool) {
    let until = sim.elapsed() + time;
    // So that there is something to stop at.
    sim.after(time, |_| ());
    for _ in 0..STEPS_MAX {
        if sim.elapsed() >= until || done() {
            record::at(sim.now());
            return;
        }
        if !sim.step() {
            break;
        }
    }
    assert!(
        sim.elapsed() >= until,
        "{}: {time:?} do not pass",
        checks::ENDLESS
    );
    record::at(sim.now());
}

fn drive(sim: &mut Simulation, plan: &Plan, system: &System, guests: &Guests) {
    let faults = match plan.weather {
        Weather::Calm => Faults::none(),
        Weather::Harmless => Faults::harmless(),
        Weather::Foul => Faults::all(),
    };
    for poller in 0..plan.pollers {
        for _ in 0..1 + below(2) {
            let id = record::next_id();
            let hub = system.spawn_on(poller, move || Hub::new(id, None, Some(poller)));
            record::meet(contact(id, Kind::Hub, hub.recipient()));
            record::meet_hub(id, hub);
        }
        spawn_kid(system, poller);
    }
    let listeners: Vec<Listener> = (0..plan.listeners.len())
        .map(|number| listen(system, plan, number))
        .collect();
    sim.faults(faults);
    for number in 0..plan.clients {
        let (plan, guests) = (plan.clone(), guests.clone());
        let delay = Duration::from_millis(below(1500));
        sim.after(delay, move |sim| arrive(sim, number, &plan, &guests));
    }
    for _ in 0..below(30) {
        let delay = Duration::from_millis(below(2000));
        let pollers = system.handle();
        sim.after(delay, move |sim| {
            record::at(sim.now());
            outside(&pollers);
        });
    }
    for (number, listener) in listeners.iter().enumerate() {
        if one_in(6) {
            let (listener, guests, plan) = (listener.clone(), guests.clone(), plan.clone());
            sim.after(Duration::from_millis(below(2500)), move |sim| {
                record::at(sim.now());
                come_at_last(sim, &plan, &guests, Some(number));
                log(Event::ListenerCloses { listener: number });
                listener.close();
            });
        }
    }
    let rests = Rc::new(Cell::new(false));
    for listener in &listeners {
        // Some are paused when the system stops, or they close.
        for _ in 0..below(3) {
            let (listener, pauses, rests) = (listener.clone(), one_in(2), rests.clone());
            sim.after(Duration::from_millis(below(2500)), move |_| {
                if pauses && !rests.get() {
                    listener.pause();
                } else {
                    listener.resume();
                }
            });
        }
    }
    run_for(sim, Duration::from_millis(500 + below(2500)), || false);
    if !plan.stops_early {
        rests.set(true);
        listeners.iter().for_each(Listener::resume);
        rest(sim, plan, system, guests);
    }
    stop(sim, plan, system, guests);
}

fn contact(id: usize, kind: Kind, to: greenroom::Recipient<Mail>) -> Contact {
    Contact { id, kind, to }
}

fn spawn_kid(system: &System, poller: usize) {
    let id = record::next_id();
    let kid = system.spawn_on(poller, move || Kid::new(id, None, Some(poller)));
    record::meet(contact(id, Kind::Kid, kid.recipient()));
}

fn listen(system: &System, plan: &Plan, number: usize) -> Listener {
    let ListenerPlan { endpoint, .. } = &plan.listeners[number];
    let make = move |_| Connection::new(record::next_id(), Some(number), None);
    system
        .listen_with(endpoint.as_str(), plan.listeners[number].options(), make)
        .unwrap_or_else(|error| panic!("listen on {endpoint}: {error}"))
}

/// A client comes.
fn arrive(sim: &mut Simulation, number: usize, plan: &Plan, guests: &Guests) {
    record::at(sim.now());
    let listener = below(plan.listeners.len() as u64) as usize;
    if one_in(5) {
        let visitor = Visitor::new(number, listener);
        sim.connect(plan.listeners[listener].endpoint.as_str(), visitor);
        return;
    }
    let client = sim.client(plan.listeners[listener].endpoint.as_str());
    let place = guests.borrow().len();
    let guest = Guest::new(number, listener, client);
    guests.borrow_mut().push(guest);
    tick(sim, guests.clone(), place);
}

fn tick(sim: &mut Simulation, guests: Guests, place: usize) {
    record::at(sim.now());
    record::allow(4);
    let goes_on = guests.borrow_mut()[place].act();
    if goes_on && !record::is_calm() {
        let delay = Duration::from_micros(below(200_000));
        sim.after(delay, move |sim| tick(sim, guests, place));
    }
}

/// What another thread might do.
fn outside(handle: &greenroom::Handle) {
    record::allow(10);
    if one_in(4) {
        let poller = below(handle.pollers() as u64) as usize;
        let id = record::next_id();
        let kid = handle.spawn_on(poller, move || Kid::new(id, None, Some(poller)));
        record::meet(contact(id, Kind::Kid, kid.recipient()));
    }
    let flooded = if one_in(4) { record::anybody() } else { None };
    for _ in 0..below(if flooded.is_some() { 100 } else { 20 }) {
        if let Some(to) = flooded.clone().or_else(record::anybody) {
            send(&to);
            if one_in(30) && to.kind != Kind::Hub {
                to.to.close();
            }
        }
    }
}

/// Returns the letter's number if it was accepted.
fn send(to: &Contact) -> Option<u64> {
    let letter = Letter::new(TEST, to.id);
    let number = letter.number;
    let answer = answer_of(&to.to.send(Mail::Letter(letter)));
    log(Event::Sent {
        letter: number,
        from: TEST,
        to: to.id,
        place: (to.kind, to.to.poller()),
        answer,
    });
    (answer == Answer::Accepted).then_some(number)
}

/// Some come in the moment in which it closes; now and then more than one turn accepts, so that
/// they wait in the backlog.
fn come_at_last(sim: &mut Simulation, plan: &Plan, guests: &Guests, listener: Option<usize>) {
    if one_in(5) {
        let limits = plan.listeners.iter();
        let unlimited = limits
            .clone()
            .position(|listener| listener.max == usize::MAX);
        let Some(listener) = listener.or(unlimited) else {
            return;
        };
        for _ in 0..ACCEPTS_PER_TURN + 5 + below(20) {
            let client = sim.client(plan.listeners[listener].endpoint.as_str());
            let number = LATE + record::next_id();
            guests
                .borrow_mut()
                .push(Guest::new(number, listener, client));
        }
    } else if one_in(2) {
        for _ in 0..1 + below(5) {
            let number = LATE + record::next_id();
            arrive(sim, number, plan, guests);
        }
    }
}

/// All come to rest; then those who sleep are to be woken.
fn rest(sim: &mut Simulation, plan: &Plan, system: &System, guests: &Guests) {
    sim.heal();
    record::calm_down();
    log(Event::Quiet);
    for guest in guests.borrow_mut().iter_mut() {
        guest.settle();
    }
    // What is under way arrives. No timeout has helped anybody by then.
    run_for(sim, Duration::from_secs(4), || false);
    look_at_streams(guests);
    // Longer than a linger, a stuck reader and an incomplete frame have.
    run_for(sim, Duration::from_secs(120), || false);
    log(Event::AtRest);
    look_at_streams(guests);
    log(Event::Kept {
        buffers: sim.idle_buffers(),
    });
    wake(sim, plan, system);
}

/// What was written, and what has come of it.
fn look_at_streams(guests: &Guests) {
    let mut at_rest = Vec::new();
    for guest in guests.borrow_mut().iter_mut() {
        guest.look();
        guest.was_open_at_rest = guest.client.is_connected() && !guest.client.is_closed();
        if guest.was_open_at_rest {
            at_rest.push((guest.number, guest.received.len()));
        }
    }
    for (id, written, client) in record::streams() {
        if let Some((_, received)) = at_rest.iter().find(|(number, _)| Some(*number) == client) {
            log(Event::StreamAtRest {
                id,
                written,
                received: *received,
            });
        }
    }
}

/// Who sleeps is to be woken, once.
fn wake(sim: &mut Simulation, plan: &Plan, system: &System) {
    for poller in 0..plan.pollers {
        let mut there = record::contacts();
        there.retain(|contact| contact.to.poller() == poller && !contact.to.is_gone());
        let before = system.stats().wakes;
        let kinds = [Kind::Hub, Kind::Kid, Kind::Connection];
        let letters = kinds
            .iter()
            .filter_map(|kind| there.iter().rfind(|contact| contact.kind == *kind))
            .filter_map(send)
            .collect();
        log(Event::Woken {
            poller,
            letters,
            wakes: system.stats().wakes - before,
        });
        run_for(sim, SOON, || false);
        log(Event::WokenBefore);
    }
}

fn stop(sim: &mut Simulation, plan: &Plan, system: &System, guests: &Guests) {
    let deadline = sim.elapsed() + plan.within;
    come_at_last(sim, plan, guests, None);
    log(Event::Stop { deadline });
    system.handle().stop(plan.within);
    run_for(sim, plan.within / 2, || false);
    record::calm_down();
    if plan.stops_early {
        sim.heal();
    }
    // The stop has reached every poller, whatever held it up.
    run_for(sim, Duration::from_secs(1), || false);
    let late = sim.client(plan.listeners[0].endpoint.as_str());
    run_for(sim, plan.within / 2 + Duration::from_secs(60), || false);
    if late.is_connected() {
        log(Event::ServedAfterStop);
    }
    for guest in guests.borrow_mut().iter_mut() {
        guest.look();
    }
    sim.finish(Duration::from_secs(60));
    log(Event::Ended);
}
