//! Serves so many connections at a time and tells the others that it is full.
//!
//!     cargo run --release --example connection_limit -- --max 2
//!     nc 127.0.0.1 9000
//!
//! Who counts is a broadcaster, which knows when its members end; with `--by-listener` it is the
//! listener, to which the limit is one line of code.

use std::io;

use clap::Parser;
use greenroom::{
    Actor, Addr, AtLimit, Broadcaster, Context, Input, ListenOptions, Listener, Outcome, System,
};

mod support;

/// Serves so many connections at a time and tells the others that it is full.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// How many connections are served at a time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    max: u32,

    /// Let the listener keep the limit instead of a broadcaster.
    #[arg(long)]
    by_listener: bool,
}

/// What the broadcaster tells a connection.
#[derive(Clone)]
enum Notice {
    /// There are as many as there may be.
    Full { max: usize },
    /// It is in, as one of so many.
    Welcome { count: usize },
}

/// An echo that nobody is served by before he is let in.
struct Guest {
    /// Who lets in; `None` where the listener has done so.
    door: Option<Addr<Broadcaster<Notice>>>,
}

impl Actor for Guest {
    type Message = Notice;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        match &self.door {
            Some(door) => {
                door.join(ctx.addr());
                ctx.pause();
            }
            None => {
                ctx.write("welcome\n");
            }
        }
        Ok(())
    }

    fn message(&mut self, notice: Notice, ctx: &mut Context<'_, Self>) -> Outcome {
        match notice {
            Notice::Full { max } => {
                ctx.write(full(max));
                ctx.close();
            }
            Notice::Welcome { count } => {
                ctx.write(format!("welcome, you are {count} here\n"));
                ctx.resume();
            }
        }
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

fn full(max: usize) -> String {
    format!("full: there is room for {max} at a time, come back later\n")
}

/// Serves at most `max` at a time: a broadcaster counts them.
pub(crate) fn serve(system: &System, addr: &str, max: usize) -> io::Result<Listener> {
    let door = system.spawn(move || {
        Broadcaster::new()
            .limit(max, |max| Notice::Full { max })
            .welcome(|count| Notice::Welcome { count })
    });
    system.listen(addr, move |_peer| Guest {
        door: Some(door.clone()),
    })
}

/// The same, and the listener counts.
pub(crate) fn serve_by_listener(system: &System, addr: &str, max: usize) -> io::Result<Listener> {
    let limit = ListenOptions::new()
        .max_connections(max)
        .at_limit(AtLimit::Refuse(full(max).into()));
    system.listen_with(addr, limit, |_peer| Guest { door: None })
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let (addr, max) = (options.common.addr.as_str(), options.max as usize);
    let listener = if options.by_listener {
        serve_by_listener(&system, addr, max)?
    } else {
        serve(&system, addr, max)?
    };
    support::run_until_signal(system, &listener, " (more often than --max)")
}
