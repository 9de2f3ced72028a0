//! What all examples have in common: two options, a start line, and a clean end.

#[allow(dead_code, reason = "most examples speak plainly")]
pub(crate) mod self_signed;

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use greenroom::{Builder, Endpoint, Listener, System, signals};

/// Options of every example.
#[derive(Args)]
pub(crate) struct Common {
    /// Where to listen: HOST:PORT, [IPV6]:PORT or unix:PATH. Port 0 takes any free one.
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub(crate) addr: String,

    /// Poller threads [default: one for each processor].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) pollers: Option<u16>,
}

impl Common {
    /// A system with as many pollers as asked for. Warnings go to standard error; RUST_LOG=debug
    /// shows why connections end.
    pub(crate) fn builder(&self) -> Builder {
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
        match self.pollers {
            Some(pollers) => System::builder().pollers(pollers.into()),
            None => System::builder(),
        }
    }
}

/// What `main` returns, so that an error is shown as a sentence: Rust prints the `Debug` form of
/// what `main` returns.
pub(crate) struct Error(io::Error);

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error(error)
    }
}

impl From<greenroom::tls::ConfigError> for Error {
    fn from(error: greenroom::tls::ConfigError) -> Error {
        Error(error.into())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Says where it listens and what to do next, runs until SIGINT or SIGTERM, gives connections five
/// seconds to finish (none at a second signal), and says how many there were.
#[allow(dead_code, reason = "datagrams have no listener")]
pub(crate) fn run_until_signal(
    system: System,
    listener: &Listener,
    then: &str,
) -> Result<(), Error> {
    let accepted = serve_until_signal(system, listener, then)?;
    say(format_args!("stopped after {accepted} connections"));
    Ok(())
}

/// The same, but how many there were is left to be said, behind what else is still to be.
#[allow(dead_code, reason = "most have no more to say")]
pub(crate) fn serve_until_signal(
    system: System,
    listener: &Listener,
    then: &str,
) -> Result<u64, Error> {
    let command = format!("nc {}{then}", for_nc(listener.local_addr()));
    serve_until_signal_saying(system, listener, &command)
}

/// [`run_until_signal`] for what speaks another language than `nc`: with a command of its own to be
/// tried.
#[allow(dead_code, reason = "most are spoken to with nc")]
pub(crate) fn run_until_signal_saying(
    system: System,
    listener: &Listener,
    command: &str,
) -> Result<(), Error> {
    let accepted = serve_until_signal_saying(system, listener, command)?;
    say(format_args!("stopped after {accepted} connections"));
    Ok(())
}

fn serve_until_signal_saying(
    system: System,
    listener: &Listener,
    command: &str,
) -> Result<u64, Error> {
    // Before the start line: whoever has read that may send a signal.
    signals::stop_on(&system.handle(), Duration::from_secs(5))?;
    println!("listening on {}; try: {command}", listener.local_addr());
    let handle = system.handle();
    system.run()?;
    Ok(handle.stats().accepted)
}

/// Prints a line, if there still is somebody to read it: in a pipe (`| tee log`) the same
/// Ctrl-C may have ended whoever was.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// An address as `nc` wants it: host and port apart.
#[allow(dead_code, reason = "datagrams have no listener")]
pub(crate) fn for_nc(addr: &Endpoint) -> String {
    match addr {
        Endpoint::Tcp(addr) => format!("{} {}", addr.ip(), addr.port()),
        unix => format!("-U {}", path_of(unix)),
    }
}

/// An address as `curl` wants it.
#[allow(dead_code, reason = "few speak HTTP")]
pub(crate) fn for_curl(addr: &Endpoint) -> String {
    match addr {
        Endpoint::Tcp(addr) => format!("http://{addr}/"),
        unix => format!("--unix-socket {} http://localhost/", path_of(unix)),
    }
}

fn path_of(unix: &Endpoint) -> String {
    unix.to_string().trim_start_matches("unix:").to_owned()
}
