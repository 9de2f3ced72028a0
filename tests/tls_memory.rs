//! What a connection under TLS that is idle keeps: counted by thread, so that the poller's bytes are
//! known from the clients'.

#[path = "util/tls.rs"]
mod tls_util;
mod util;

use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::cell::Cell;

use greenroom::tls::rustls;
use greenroom::*;
use tls_util::{TlsClient, client_config, server, session_of};
use util::*;

/// Counts the bytes that each thread has and has not given back.
struct Counting;

thread_local! {
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends allocates without its locals.
    let _ = BYTES.try_with(|all| all.set(all.get() + bytes));
}

// SAFETY: hands everything to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { Heap.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { Heap.realloc(at, layout, size) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

struct Echo;

impl Actor for Echo {
    type Message = Reply<isize>;

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }

    fn message(&mut self, message: Reply<isize>, _: &mut Context<'_, Self>) -> Outcome {
        let _ = message.send(BYTES.get());
        Ok(())
    }
}

/// Connections that are measured together, so that tables which grow by doubling count for little.
const MANY: usize = 128;

/// Of these rustls has 4 KiB for what comes next, the rest are keys and state.
const IDLE_MAX: isize = 10 << 10;

#[test]
fn an_idle_connection_keeps_no_buffer_of_ours() {
    let system = builder(1).build().unwrap();
    let meter = system.spawn(|| Echo);
    let there = || meter.ask(TIMEOUT, |reply| reply).unwrap();
    let options = ListenOptions::new().tls(server());
    let listener = system
        .listen_with("127.0.0.1:0", options, |_| Echo)
        .unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = client_config(&[version]);
        let new = || TlsClient::with(connect(&listener), session_of(config.clone()));
        let talk = |client: &mut TlsClient, len| {
            client.send(pattern(len));
            assert_same(&client.read(len), &pattern(len));
        };
        // The poller's own buffers are there from its first connection on.
        let mut first = new();
        talk(&mut first, 100_000);
        let before = there();
        let mut clients: Vec<_> = (0..MANY).map(|_| new()).collect();
        clients.iter_mut().for_each(|client| talk(client, 10));
        let small = (there() - before) / MANY as isize;
        clients.iter_mut().for_each(|client| talk(client, 40_000));
        let large = (there() - before) / MANY as isize;
        println!("{version:?}: {small} bytes each, after large records {large}");
        assert!(small < IDLE_MAX, "{small} bytes for each that is idle");
        assert!(large < IDLE_MAX, "{large} bytes for each that was busy");
        drop(clients);
        drop(first);
        wait_until("all are gone", || system.stats().connections == 0);
        settle(&system);
        let left = there() - before;
        assert!(left < 64 << 10, "{left} bytes are left of all");
    }
}
