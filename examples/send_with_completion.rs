//! Streams as many KiB as a client asks for, each piece when the kernel has taken the one before, and
//! says at the end how long that took.
//!
//!     cargo run --release --example send_with_completion
//!     nc 127.0.0.1 9000
//!     1000
//!
//! Or let a slow reader ask: `(echo 100000; sleep 60) | nc 127.0.0.1 9000 | pv -L 1m > /dev/null`.
//! However slow it is and however much it asks for, one piece is all that the server holds for it.

use std::io;
use std::time::{Duration, Instant};

use clap::Parser;
use greenroom::{Actor, Context, Input, Listener, Outcome, System};

mod support;

/// Bytes of a piece.
const PIECE: usize = 16 << 10;

/// What a client may ask for at once, in KiB: a GiB.
const KIB_MAX: u64 = 1 << 20;

/// Streams as many KiB as a client asks for, each piece when the kernel has taken the one before.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,
}

/// A stream under way.
struct Stream {
    /// Bytes still to be written.
    left: u64,
    written: u64,
    began: Instant,
    /// When the piece that the kernel has now was written, and the longest that one took.
    piece_began: Instant,
    longest: Duration,
}

struct Sender {
    stream: Option<Stream>,
    /// The peer asks for no more.
    is_last: bool,
}

impl Sender {
    /// Takes the next request, if there is one: one stream at a time.
    fn begin(&mut self, kib: u64, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        self.stream = Some(Stream {
            left: kib << 10,
            written: 0,
            began: now,
            piece_began: now,
            longest: Duration::ZERO,
        });
        // What comes meanwhile stays in the kernel's buffers.
        ctx.pause();
        self.go_on(ctx);
    }

    /// Writes the next piece, or the last line.
    fn go_on(&mut self, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        let Some(stream) = &mut self.stream else {
            return;
        };
        let len = stream.left.min(PIECE as u64) as usize;
        if len > 0 {
            let mut piece = vec![b'.'; len];
            piece[len - 1] = b'\n';
            ctx.write_bytes(piece.into());
            stream.left -= len as u64;
            stream.written += len as u64;
            stream.piece_began = now;
            ctx.notify_written(stream.written);
            return;
        }
        ctx.write(format!(
            "{} bytes taken in {:.1?}, the slowest piece in {:.1?}\n",
            stream.written,
            now.saturating_duration_since(stream.began),
            stream.longest
        ));
        self.stream = None;
        if self.is_last {
            ctx.close();
        } else {
            ctx.resume();
        }
    }
}

impl Actor for Sender {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let Some(line) = input.line(80)? else {
            return Ok(());
        };
        let asked = std::str::from_utf8(line).ok();
        let asked = asked.and_then(|line| line.trim().parse().ok());
        match asked.filter(|kib| (1..=KIB_MAX).contains(kib)) {
            Some(kib) => self.begin(kib, ctx),
            None => {
                ctx.write(format!("say how many KiB, from 1 to {KIB_MAX}\n"));
            }
        }
        Ok(())
    }

    /// The kernel has all that was written up to this many bytes of the stream.
    fn written(&mut self, bytes: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        let now = ctx.now();
        if let Some(stream) = &mut self.stream {
            debug_assert_eq!(stream.written, bytes);
            let took = now.saturating_duration_since(stream.piece_began);
            stream.longest = stream.longest.max(took);
        }
        self.go_on(ctx);
        Ok(())
    }

    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        self.is_last = true;
        if self.stream.is_none() {
            ctx.close();
        }
        Ok(())
    }
}

/// Serves whoever connects.
pub(crate) fn serve(system: &System, addr: &str) -> io::Result<Listener> {
    system.listen(addr, |_peer| Sender {
        stream: None,
        is_last: false,
    })
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let listener = serve(&system, &options.common.addr)?;
    support::run_until_signal(system, &listener, ", then type how many KiB you want")
}
