//! `notify_written` under seeds: exactly once, in order, and never before the peer could have got
//! the bytes, however they are cut, delayed, refused or lost.
//!
//!     GREENROOM_SEEDS=10000 cargo test --release --test simulated_written

#[path = "util/weather.rs"]
mod weather;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use greenroom::testing::{Client, Faults, Simulation, for_each_seed};
use greenroom::*;

use weather::{ADDR, LIMIT, Weather, millis, secs};

/// What a simulated kernel holds for one direction, twice over: on its way, and arrived.
const KERNEL_MAX: usize = 128 << 10;

/// What is written, again and again: of a length that no two neighbouring pieces share.
static PATTERN: [u8; 65_521] = {
    let mut pattern = [0; 65_521];
    let mut at = 0;
    while at < pattern.len() {
        pattern[at] = (at % 251) as u8;
        at += 1;
    }
    pattern
};

/// One connection, as its actor sees it.
#[derive(Default)]
struct Book {
    /// Of each notice, how many bytes had been written when it was asked for.
    asked: Vec<usize>,
    told: Vec<u64>,
    written: Vec<u8>,
    /// The peer, and what it has got.
    client: Option<Rc<Client>>,
    got: Vec<u8>,
    is_closed: Option<&'static str>,
}

type Shared = Rc<RefCell<Book>>;

struct Writer {
    book: Shared,
    writes_left: usize,
}

thread_local! {
    static NEXT: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

impl Writer {
    /// Writes something and asks for some notices, as long as there is something left to write.
    fn go_on(&mut self, ctx: &mut Context<'_, Self>) {
        if self.writes_left == 0 {
            ctx.close();
            return;
        }
        self.writes_left -= 1;
        let mut book = self.book.borrow_mut();
        let n = self.writes_left;
        for len in [n * 7919 % 3000, n * 104_729 % 20_000] {
            let at = book.written.len() % PATTERN.len();
            let bytes = &PATTERN[at..][..len.min(PATTERN.len() - at)];
            ctx.write(bytes);
            book.written.extend_from_slice(bytes);
            for _ in 0..n % 3 {
                let place = book.written.len();
                assert!(ctx.notify_written(book.asked.len() as u64));
                book.asked.push(place);
            }
        }
        if !ctx.is_above_high_watermark() {
            ctx.set_timer(millis(n as u64 % 50));
        }
    }
}

impl Actor for Writer {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.set_timer(Duration::ZERO);
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        input.take_all();
        self.go_on(ctx);
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        self.go_on(ctx);
        Ok(())
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.go_on(ctx);
        Ok(())
    }

    fn written(&mut self, token: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        let mut book = self.book.borrow_mut();
        book.take();
        assert_eq!(token, book.told.len() as u64, "out of order, or twice");
        assert!(book.is_closed.is_none());
        book.told.push(token);
        let place = book.asked[token as usize];
        let left = book.written.len() - ctx.queued();
        assert!(place <= left, "notice {token} for {place} bytes at {left}");
        let got = book.got.len();
        assert!(
            place <= got + KERNEL_MAX,
            "notice {token} for {place} bytes, {got} have come"
        );
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        let mut book = self.book.borrow_mut();
        assert!(book.is_closed.replace(reason.name()).is_none());
        if matches!(reason, CloseReason::Finished) {
            assert_eq!(book.told.len(), book.asked.len(), "not told before the end");
        }
    }
}

impl Book {
    /// The peer takes what has come: it is what was written.
    fn take(&mut self) {
        let Some(client) = &self.client else { return };
        let more = client.received();
        let at = self.got.len();
        assert_eq!(self.written.get(at..at + more.len()), Some(&more[..]));
        self.got.extend(more);
    }
}

fn run(sim: &mut Simulation) -> (usize, bool) {
    let weather = Weather::draw(sim.random());
    let system = weather::system(sim, weather);
    let book = Shared::default();
    let writes_left = sim.random().range(1..60) as usize;
    let (low, high) = *sim.random().pick(&[(16 << 10, 64 << 10), (100, 1000)]);
    let options = ConnectionOptions::new().watermarks(low, high);
    let listen = ListenOptions::new().connection(options);
    // The factory is `Send`, the book is not; all of a simulation is on one thread.
    NEXT.set(Some(book.clone()));
    let make = move |_| Writer {
        book: NEXT.with_borrow(|book| book.clone().expect("set before the listen")),
        writes_left,
    };
    system.listen_with(ADDR, listen, make).unwrap();
    let client = Rc::new(sim.client(ADDR));
    book.borrow_mut().client = Some(client.clone());
    for _ in 0..500 {
        if client.is_closed() || client.is_reset() {
            break;
        }
        let act = sim.random().below(200);
        match act {
            0 => client.stop_reading(),
            1..=20 => client.read_on(),
            21 => client.send("more"),
            22 if weather.is_rough() && sim.random().one_in(20) => client.reset(),
            _ => {}
        }
        let time = sim.random().duration(millis(20));
        sim.run_for(time);
        book.borrow_mut().take();
    }
    client.read_on();
    sim.faults(Faults::none());
    sim.heal();
    sim.run_until(LIMIT, |_| {
        let mut book = book.borrow_mut();
        book.take();
        book.is_closed.is_some() || !client.is_connected() || system.stats().opened == 0
    });
    sim.run_for(secs(1));
    let mut book = book.borrow_mut();
    book.take();
    // It is the client's last one: what is left of the connection goes with it.
    book.client = None;
    let is_whole = book.is_closed == Some("finished");
    if is_whole && !client.is_reset() {
        assert_eq!(book.got.len(), book.written.len());
    }
    (book.told.len(), is_whole)
}

#[test]
fn each_notice_is_told_once_in_order_and_not_before_the_peer_could_have_the_bytes() {
    let (told, whole, runs) = (RefCell::new(0), RefCell::new(0), RefCell::new(0));
    for_each_seed(300, |sim| {
        let (n, is_whole) = run(sim);
        *told.borrow_mut() += n;
        *whole.borrow_mut() += usize::from(is_whole);
        *runs.borrow_mut() += 1;
        sim.finish(secs(60));
    });
    let (told, whole, runs) = (told.into_inner(), whole.into_inner(), runs.into_inner());
    if runs >= 300 {
        assert!(
            told > 5 * runs && whole > runs / 4 && whole < runs,
            "{told} told, {whole} whole"
        );
    }
}
