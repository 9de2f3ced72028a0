//! Members whose connections break, at any byte, and who come back to where they were: whatever they
//! missed is told to them, once and in order, or counted where the room does not keep it any more.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use greenroom::protocol::{Frame, FrameActor};
use greenroom::testing::{Simulation, for_each_seed};
use greenroom::websocket::WebSocket;
use greenroom::{Actor, CloseReason, Context, Outcome, TimerKey};
use serde_json::Value;

use crate::chat_room::history::LINES_MAX;
use crate::weather::{self, LIMIT, Weather, millis, secs};
use crate::{PAGE, chat_room, request, serve};

/// What one member has seen, over all of its connections.
#[derive(Default)]
struct Book {
    epoch: String,
    /// The last line that it knows of, be it heard or missed.
    last: u64,
    heard: BTreeMap<u64, String>,
    connections: usize,
    /// In the room, on its last connection.
    is_back: bool,
}

type Books = Rc<RefCell<Vec<Book>>>;

/// Which of them have a connection, or are about to.
type Connected = Rc<RefCell<Vec<bool>>>;

/// One connection of a member.
struct Returning {
    id: usize,
    books: Books,
    connected: Connected,
    /// Lines to say, one at each tick, before the connection is broken, unless it is the last one.
    lines: usize,
    pace: Duration,
    is_last: bool,
    tries: usize,
}

impl Returning {
    fn come_in(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let books = self.books.borrow();
        let book = &books[self.id];
        let since = match book.epoch.as_str() {
            "" => "0".into(),
            epoch => format!("{epoch}.{}", book.last),
        };
        ctx.write_frame(format!("/join lobby {since}"))?;
        drop(books);
        self.name(ctx)
    }

    fn name(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.tries += 1;
        let connections = self.books.borrow()[self.id].connections;
        ctx.write_frame(format!("/nick m{}-{connections}-{}", self.id, self.tries))?;
        Ok(())
    }

    fn entered(&mut self, event: &Value) {
        let mut books = self.books.borrow_mut();
        let book = &mut books[self.id];
        let number = |field: &str| event[field].as_u64().expect("a number");
        let (last, lines, missed) = (number("last"), number("lines"), number("missed"));
        let epoch = event["epoch"].as_str().expect("a text");
        let is_first = book.epoch.is_empty();
        if is_first {
            epoch.clone_into(&mut book.epoch);
            // What the room does not keep from before its first visit is nothing that it missed.
            book.last = last - lines;
        }
        assert_eq!(book.epoch, epoch, "the lobby stays");
        assert_eq!(event["restarted"], false);
        assert_eq!(book.last + missed + lines, last, "{event}");
        assert!(missed == 0 || lines == LINES_MAX as u64, "{event}");
        book.last += missed;
        book.is_back = self.is_last;
    }

    fn line(&mut self, event: &Value) {
        let mut books = self.books.borrow_mut();
        let book = &mut books[self.id];
        let id = event["id"].as_u64().expect("a number");
        assert_eq!(id, book.last + 1, "lost or twice: {event}");
        book.last = id;
        let text = format!("{}: {}", event["from"], event["text"]);
        assert!(book.heard.insert(id, text).is_none());
    }
}

impl Actor for Returning {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.books.borrow_mut()[self.id].connections += 1;
        ctx.set_interval(self.pace);
        self.come_in(ctx)
    }

    fn timer(&mut self, _key: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.lines > 0 {
            self.lines -= 1;
            ctx.write_frame(format!("line {} of {}", self.lines, self.id))?;
        } else if !self.is_last {
            ctx.abort();
        }
        Ok(())
    }

    fn closed(&mut self, _reason: &CloseReason, _ctx: &mut Context<'_, Self>) {
        self.books.borrow_mut()[self.id].is_back = false;
        self.connected.borrow_mut()[self.id] = false;
    }
}

impl FrameActor for Returning {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let event: Value = serde_json::from_slice(&frame)?;
        match event["type"].as_str().expect("each has one") {
            "entered" => self.entered(&event),
            "line" => self.line(&event),
            "refused" if event["what"] == "name" => self.name(ctx)?,
            "refused" => panic!("{event}"),
            _ => {}
        }
        Ok(())
    }
}

/// Connects each member that is not connected, some now and some later.
fn connect_again(sim: &mut Simulation, books: &Books, connected: &Connected, is_last: bool) {
    let members = books.borrow().len();
    for id in 0..members {
        if connected.borrow()[id] || !is_last && sim.random().one_in(2) {
            continue;
        }
        connected.borrow_mut()[id] = true;
        let lines = *sim.random().pick(&[0, 1, 10, 100]);
        let member = Returning {
            id,
            books: books.clone(),
            connected: connected.clone(),
            lines: if is_last { 1 } else { lines },
            pace: millis(sim.random().range(1..200)),
            is_last,
            tries: 0,
        };
        sim.connect(PAGE, WebSocket::client(request(), member));
    }
}

#[test]
fn nobody_loses_a_line_or_is_told_it_twice_over_reconnects() {
    for_each_seed(40, |sim| {
        let weather = Weather::draw(sim.random());
        let system = weather::system(sim, weather);
        serve(sim, &system, chat_room::limits());

        let members = sim.random().range(2..8) as usize;
        let books = Books::default();
        books.borrow_mut().resize_with(members, Book::default);
        let connected: Connected = Rc::new(RefCell::new(vec![false; members]));
        for _ in 0..sim.random().range(1..15) {
            connect_again(sim, &books, &connected, false);
            let time = sim.random().duration(secs(10));
            sim.run_for(time);
        }
        // Faults have stopped: all come back for good, say a last line, and hear the others'.
        sim.heal();
        let until = sim.elapsed() + LIMIT;
        while !books.borrow().iter().all(|book| book.is_back) {
            assert!(sim.elapsed() < until, "somebody cannot come back");
            connect_again(sim, &books, &connected, true);
            sim.run_for(secs(1));
        }
        sim.run_for(secs(120));

        check(&books.borrow());
        sim.finish(secs(60));
    });
}

/// One order for all, in which everybody has come to the same line, and has said one.
fn check(books: &[Book]) {
    let last = books[0].last;
    let mut all = BTreeMap::new();
    for book in books {
        assert_eq!(book.last, last, "all have come to the same line");
        for (id, text) in &book.heard {
            let heard = all.entry(*id).or_insert(text);
            assert_eq!(*heard, text, "line {id}");
        }
    }
    for id in 0..books.len() {
        let said = format!("\"m{id}-");
        assert!(all.values().any(|line| line.starts_with(&said)), "{id}");
    }
}
