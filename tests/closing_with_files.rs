//! How long what waits may hold a close, and how it is counted, where it is more than bytes: files,
//! notices, values of keys.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenroom::testing::{Simulation, Stage};
use greenroom::*;

const SECOND: Duration = Duration::from_secs(1);

type Deed = Box<dyn FnOnce(&mut Context<'_, Writer>) + Send>;

/// Does what it is told, and writes so much when its notice comes.
#[derive(Default)]
struct Writer {
    on_written: usize,
}

impl Actor for Writer {
    type Message = Deed;

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if input.take(5).is_some() {
            ctx.write_file(sparse("empty", 0), 0, 0)?;
        }
        Ok(())
    }

    fn message(&mut self, deed: Deed, ctx: &mut Context<'_, Self>) -> Outcome {
        deed(ctx);
        Ok(())
    }

    fn written(&mut self, _: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(vec![b'w'; self.on_written]);
        Ok(())
    }
}

/// A file of so many zeros that take no place on the disk.
fn sparse(name: &str, len: u64) -> Arc<File> {
    let name = format!("greenroom-{}-{name}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(true);
    let file = options.open(&path).expect("a file");
    std::fs::remove_file(&path).expect("the same");
    file.set_len(len).expect("a length");
    Arc::new(file)
}

fn tell(stage: &mut Stage<Writer>, deed: impl FnOnce(&mut Context<'_, Writer>) + Send + 'static) {
    stage.send(Box::new(deed));
}

/// Takes so many bytes each second: after how many seconds it ended, and how many were taken.
fn drip(stage: &mut Stage<Writer>, each: usize) -> (u64, usize) {
    let mut taken = 0;
    for second in 0..10_000 {
        if stage.reason().is_some() {
            return (second, taken);
        }
        taken += stage.take_output(each).len();
        stage.advance(SECOND);
    }
    panic!("held for ever");
}

fn reason(stage: &Stage<Writer>) -> &'static str {
    stage.reason().map_or("none", CloseReason::name)
}

#[test]
fn a_file_to_a_modest_reader_is_not_cut_for_its_size() {
    const LEN: usize = 40 << 20;
    let mut stage = Stage::new(Writer::default());
    stage.stall();
    tell(&mut stage, |ctx| {
        ctx.write("head");
        ctx.write_file(sparse("modest", LEN as u64), 0, LEN as u64)
            .expect("there is room");
        ctx.write("tail");
        ctx.close();
    });
    let (seconds, taken) = drip(&mut stage, 60_000);
    let rest = stage.output().len();
    assert_eq!(
        reason(&stage),
        "finished",
        "after {seconds} s, {taken} taken"
    );
    assert!(!stage.is_reset());
    assert_eq!(taken + rest, LEN + 8);
}

#[test]
fn a_file_to_a_reader_that_sips_does_not_hold_a_close() {
    const LEN: u64 = 40 << 20;
    let send = |ctx: &mut Context<'_, Writer>| {
        ctx.write_file(sparse("sips", LEN), 0, LEN)
            .expect("there is room");
    };
    let mut sips = Stage::new(Writer::default());
    sips.stall();
    tell(&mut sips, move |ctx| {
        send(ctx);
        ctx.close();
    });
    assert_eq!(drip(&mut sips, 1).0, 120);
    assert_eq!(reason(&sips), "not flushed");

    // Who says how long a close may take means just that.
    let mut told = Stage::new(Writer::default());
    told.stall();
    tell(&mut told, move |ctx| {
        send(ctx);
        ctx.close_within(9 * SECOND);
    });
    assert_eq!(drip(&mut told, 1 << 20).0, 9);
    assert_eq!(reason(&told), "not flushed");
}

#[test]
fn what_is_written_when_a_close_tells_its_notices_has_the_time_of_the_close() {
    let mut stage = Stage::new(Writer { on_written: 10_000 });
    stage.stall();
    tell(&mut stage, |ctx| {
        ctx.notify_written(1);
        ctx.close();
    });
    assert_eq!(drip(&mut stage, 1).0, 120);
    assert_eq!(reason(&stage), "not flushed");
}

#[test]
fn a_file_of_no_bytes_leaves_nothing_behind() {
    let mut sim = Simulation::new(1);
    let system = sim.system(System::builder().pollers(1));
    system
        .listen("127.0.0.1:1", |_| Writer::default())
        .expect("a listener");
    let client = sim.client("127.0.0.1:1");
    client.send("12345");
    sim.run_for(SECOND);
    assert!(client.is_connected());
    assert_eq!(sim.idle_buffers(), 0);
}

#[test]
fn a_value_whose_older_one_is_dropped_for_it_stays_in_the_budget() {
    let options = ConnectionOptions::new()
        .output_max(1000)
        .watermarks(100, 200)
        .slow_reader(SlowReader::DropOldest);
    let mut stage = Stage::with_options(Writer::default(), options);
    stage.stall();
    for (key, len) in [(1, 300), (2, 300), (1, 900)] {
        tell(&mut stage, move |ctx| {
            ctx.write_latest(key, Bytes::from(vec![b'v'; len]));
        });
    }
    stage.unstall();
    assert_eq!(stage.output().len(), 900);
}
