//! The chat room simulated: the example's own server, on several pollers, and members who come at any
//! time, talk, go to other rooms, rest, and leave in every way there is, as a seed says.
//!
//!     cargo test --test simulated_chat_room
//!     GREENROOM_SEEDS=10000 cargo test --release --test simulated_chat_room
//!
//! What must hold of each moment is in [`ledger`], what must hold of the whole in [`checks`].

#[allow(dead_code, reason = "its main is not run here")]
#[path = "../../examples/chat_room/main.rs"]
mod chat_room;
mod checks;
mod ledger;
mod member;
mod past;
mod returning;
#[path = "../util/weather.rs"]
mod weather;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use greenroom::testing::{Random, Simulation, for_each_seed};
use greenroom::websocket::{Request, WebSocket};
use greenroom::{ConnectionOptions, ListenOptions, System};

use chat_room::Chat;
use chat_room::clock::Clock;
use ledger::{Ledger, Phase};
use member::{Deed, Member, Order, Script};
use weather::{ADDR, LIMIT, Weather, millis, secs};

/// Longer than any patience of the server: who is stuck, or has been lost without a word, is gone.
const QUIET: Duration = Duration::from_secs(120);

/// Where the page is.
const PAGE: &str = "127.0.0.1:8080";

type Shared = Rc<RefCell<Ledger>>;

/// How much there is of everything.
struct Size {
    members: u64,
    deeds: u64,
    rooms: u64,
}

/// A server, its faults, and the members' books.
fn begin(sim: &mut Simulation, weather: Weather) -> (System, Shared) {
    let system = weather::system(sim, weather);
    (system, Rc::new(RefCell::new(Ledger::new(weather))))
}

/// A chat room whose members may say as much as they like.
fn serve(sim: &Simulation, system: &System, limits: ListenOptions) {
    let chat = Chat::new(system, 0, clock(sim));
    let served = chat.listen_for_lines(system, ADDR, limits.clone());
    served.expect("the address is free");
    let served = chat.listen_for_browsers(system, PAGE, limits);
    served.expect("the address is free");
}

/// Each run begins at the same time.
fn clock(sim: &Simulation) -> Clock {
    Clock::new(secs(1_000_000_000), sim.now())
}

/// A member comes, by lines or by the page.
fn connect(sim: &mut Simulation, member: Member) {
    if member.is_by_page() {
        sim.connect(PAGE, WebSocket::client(request(), member));
    } else {
        sim.connect(ADDR, member);
    }
}

/// What a page asks for.
fn request() -> Request {
    let request = Request::new(PAGE, "/ws").expect("an address");
    let origin = format!("http://{PAGE}");
    request.header("Origin", &origin).expect("a header")
}

/// The limits of the example, and at times narrower ones.
fn limits(random: &mut Random) -> ListenOptions {
    let limits = chat_room::limits();
    match random.below(3) {
        0 => limits.send_buffer(4 << 10),
        _ => limits,
    }
}

fn deed(random: &mut Random, rooms: &[String]) -> Deed {
    let len = match random.below(8) {
        0 => 4096,
        1 => random.below(4096) as usize,
        _ => random.below(80) as usize,
    };
    match random.below(32) {
        0..14 => Deed::Say { lines: 1, len },
        14 => {
            let lines = random.range(2..20) as usize;
            Deed::Say { lines, len }
        }
        15 => Deed::SayInHalves { len },
        16..21 => Deed::Go(vec![random.pick(rooms).clone()]),
        21 => Deed::Go(vec![random.pick(rooms).clone(), random.pick(rooms).clone()]),
        22..26 => Deed::Who,
        26 => Deed::Rooms,
        27 => Deed::Help,
        28 => Deed::Rename,
        29 => Deed::Wrong(random.below(5) as usize),
        _ => Deed::Rest(random.duration(secs(10))),
    }
}

/// What ends a connection.
fn farewell(random: &mut Random) -> Deed {
    match random.below(5) {
        0 => Deed::Quit,
        1 => Deed::HalfClose { mid_line: false },
        2 => Deed::HalfClose { mid_line: true },
        3 => Deed::Close,
        _ => Deed::Abort,
    }
}

/// One connection of a member, the `nth` of all.
fn script(random: &mut Random, member: u64, nth: usize, rooms: &[String], size: &Size) -> Script {
    let pace = *random.pick(&[1, 50, 500, 5_000]);
    let count = random.below(size.deeds + 1);
    let mut deeds: VecDeque<_> = (0..count)
        .map(|_| {
            let wait = random.duration(millis(pace));
            (wait, deed(random, rooms))
        })
        .collect();
    match random.below(8) {
        0..3 => deeds.push_back((random.duration(secs(5)), farewell(random))),
        3 => deeds.push_back((random.duration(secs(5)), Deed::Stall)),
        _ => {}
    }
    let is_unique = !random.one_in(4);
    Script {
        // A name may be the one that the member had before.
        name: if is_unique {
            format!("s{nth}-")
        } else {
            format!("m{member}-")
        },
        is_unique,
        is_eager: is_unique && random.one_in(4),
        by_page: random.one_in(3),
        deeds,
    }
}

/// Lets all members come, some of them twice.
fn invite(sim: &mut Simulation, ledger: &Shared, size: &Size) {
    let mut rooms = vec!["lobby".to_owned()];
    rooms.extend((1..size.rooms).map(|n| format!("room{n}")));
    let period = *sim.random().pick(&[10, 1_000, 20_000]);
    for member in 0..size.members {
        let visits = 1 + u64::from(sim.random().one_in(3));
        let mut at = Duration::ZERO;
        for _ in 0..visits {
            at += millis(sim.random().below(period));
            let nth = ledger.borrow().sessions.len();
            let script = script(sim.random(), member, nth, &rooms, size);
            let client = Member::new(ledger, script);
            sim.after(at, move |sim| connect(sim, client));
        }
    }
}

/// Runs until the books say so.
#[track_caller]
fn settle(sim: &mut Simulation, ledger: &Shared, is_done: impl Fn(&Ledger) -> bool) {
    let until = sim.elapsed() + LIMIT;
    while !is_done(&ledger.borrow()) {
        let goes_on = sim.elapsed() < until && sim.step();
        assert!(goes_on, "waits for ever:\n{}", ledger.borrow().unsettled());
    }
}

fn tell(ledger: &Shared, order: impl Fn(usize) -> Order) {
    let sessions = ledger.borrow().sessions.len();
    for id in 0..sessions {
        let addr = ledger.borrow().sessions[id].addr.clone();
        if let Some(addr) = addr {
            // Who has gone has gone.
            let _ = addr.send(order(id));
        }
    }
}

/// Faults have stopped. Everybody comes to rest, hears all the others, and is told of exactly those
/// who are there.
fn finale(sim: &mut Simulation, ledger: &Shared) {
    sim.heal();
    let is_quiet = |ledger: &Ledger| {
        let sessions = &ledger.sessions;
        (0..sessions.len()).all(|id| sessions[id].is_stalled || ledger.is_settled(id))
    };
    settle(sim, ledger, is_quiet);
    // Who does not read is found out by what is said to it.
    tell(ledger, |_| Order::Finale);
    sim.run_for(QUIET);
    tell(ledger, |_| Order::Finale);
    let is_settled = |ledger: &Ledger| {
        (0..ledger.sessions.len()).all(|id| ledger.is_settled(id)) && ledger.everything_is_heard()
    };
    settle(sim, ledger, is_settled);
    tell(ledger, |_| Order::Who);
    sim.run_for(secs(1));
    settle(sim, ledger, is_settled);
    ledger.borrow().check_presence();
}

fn all_have_gone(ledger: &Ledger) -> bool {
    let mut sessions = ledger.sessions.iter();
    sessions.all(|session| matches!(session.phase, Phase::Ended(_)))
}

/// All leave, and nothing of them is left.
fn everybody_leaves(sim: &mut Simulation, ledger: &Shared) {
    // By then the stays are as long as they can be.
    checks::check(&ledger.borrow());
    let survivors = ledger.borrow().survivors();
    for id in survivors {
        let ledger = ledger.clone();
        let after = sim.random().duration(secs(3));
        let deed = farewell(sim.random());
        sim.after(after, move |_| {
            let addr = ledger.borrow().sessions[id].addr.clone();
            let _ = addr.expect("it is there").send(Order::Do(deed));
        });
    }
    settle(sim, ledger, all_have_gone);
    sim.run_for(secs(1));
    // A name that somebody had is free again.
    let last = sim.client(ADDR);
    let name = ledger.borrow().first_name_of_all().to_owned();
    last.send(format!("{name}\n"));
    let arrival = format!("* {name} has joined lobby");
    for line in [ledger::WELCOME, ledger::AGAIN, &arrival] {
        assert_eq!(last.line(sim), line);
    }
    last.send("/who\n/rooms\n");
    assert_eq!(last.line(sim), format!("* 1 in lobby: {name}"));
    assert_eq!(last.line(sim), "* 1 rooms: lobby (1)");
}

/// The server stops in the middle of everything.
fn stop_midway(sim: &mut Simulation, system: &System, ledger: &Shared) {
    let time = sim.random().duration(secs(20));
    sim.run_for(time);
    ledger.borrow_mut().is_stopping = true;
    system.handle().stop(secs(5));
    let time = sim.random().duration(secs(10));
    sim.run_for(time);
}

fn scenario(sim: &mut Simulation, weather: Weather, size: &Size) {
    let (system, ledger) = begin(sim, weather);
    let limits = limits(sim.random());
    serve(sim, &system, limits);
    invite(sim, &ledger, size);
    if sim.random().one_in(4) {
        stop_midway(sim, &system, &ledger);
    } else {
        finale(sim, &ledger);
        everybody_leaves(sim, &ledger);
    }
    sim.finish(secs(60));
    checks::check(&ledger.borrow());
}

#[test]
fn no_seed_breaks_a_promise() {
    for_each_seed(60, |sim| {
        let weather = Weather::draw(sim.random());
        let size = Size {
            members: sim.random().range(2..30),
            deeds: *sim.random().pick(&[3, 10, 25]),
            rooms: sim.random().range(1..5),
        };
        scenario(sim, weather, &size);
    });
}

#[test]
fn hundreds_of_members_keep_the_promises() {
    for_each_seed(1, |sim| {
        let weather = Weather::draw(sim.random());
        let size = Size {
            members: 200,
            deeds: 6,
            rooms: 8,
        };
        scenario(sim, weather, &size);
    });
}

/// A script of a unique name that does this.
fn does(nth: usize, deeds: impl IntoIterator<Item = (Duration, Deed)>) -> Script {
    Script {
        name: format!("s{nth}-"),
        is_unique: true,
        is_eager: false,
        by_page: false,
        deeds: deeds.into_iter().collect(),
    }
}

/// Somebody stops reading, for good, while the others talk.
#[test]
fn a_stuck_reader_harms_nobody() {
    for_each_seed(15, |sim| {
        let (system, ledger) = begin(sim, Weather::Calm);
        let limits = ListenOptions::new()
            .connection(ConnectionOptions::new().output_max(64 << 10))
            .send_buffer(4 << 10);
        serve(sim, &system, limits);
        let talkers = sim.random().range(2..12) as usize;
        // Either he is too slow for so much, or stuck at some bytes.
        let (lines, len) = *sim.random().pick(&[(30, 1000), (10, 1000)]);
        for nth in 0..talkers {
            let wait = (secs(1), Deed::Who);
            let say = (0..lines).map(|_| (millis(5), Deed::Say { lines: 4, len }));
            let script = does(nth, [wait].into_iter().chain(say));
            connect(sim, Member::new(&ledger, script));
        }
        let stall = (millis(500), Deed::Stall);
        connect(sim, Member::new(&ledger, does(talkers, [stall])));
        let gone = |system: &System| {
            let closed = system.stats().closed_by;
            closed["slow reader"] + closed["stuck reader"]
        };
        sim.run_until(secs(60), |_| gone(&system) == 1);
        sim.run_until(secs(10), |_| {
            let ledger = ledger.borrow();
            (0..talkers).all(|id| ledger.is_settled(id)) && ledger.everything_is_heard_by(talkers)
        });
        assert!(
            ledger.borrow().slowest < millis(100),
            "{:?}",
            ledger.borrow().slowest
        );
        // It is not there any more for the others, either; and it finds out when it reads on.
        tell(&ledger, |_| Order::Finale);
        settle(sim, &ledger, |ledger| {
            (0..=talkers).all(|id| ledger.is_settled(id)) && ledger.everything_is_heard()
        });
        assert!(matches!(
            ledger.borrow().sessions[talkers].phase,
            Phase::Ended(_)
        ));
        ledger.borrow().check_presence();
        checks::check(&ledger.borrow());
        ledger.borrow_mut().is_stopping = true;
        sim.finish(secs(60));
    });
}

/// What a room had taken before the stop reaches those who do not read at the moment.
#[test]
fn a_stop_flushes_what_was_accepted() {
    for_each_seed(60, |sim| {
        let weather = *sim.random().pick(&[Weather::Calm, Weather::Harmless]);
        let (system, ledger) = begin(sim, weather);
        let patient = ConnectionOptions::new()
            .stuck_timeout(secs(1000))
            .flush_timeout(secs(1000));
        let limits = ListenOptions::new()
            .connection(patient)
            .send_buffer(4 << 10);
        serve(sim, &system, limits);
        // More than the kernels hold, but where they take a few bytes at a time.
        let len = if weather == Weather::Calm { 1000 } else { 50 };
        let talkers = sim.random().range(1..6) as usize;
        let resting = sim.random().range(1..6) as usize;
        for nth in 0..talkers {
            let wait = (secs(30), Deed::Who);
            let say = (0..5).map(|_| (millis(5), Deed::Say { lines: 5, len }));
            let script = does(
                nth,
                [wait]
                    .into_iter()
                    .chain(say)
                    .chain([(millis(5), Deed::Who)]),
            );
            connect(sim, Member::new(&ledger, script));
        }
        for nth in talkers..talkers + resting {
            let rest = (secs(20), Deed::Rest(secs(200)));
            connect(sim, Member::new(&ledger, does(nth, [rest])));
        }
        settle(sim, &ledger, |ledger| {
            let mut sessions = ledger.sessions.iter();
            (0..talkers).all(|id| ledger.is_settled(id))
                && sessions.all(|session| session.phase == Phase::Here)
        });
        // All pushes have been handed out by then.
        sim.run_for(secs(30));
        ledger.borrow_mut().is_stopping = true;
        system.handle().stop(secs(500));
        settle(sim, &ledger, all_have_gone);
        sim.finish(secs(60));
        let ledger = ledger.borrow();
        checks::check(&ledger);
        for session in &ledger.sessions[talkers..] {
            assert_eq!(session.phase, Phase::Ended("peer closed"));
            let heard = session.heard_of_all();
            assert_eq!(heard, talkers * 25, "lines were lost by the stop");
        }
    });
}

/// Ten seconds' worth at once, then one each second; as many beyond that are refused one by one.
#[test]
fn lines_beyond_the_allowance_are_refused_and_cost_the_place_in_the_end() {
    const SOON: &str = "! that line came too soon after the others and was not sent";
    const WHO: &str = "* 1 in lobby: ann";
    for_each_seed(5, |sim| {
        let system = weather::system(sim, Weather::Calm);
        let chat = Chat::new(&system, 1, clock(sim));
        let served = chat.listen_for_lines(&system, ADDR, chat_room::limits());
        served.expect("the address is free");
        let client = sim.client(ADDR);
        let hears = |sim: &mut Simulation, line, times| {
            for _ in 0..times {
                assert_eq!(client.line(sim), line);
            }
        };
        client.send("ann\n");
        client.send("/who\n".repeat(10));
        for line in [ledger::WELCOME, ledger::AGAIN, "* ann has joined lobby"] {
            hears(sim, line, 1);
        }
        hears(sim, WHO, 9);
        hears(sim, SOON, 1);
        // Nobody is dropped for being a little too fast, however long.
        for _ in 0..30 {
            sim.run_for(secs(1));
            client.send("/who\n/who\n");
            hears(sim, WHO, 1);
            hears(sim, SOON, 1);
        }
        client.send("/who\n".repeat(20));
        hears(sim, SOON, 9);
        hears(sim, "* you have been dropped for sending too many lines", 1);
        sim.finish(secs(60));
    });
}

#[test]
fn the_same_seed_twice_is_the_same_run() {
    let run = |seed| {
        let size = Size {
            members: 12,
            deeds: 10,
            rooms: 3,
        };
        let mut sim = Simulation::new(seed);
        sim.keep_trace(1_000_000);
        scenario(&mut sim, Weather::Deadly, &size);
        sim.trace().to_string()
    };
    for seed in 0..5 {
        let trace = run(seed);
        assert!(trace == run(seed), "seed {seed} had two runs");
        assert!(trace != run(seed + 1), "the seed decides nothing");
    }
}
