//! What a kernel would and would not do, at the level of its calls.

use std::io::{self, IoSlice};
use std::time::Duration;

use super::network::{CLIENT, Fate, Network, Number, Process, SERVER};
use super::random::Random;
use crate::sys::{BindOptions, Endpoint, Interest, SocketOptions};

fn address() -> Endpoint {
    "127.0.0.1:9000".parse().unwrap()
}

fn listen() -> Number {
    let options = BindOptions {
        backlog: 16,
        group: None,
        socket: SocketOptions::new(),
        simulated: Some(Process::NONE),
    };
    Number::listen(&address(), &options, Process::NONE).unwrap()
}

/// A connection on a network of its own, both ends in the test's hands, each piece taking its time.
fn connected(delay_us: u32) -> [Number; 2] {
    Network::begin(Random::new(1));
    let listener = listen();
    let client = Network::with(|network| network.connect(&address(), Process::NONE));
    pass(Duration::ZERO);
    let (server, _peer) = listener.accept().unwrap();
    Network::with(|network| network.connections[0].delay_us = delay_us);
    [client, server]
}

fn pass(time: Duration) {
    Network::with(|network| network.advance(network.now() + time));
}

fn send(end: Number, bytes: &[u8]) -> io::Result<usize> {
    Network::with(|network| network.send(end, &[IoSlice::new(bytes)]))
}

fn recv(end: Number) -> Result<Vec<u8>, io::ErrorKind> {
    let mut buffer = [0; 100];
    let received = Network::with(|network| network.recv(end, &mut buffer));
    match received {
        Ok(len) => Ok(buffer[..len].to_vec()),
        Err(error) => Err(error.kind()),
    }
}

const LONG: Duration = Duration::from_secs(10);

#[test]
fn nothing_comes_after_the_end_of_a_client_that_dies() {
    let [client, server] = connected(50_000);
    send(client, b"late").unwrap();
    client.close();
    Network::with(|network| network.befall(0, Fate::Dies));
    assert_eq!(recv(server), Ok(Vec::new()));
    pass(LONG);
    assert_eq!(recv(server), Ok(Vec::new()));
    Network::end();
}

#[test]
fn a_reset_does_not_overtake_what_was_sent_before() {
    let [client, server] = connected(50_000);
    send(client, b"too late").unwrap();
    pass(Duration::from_millis(49));
    send(server, b"farewell").unwrap();
    server.close();
    // It arrives where nobody is any more; the reset that it causes has the same way to go as the
    // farewell before it.
    let mut got = Vec::new();
    let end = loop {
        pass(Duration::from_millis(1));
        match recv(client) {
            Ok(bytes) if !bytes.is_empty() => got = bytes,
            Err(io::ErrorKind::WouldBlock) => {}
            end => break end,
        }
    };
    assert_eq!(got, b"farewell");
    assert_eq!(end, Ok(Vec::new()));
    pass(LONG);
    assert_eq!(
        send(client, b"x").unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
    Network::end();
}

#[test]
fn an_end_that_ends_its_stream_last_is_down() {
    let [client, server] = connected(0);
    client.shutdown_write().unwrap();
    let selector = super::SimulatedSelector::new();
    selector.register(server, 1, Interest::WRITE).unwrap();
    // A full room: not writable.
    Network::with(|network| network.connections[0].pipes[SERVER].room = 0);
    assert!(!selector.is_ready());
    server.shutdown_write().unwrap();
    assert!(
        selector.is_ready(),
        "a hang-up is reported whatever was asked for"
    );
    Network::end();
}

#[test]
fn a_connect_that_was_reset_on_its_way_is_not_accepted() {
    Network::begin(Random::new(1));
    let client = Network::with(|network| network.connect(&address(), Process::NONE));
    client.abort();
    let listener = listen();
    pass(LONG);
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    Network::with(|network| assert!(matches!(network.connections[0].answered, Some(Err(_)))));
    assert!(Network::with(
        |network| network.connections[0].ends[CLIENT].is_reset
    ));
    Network::end();
}
