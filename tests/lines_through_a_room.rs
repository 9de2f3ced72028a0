//! The whole way: lines from sockets through a room with a small mailbox and back to all sockets,
//! none lost, memory flat.

mod util;

use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::SeqCst};
use std::thread;

use bytes::Bytes;
use greenroom::*;
use util::*;

/// Counts the bytes that are in use.
struct Counting;

static IN_USE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: hands everything to the system's allocator and only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size() as isize, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as isize, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { Heap.dealloc(at, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

// ---- the whole way ------------------------------------------------------------------------------

/// A connection that says its lines in the room, and is said those of all.
struct Talker {
    room: Addr<Broadcaster<Bytes>>,
    unsaid: Option<Bytes>,
    waits: Arc<AtomicUsize>,
}

impl Talker {
    fn say(&mut self, line: Bytes, ctx: &mut Context<'_, Self>) -> bool {
        let Err(error) = self.room.send(Broadcast::Push(line)) else {
            return true;
        };
        if let Broadcast::Push(line) = error.into_message() {
            self.unsaid = Some(line);
        }
        self.waits.fetch_add(1, SeqCst);
        ctx.wait_for_room(&self.room);
        false
    }
}

impl Actor for Talker {
    type Message = Bytes;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(self.room.send(Broadcast::Join(ctx.addr().into()))?)
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(self.unsaid.is_none(), "its reading pauses while it waits");
        while let Some(line) = input.line(100)? {
            if !self.say(Bytes::copy_from_slice(line), ctx) {
                break;
            }
        }
        Ok(())
    }

    fn room(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let line = self.unsaid.take().ok_or("told of room and not waiting")?;
        self.say(line, ctx);
        Ok(())
    }

    fn message(&mut self, line: Bytes, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write_parts(&[&line, b"\n"]);
        Ok(())
    }
}

#[test]
fn a_bound_of_sixteen_loses_no_line_of_a_hundred_thousand() {
    const TALKERS: usize = 4;
    const EACH: usize = 25_000;
    let system = builder(2).mailbox_bound(16).build().unwrap();
    let room = system.spawn_on(0, Broadcaster::<Bytes>::new);
    let waits = Arc::<AtomicUsize>::default();
    let (to, count) = (room.clone(), waits.clone());
    let options = ListenOptions::new().balance(Balance::RoundRobin);
    let make = move |_| Talker {
        room: to.clone(),
        unsaid: None,
        waits: count.clone(),
    };
    let listener = system.listen_with("127.0.0.1:0", options, make).unwrap();
    let clients: Vec<_> = (0..TALKERS)
        .map(|n| {
            let client = connect(&listener);
            wait_until("it has joined", || {
                room.ask(TIMEOUT, Broadcast::Count) == Ok(n + 1)
            });
            client
        })
        .collect();
    let (sequences, memory) = thread::scope(|scope| {
        let mut readers = Vec::new();
        for (own, client) in clients.iter().enumerate() {
            scope.spawn(move || {
                let mut out = std::io::BufWriter::new(client);
                for n in 0..EACH {
                    writeln!(out, "{own} {n}").unwrap();
                }
                out.flush().unwrap();
            });
            readers.push(scope.spawn(move || {
                let (mut hash, mut next, mut memory) =
                    (DefaultHasher::new(), [0; TALKERS], Vec::with_capacity(10));
                let mut lines = BufReader::new(client);
                let mut line = String::new();
                for n in 1..=TALKERS * EACH {
                    line.clear();
                    lines.read_line(&mut line).expect("no line is lost");
                    line.hash(&mut hash);
                    let (sender, number) =
                        line.trim_end().split_once(' ').expect("a line is whole");
                    let (sender, number): (usize, usize) =
                        (sender.parse().unwrap(), number.parse().unwrap());
                    assert_eq!(number, next[sender], "the lines of {sender}");
                    next[sender] += 1;
                    if n % (TALKERS * EACH / 10) == 0 {
                        memory.push(IN_USE.load(SeqCst));
                    }
                }
                (hash.finish(), memory)
            }));
        }
        let read: Vec<_> = readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect();
        let memory: Vec<isize> = read.iter().flat_map(|(_, memory)| memory.clone()).collect();
        (
            read.into_iter().map(|(hash, _)| hash).collect::<Vec<_>>(),
            memory,
        )
    });
    assert!(
        sequences.iter().all(|sequence| *sequence == sequences[0]),
        "all see one order"
    );
    assert!(
        waits.load(SeqCst) > 0,
        "it was never full: this test has seen nothing"
    );
    let (least, most) = (memory.iter().min().unwrap(), memory.iter().max().unwrap());
    // The lines alone, were they kept, would be some 8 MiB with their places in a queue.
    assert!(most - least < 2 << 20, "memory is not flat: {memory:?}");
}
