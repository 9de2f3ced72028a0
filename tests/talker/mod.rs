//! An actor with a datagram socket that the tests steer.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};

use greenroom::*;

use crate::util::{builder, next};

/// What happened to a [`Talker`].
#[derive(Debug)]
pub enum Event {
    Opened,
    Datagram(Heard),
    Failed(DatagramFailure),
    Drained,
    Closed(String),
}

/// A datagram as it was shown.
#[derive(Debug, PartialEq)]
pub struct Heard {
    pub bytes: Vec<u8>,
    pub from: DatagramAddr,
    pub local: DatagramAddr,
    pub sent_len: usize,
    pub is_truncated: bool,
    pub poller: usize,
    pub interface: Option<u32>,
}

pub type Job = Box<dyn FnOnce(&mut Context<'_, Talker>) -> Outcome + Send>;
pub type OnDatagram = Box<dyn FnMut(&Datagram<'_>, &mut Context<'_, Talker>) -> Outcome>;

/// Reports what happens to it, does what it is sent, and, unless it is told otherwise, sends back
/// what it gets.
pub struct Talker {
    events: Sender<Event>,
    on_datagram: OnDatagram,
}

impl Talker {
    pub fn new(events: &Sender<Event>) -> Talker {
        Talker::with(events, |datagram, ctx| {
            assert!(ctx.reply(datagram, datagram.bytes()), "there is room");
            Ok(())
        })
    }

    pub fn with(
        events: &Sender<Event>,
        on_datagram: impl FnMut(&Datagram<'_>, &mut Context<'_, Talker>) -> Outcome + 'static,
    ) -> Talker {
        Talker {
            events: events.clone(),
            on_datagram: Box::new(on_datagram),
        }
    }

    fn note(&self, event: Event) {
        // A test that has seen enough drops its end.
        let _ = self.events.send(event);
    }
}

impl Actor for Talker {
    type Message = Job;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(ctx.has_socket() && ctx.datagram_addr().is_some());
        assert_eq!(ctx.peer(), None);
        self.note(Event::Opened);
        Ok(())
    }

    fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        self.note(Event::Datagram(Heard {
            bytes: datagram.bytes().to_vec(),
            from: datagram.from().clone(),
            local: datagram.local(),
            sent_len: datagram.sent_len(),
            is_truncated: datagram.is_truncated(),
            poller: ctx.poller(),
            interface: datagram.interface(),
        }));
        (self.on_datagram)(&datagram, ctx)
    }

    fn datagram_failed(&mut self, failure: DatagramFailure, _: &mut Context<'_, Self>) -> Outcome {
        self.note(Event::Failed(failure));
        Ok(())
    }

    fn message(&mut self, job: Job, ctx: &mut Context<'_, Self>) -> Outcome {
        job(ctx)
    }

    fn drained(&mut self, _: &mut Context<'_, Self>) -> Outcome {
        self.note(Event::Drained);
        Ok(())
    }

    fn closed(&mut self, reason: &CloseReason, _: &mut Context<'_, Self>) {
        self.note(Event::Closed(format!("{}: {reason}", reason.name())));
    }
}

/// A system with one socket per poller, whose actors are [`Talker`]s.
pub struct Server {
    pub system: System,
    pub sockets: DatagramSockets<Talker>,
    pub events: Receiver<Event>,
}

impl Server {
    pub fn new(addr: &str) -> Server {
        Server::with(addr, DatagramOptions::new(), 1)
    }

    pub fn with(addr: &str, options: DatagramOptions, pollers: usize) -> Server {
        Server::of(addr, options, pollers, Talker::new)
    }

    pub fn of(
        addr: &str,
        options: DatagramOptions,
        pollers: usize,
        make: impl Fn(&Sender<Event>) -> Talker + Send + Sync + 'static,
    ) -> Server {
        let system = builder(pollers).build().unwrap();
        let (sender, events) = channel();
        let make = move || make(&sender);
        let sockets = system.bind_datagram_with(addr, options, make).unwrap();
        for _ in sockets.addrs() {
            assert!(matches!(next(&events), Event::Opened));
        }
        Server {
            system,
            sockets,
            events,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.sockets.local_addr().udp().expect("a UDP address")
    }

    pub fn port(&self) -> u16 {
        self.addr().port()
    }

    /// Has the first actor do something.
    #[track_caller]
    pub fn tell(&self, job: impl FnOnce(&mut Context<'_, Talker>) -> Outcome + Send + 'static) {
        self.sockets.addrs()[0]
            .send(Box::new(job))
            .expect("it takes a message");
    }

    #[track_caller]
    pub fn heard(&self) -> Heard {
        match next(&self.events) {
            Event::Datagram(heard) => heard,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn failed(&self) -> DatagramFailure {
        match next(&self.events) {
            Event::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }
}
