//! `memory`: what an actor without a socket costs in resident memory, and what an empty mailbox
//! does.
//!
//! What an idle connection costs is `load idle`'s to say.

use std::io;
use std::marker::PhantomData;
use std::thread;
use std::time::Duration;

use clap::Parser;
use greenroom::{Actor, Addr, Context, Outcome, System};
use greenroom_benches::rounds::machine;
use greenroom_benches::samples::Samples;
use greenroom_benches::server::Memory;

/// Spawned between two looks at how many have been opened, so that those on their way are few.
const BATCH: usize = 10_000;

/// Resident memory of actors without sockets, all in this one process.
#[derive(Parser)]
struct Cli {
    /// How many actors of each kind
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    actors: u32,
    /// Only the bytes of an actor without a socket and without fields, as a sample in CSV
    #[arg(long)]
    csv: bool,
}

/// An actor with `LEN` words of its own.
struct Idle<const LEN: usize>(#[allow(dead_code, reason = "it is there to take room")] [u64; LEN]);

impl<const LEN: usize> Actor for Idle<LEN> {
    type Message = ();

    fn message(&mut self, _message: (), _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }
}

/// An actor type for each type parameter: each has a mailbox of its own.
struct Typed<T>(PhantomData<T>);

impl<T: 'static> Actor for Typed<T> {
    type Message = u64;

    fn message(&mut self, _message: u64, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }
}

/// Calls a function for each of eight types.
macro_rules! for_each_digit {
    ($digit:ident => $call:expr) => {{
        for_each_digit!($digit => $call; u8 u16 u32 u64 i8 i16 i32 i64);
    }};
    ($digit:ident => $call:expr; $($ty:ty)*) => {{
        $({ type $digit = $ty; $call; })*
    }};
}

/// Actor types spawned by `spawn_types`.
const TYPES: usize = 8 * 8 * 8;

fn spawn_types(system: &System) {
    for_each_digit!(A => spawn_types_of::<A>(system));
}

fn spawn_types_of<A: 'static>(system: &System) {
    for_each_digit!(B => spawn_pairs_of::<A, B>(system));
}

fn spawn_pairs_of<A: 'static, B: 'static>(system: &System) {
    for_each_digit!(C => drop(system.spawn(|| Typed::<(A, B, C)>(PhantomData))));
}

/// Waits until `count` actors have been opened. It looks again and again: opening is told to nobody
/// else.
fn wait_for_opened(system: &System, count: usize) {
    while (system.stats().opened as usize) < count {
        thread::sleep(Duration::from_micros(100));
    }
}

/// What was written to: not the text of 512 actor types.
fn private_bytes() -> io::Result<f64> {
    Ok(Memory::of_process(std::process::id())?.private_dirty as f64)
}

/// Spawns `count` of them and returns the bytes that each takes; also the address of the last.
fn spawn_many<const LEN: usize>(
    system: &System,
    count: usize,
) -> io::Result<(f64, Addr<Idle<LEN>>)> {
    let mut last = system.spawn(|| Idle([0; LEN]));
    let opened = system.stats().opened as usize;
    wait_for_opened(system, opened);
    let before = private_bytes()?;
    for spawned in 1..=count {
        last = system.spawn(|| Idle([0; LEN]));
        if spawned % BATCH == 0 || spawned == count {
            wait_for_opened(system, opened + spawned);
        }
    }
    Ok(((private_bytes()? - before) / count as f64, last))
}

fn main() -> io::Result<()> {
    let cli = Cli::parse();
    let count = cli.actors as usize;
    if cli.csv {
        let system = System::builder().pollers(1).build()?;
        let (each, _) = spawn_many::<0>(&system, count)?;
        let case = format!("{count} actors without sockets");
        let mut samples = Samples::new();
        samples.push("many", &case, "greenroom", 0, "bytes", each);
        print!("{}", samples.to_csv());
        return Ok(());
    }
    println!("{}", machine());
    // In systems of their own, dropped before the next: one is not to reuse what another gave back.
    let system = System::builder().pollers(1).build()?;
    spawn_many::<0>(&system, 1)?;
    let before = private_bytes()?;
    let opened = system.stats().opened as usize;
    spawn_types(&system);
    wait_for_opened(&system, opened + TYPES);
    let each = (private_bytes()? - before) / TYPES as f64;
    println!(
        "a mailbox that was sent one thing, of one actor type on one poller: {each:.0} bytes ({TYPES} types, one actor each)"
    );

    let system = System::builder().pollers(1).build()?;
    let (each, _) = spawn_many::<0>(&system, count)?;
    println!("an actor without a socket and without fields: {each:.1} bytes ({count} of them)");
    let (each, last) = spawn_many::<2>(&system, count)?;
    println!("one with 16 bytes of fields: {each:.1} bytes ({count} more)");
    let id = size_of_val(&last);
    println!("an address: {id} bytes");
    Ok(())
}
