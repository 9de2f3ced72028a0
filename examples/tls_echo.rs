//! Sends back what it gets, over TLS.
//!
//!     cargo run --release --example tls_echo
//!
//! prints the command by which `openssl` talks to it. Without options it makes itself a certificate;
//! with one from files, `kill -HUP` reads them again while connections go on:
//!
//!     cargo run --release --example tls_echo -- --cert fullchain.pem --key privkey.pem
//!
//! It is its own client, too:
//!
//!     cargo run --release --example tls_echo -- --client --ca FILE

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use clap::Parser;
use greenroom::{
    Actor, CloseReason, ConnectOptions, Context, Input, ListenOptions, Outcome, Remote, System,
    WorkError, signals, tls,
};

mod support;

/// What the client reads at a time.
const CHUNK: usize = 16 << 10;

/// Sends back what it gets, over TLS.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// The server's certificate and those of who signed it, in PEM format. Read again at SIGHUP.
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "client")]
    cert: Option<PathBuf>,

    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Connect to --addr instead, send what is typed, and show what comes.
    #[arg(long)]
    client: bool,

    /// Whom the client trusts [default: whom the system does].
    #[arg(long, value_name = "FILE", requires = "client")]
    ca: Option<PathBuf>,
}

/// The same as on a plain connection.
struct Echo;

impl Actor for Echo {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let addr = options.common.addr.as_str();
    if options.client {
        return Ok(talk(system, addr, options.ca)?);
    }
    let Some((cert, key)) = options.cert.zip(options.key) else {
        let (server, file) = support::self_signed::self_signed(&[])?;
        let trusted = format!(" -CAfile {} -verify_return_error", file.path().display());
        return serve(system, addr, server, &trusted);
    };
    let identity = tls::Identity::from_files(&cert, &key)?;
    let server = tls::Server::builder().identity(identity).build()?;
    let again = Again {
        server: server.clone(),
        cert,
        key,
    };
    let again = system.spawn(|| again);
    signals::send_to(&[signals::SIGHUP], again, |_signal| ())?;
    serve(system, addr, server, "")
}

fn serve(
    system: System,
    addr: &str,
    server: tls::Server,
    trusted: &str,
) -> Result<(), support::Error> {
    let options = ListenOptions::new().tls(server);
    let listener = system.listen_with(addr, options, |_peer| Echo)?;
    let addr = listener.local_addr();
    let to = match addr.to_string().strip_prefix("unix:") {
        Some(path) => format!("-unix {path}"),
        None => format!("-connect {addr}"),
    };
    let then = format!("openssl s_client {to}{trusted} -quiet, then type a line");
    support::run_until_signal_saying(system, &listener, &then)
}

/// Reads the certificate again whenever it is told to.
struct Again {
    server: tls::Server,
    cert: PathBuf,
    key: PathBuf,
}

impl Actor for Again {
    type Message = ();

    /// Two small files, once in some weeks: short enough for a poller.
    fn message(&mut self, (): (), _ctx: &mut Context<'_, Self>) -> Outcome {
        let read = tls::Identity::from_files(&self.cert, &self.key);
        match read.and_then(|identity| self.server.reload([identity])) {
            Ok(()) => println!("shows the certificate that it has read again"),
            Err(error) => println!("shows the certificate of before: {error}"),
        }
        Ok(())
    }
}

/// The client: standard input goes to the server, and what it answers to standard output.
struct Typist {
    /// Told why the connection failed, if it did.
    failed: Sender<String>,
}

/// What was typed; nothing at its end.
type Typed = Result<io::Result<Vec<u8>>, WorkError>;

impl Typist {
    /// Waits for what is typed next on a thread of the pool.
    fn listen(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let read = || {
            let mut typed = vec![0; CHUNK];
            let len = io::stdin().lock().read(&mut typed)?;
            typed.truncate(len);
            Ok(typed)
        };
        Ok(ctx.offload(read, |typed| typed)?)
    }
}

impl Actor for Typist {
    type Message = Typed;

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if let Some(tls) = ctx.tls() {
            eprintln!("connected: {tls:?}");
        }
        self.listen(ctx)
    }

    fn message(&mut self, typed: Typed, ctx: &mut Context<'_, Self>) -> Outcome {
        let typed = typed??;
        if typed.is_empty() {
            ctx.shutdown_write();
        } else {
            ctx.write(typed);
            // No faster than it leaves.
            ctx.notify_written(0);
        }
        Ok(())
    }

    fn written(&mut self, _: u64, ctx: &mut Context<'_, Self>) -> Outcome {
        self.listen(ctx)
    }

    fn readable(&mut self, input: &mut Input<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        let mut out = io::stdout().lock();
        out.write_all(input.take_all())?;
        Ok(out.flush()?)
    }

    fn closed(&mut self, reason: &CloseReason, ctx: &mut Context<'_, Self>) {
        if !matches!(reason, CloseReason::PeerClosed | CloseReason::Finished) {
            let _ = self.failed.send(reason.to_string());
        }
        ctx.system().stop(Duration::ZERO);
    }
}

fn talk(system: System, addr: &str, ca: Option<PathBuf>) -> io::Result<()> {
    let roots = match ca {
        Some(file) => tls::Roots::from_file(file)?,
        None => tls::Roots::platform()?,
    };
    let client = tls::Client::builder().roots(roots).build()?;
    let remote = addr.parse::<Remote>()?;
    let options = ConnectOptions::new().tls(client);
    let (failed, failure) = channel();
    system.connect_with(remote, options, || Typist { failed });
    system.run()?;
    match failure.try_recv() {
        Ok(reason) => Err(io::Error::other(reason)),
        Err(_) => Ok(()),
    }
}
