//! Several listeners with actors of different types in one system, on TCP and on a Unix socket; the
//! last one is for whoever runs it, and pauses, resumes and closes the first.
//!
//!     cargo run --release --example many_listeners -- --control unix:/tmp/control.sock
//!     nc 127.0.0.1 9000
//!     echo pause | nc -U -N /tmp/control.sock

use std::io;

use clap::Parser;
use greenroom::{Actor, Context, Input, ListenOptions, Listener, Outcome, System};

mod support;

/// Bytes of a line, without its end.
const LINE_MAX: usize = 4096;

/// Several listeners with actors of different types; the last one pauses, resumes and closes the
/// first.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Where lines are answered in capitals.
    #[arg(long, default_value = "127.0.0.1:0")]
    shout: String,

    /// Where commands are taken: pause, resume, close, status. By default a Unix socket in the folder
    /// for temporary files.
    #[arg(long)]
    control: Option<String>,
}

/// Sends everything back.
struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

/// Sends lines back in capitals.
struct Shout;

impl Actor for Shout {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(LINE_MAX)? {
            ctx.write_parts(&[&line.to_ascii_uppercase(), b"\n"]);
        }
        Ok(())
    }
}

/// Takes commands for another listener.
struct Control {
    of: Listener,
}

impl Control {
    fn status(&self) -> String {
        let is = match (self.of.is_closed(), self.of.is_paused()) {
            (true, _) => "closed",
            (false, true) => "paused",
            (false, false) => "open",
        };
        format!("{is}, {} connections\n", self.of.connections())
    }
}

impl Actor for Control {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(LINE_MAX)? {
            match line {
                b"pause" => self.of.pause(),
                b"resume" => self.of.resume(),
                // Accepts who waits, and goes on from there by itself.
                b"close" => self.of.close(),
                b"status" => {}
                _ => {
                    ctx.write("pause, resume, close or status\n");
                    continue;
                }
            }
            ctx.write(self.status());
        }
        Ok(())
    }
}

/// What runs.
pub(crate) struct Listeners {
    pub(crate) echo: Listener,
    pub(crate) shout: Listener,
    pub(crate) control: Listener,
}

pub(crate) fn serve(
    system: &System,
    echo: &str,
    shout: &str,
    control: &str,
) -> io::Result<Listeners> {
    let echo = system.listen(echo, |_peer| Echo)?;
    let shout = system.listen(shout, |_peer| Shout)?;
    // Not more than a few who give commands, and all on one poller.
    let few = ListenOptions::new().max_connections(4).pollers([0]);
    let of = echo.clone();
    let control = system.listen_with(control, few, move |_peer| Control { of: of.clone() })?;
    Ok(Listeners {
        echo,
        shout,
        control,
    })
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let control = options.control.unwrap_or_else(|| {
        let name = format!("greenroom-control-{}.sock", std::process::id());
        format!("unix:{}", std::env::temp_dir().join(name).display())
    });
    let all = serve(&system, &options.common.addr, &options.shout, &control)?;
    let [shout, control] = [&all.shout, &all.control].map(|of| support::for_nc(of.local_addr()));
    let then = format!("; nc {shout} for capitals; nc {control} and say pause, resume or status");
    support::run_until_signal(system, &all.echo, &then)
}
