//! Question: what does it cost to clone an address and drop the clone, alone and when 4 threads do
//! so to the same one?
//!
//! Baseline: `Arc::clone`, which is what an address holds: the count in it is the one word that
//! they share. Run: `cargo bench -p greenroom-benches --bench addr_clone`.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use greenroom::{Actor, System};
use greenroom_benches::rounds::{Rival, machine, race};

const CLONES: u64 = 400_000;

struct Nobody;

impl Actor for Nobody {
    type Message = ();
}

/// A slice of `threads` threads that clone the same value.
fn rival<'a, T: Clone + Sync + 'a>(name: &str, threads: u64, value: T) -> Rival<'a> {
    Rival::new(name, move || {
        let ready = Barrier::new(threads as usize);
        thread::scope(|scope| {
            let clones: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        ready.wait();
                        let start = Instant::now();
                        for _ in 0..CLONES / threads {
                            black_box(black_box(&value).clone());
                        }
                        (start, Instant::now())
                    })
                })
                .collect();
            let times = clones
                .into_iter()
                .map(|clones| clones.join().expect("a thread"));
            let (starts, ends): (Vec<_>, Vec<_>) = times.unzip();
            let elapsed = starts.iter().min().zip(ends.iter().max());
            elapsed.map_or(Duration::ZERO, |(start, end)| *end - *start)
        })
    })
}

fn main() -> std::io::Result<()> {
    println!("{}", machine());
    let system = System::builder().pollers(1).build()?;
    let addr = system.spawn(|| Nobody);
    for threads in [1, 4] {
        let rivals = vec![
            rival("Arc::clone", threads, Arc::new(0_u64)),
            rival("Addr::clone", threads, addr.clone()),
            rival("Recipient::clone", threads, addr.recipient::<()>()),
        ];
        race(&format!("clones by {threads} threads"), CLONES, rivals);
    }
    Ok(())
}
