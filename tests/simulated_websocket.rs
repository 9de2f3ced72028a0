//! WebSockets under seeds: both ends of ours, on a network that delays, cuts, refuses and loses.
//! What is echoed comes in order and whole, each end is told its end once, and where nothing is lost
//! both know how it ended.
//!
//!     GREENROOM_SEEDS=10000 cargo test --release --test simulated_websocket

#[path = "util/weather.rs"]
mod weather;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use greenroom::protocol::{Control, Frame, FrameActor};
use greenroom::testing::{Random, Simulation, for_each_seed};
use greenroom::websocket::{CloseCode, Error, Options, Refusal, Request, Server, WebSocket};
use greenroom::*;

use weather::{ADDR, LIMIT, Weather, millis, secs, set_faults};

/// How often things came about, so that a scenario in which nothing does is noticed.
#[derive(Default)]
struct Sum {
    echoes: Cell<usize>,
    pongs: Cell<usize>,
    by_client: Cell<usize>,
    by_server: Cell<usize>,
    lost: Cell<usize>,
}

impl Sum {
    fn add(count: &Cell<usize>) {
        count.set(count.get() + 1);
    }
}

/// What the ends of the server's side were.
#[derive(Default)]
struct Ends {
    opened: AtomicUsize,
    closed: AtomicUsize,
    told: AtomicUsize,
}

struct Echo {
    ends: Arc<Ends>,
    told: bool,
}

impl Actor for Echo {
    type Message = ();

    fn opened(&mut self, _ctx: &mut Context<'_, Self>) -> Outcome {
        self.ends.opened.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.resume();
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        self.ends.closed.fetch_add(1, Ordering::Relaxed);
        if let CloseReason::Error(error) = reason {
            let error = error.downcast_ref::<Error>();
            // A stream may end anywhere; nothing else goes wrong between two of us.
            assert_eq!(error, Some(&Error::Incomplete), "{reason}");
        }
    }
}

impl FrameActor for Echo {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(!self.told, "nothing comes behind a close");
        match &*frame {
            b"close" => ctx.close_with(CloseCode::new(4001).unwrap(), "as you wish"),
            _ => drop(ctx.write_frame(frame)?),
        }
        if frame.len() % 5 == 3 {
            ctx.pause();
            ctx.set_timer(millis(frame.len() as u64 % 40));
        }
        Ok(())
    }

    fn control(&mut self, control: Control<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        if let Control::Close { .. } = control {
            assert!(!std::mem::replace(&mut self.told, true), "told once");
            self.ends.told.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What became of a client.
#[derive(Default)]
struct Book {
    opened: bool,
    echoes: usize,
    told: Option<u16>,
    closed: Option<String>,
}

struct Client {
    book: Rc<RefCell<Book>>,
    sum: Rc<Sum>,
    random: Random,
    messages: usize,
    said: usize,
    pings: usize,
    /// Otherwise it asks the server to close.
    closes: bool,
}

/// The message of this number: text or binary, of any length.
fn message(n: usize) -> Vec<u8> {
    let len = [0, 1, 7, 125, 126, 300, 5000, 70_000][n * 7 % 8] + n % 11;
    let mut message = format!("{n}:").into_bytes();
    message.resize(message.len() + len, b'a' + (n % 26) as u8);
    message
}

impl Client {
    fn go_on(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let echoes = self.book.borrow().echoes;
        while self.said < self.messages && self.said < echoes + 5 && !ctx.is_above_high_watermark()
        {
            let payload = message(self.said);
            match self.random.one_in(2) {
                true => ctx.write_frame(String::from_utf8(payload)?)?,
                false => ctx.write_frame(payload)?,
            };
            self.said += 1;
            if self.random.one_in(4) {
                ctx.ping(&self.pings.to_be_bytes());
                self.pings += 1;
            }
        }
        if echoes == self.messages {
            match self.closes {
                true => ctx.close(),
                false => drop(ctx.write_frame("close")?),
            }
        }
        Ok(())
    }
}

impl Actor for Client {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.book.borrow_mut().opened = true;
        self.go_on(ctx)
    }

    fn drained(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.go_on(ctx)
    }

    fn closed(&mut self, reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        let before = self.book.borrow_mut().closed.replace(reason.to_string());
        assert_eq!(before, None, "closed twice");
    }
}

impl FrameActor for Client {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let number = self.book.borrow().echoes;
        assert!(number < self.said, "an echo of nothing");
        assert!(
            *frame == message(number),
            "message {number} came as another"
        );
        self.book.borrow_mut().echoes += 1;
        Sum::add(&self.sum.echoes);
        self.go_on(ctx)
    }

    fn control(&mut self, control: Control<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        match control {
            Control::Pong(payload) => {
                assert!(usize::from_be_bytes(payload.try_into()?) < self.pings);
                Sum::add(&self.sum.pongs);
            }
            Control::Close { code, .. } => {
                let before = self.book.borrow_mut().told.replace(code.unwrap_or(0));
                assert_eq!(before, None, "told twice");
            }
            _ => {}
        }
        Ok(())
    }
}

fn scenario(sim: &mut Simulation, sum: &Rc<Sum>) {
    let weather = Weather::draw(sim.random());
    let system = sim.system(System::builder().pollers(2));
    let draw_options = |random: &mut Random| {
        // Where nothing is lost, nobody is given up who is only slow.
        let options = Options::new().handshake_timeout(LIMIT);
        options.fragment(*random.pick(&[1000, 4096, usize::MAX]))
    };
    let ends = Arc::new(Ends::default());
    let of = ends.clone();
    let server = Server::new(move |upgrade| match upgrade.path() {
        "/nobody" => Err(Refusal::new(404)),
        _ => Ok(Echo {
            ends: of.clone(),
            told: false,
        }),
    });
    let server = server.options(draw_options(sim.random()));
    let connection = ConnectionOptions::new()
        .incomplete_timeout(LIMIT)
        .stuck_timeout(LIMIT);
    let listen = ListenOptions::new().connection(connection.clone());
    let listened = system.listen_with(ADDR, listen, move |_peer| server.accept());
    let _listener = listened.unwrap();
    set_faults(sim, weather);

    let clients = sim.random().range(1..6) as usize;
    let books: Vec<_> = (0..clients)
        .map(|n| {
            let book = Rc::new(RefCell::new(Book::default()));
            let client = Client {
                book: book.clone(),
                sum: sum.clone(),
                random: sim.random().split(),
                messages: sim.random().below(20) as usize,
                said: 0,
                pings: 0,
                closes: n % 2 == 0,
            };
            let closes = client.closes;
            let messages = client.messages;
            let request = Request::new("test", "/chat").unwrap();
            let client = WebSocket::client(request, client);
            let client = client.with_options(draw_options(sim.random()));
            let connect = ConnectOptions::new().connection(connection.clone());
            sim.connect_with(ADDR, connect.timeout(LIMIT), client);
            (book, closes, messages)
        })
        .collect();
    sim.run_until(LIMIT, |_| {
        books
            .iter()
            .all(|(book, ..)| book.borrow().closed.is_some())
    });
    for (book, closes, messages) in &books {
        let book = book.borrow();
        let end = book.closed.as_deref().unwrap();
        match (end, closes) {
            // Then both ends know it: all was echoed.
            ("finished", true) => {
                assert_eq!((book.echoes, book.told), (*messages, None));
                Sum::add(&sum.by_client);
            }
            ("closed by the peer", _) if book.told.is_some() => {
                assert_eq!((book.echoes, book.told), (*messages, Some(4001)));
                assert!(!closes);
                Sum::add(&sum.by_server);
            }
            _ => {
                assert!(weather.is_rough(), "{end}");
                Sum::add(&sum.lost);
            }
        }
    }
    // The server is still to hear of it.
    sim.run_for(secs(60));
    sim.finish(secs(60));
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    assert_eq!(count(&ends.opened), count(&ends.closed));
    let by_client = books.iter().filter(|(_, closes, _)| *closes).count();
    assert!(count(&ends.told) <= by_client);
    if !weather.is_rough() {
        assert_eq!(count(&ends.told), by_client);
    }
}

#[test]
fn what_is_echoed_is_whole_and_each_end_is_told_once() {
    let sum = Rc::new(Sum::default());
    for_each_seed(80, |sim| scenario(sim, &sum));
    if std::env::var_os("GREENROOM_SEED").is_none() {
        let Sum {
            echoes,
            pongs,
            by_client,
            by_server,
            lost,
        } = &*sum;
        let counts = [echoes, pongs, by_client, by_server, lost].map(Cell::get);
        assert!(
            counts[0] > 1000 && counts[1] > 200 && counts[2..].iter().all(|count| *count > 10),
            "{counts:?}"
        );
    }
}
