//! `handshakes`: how long the other connections of a poller wait while 1,000 clients do their TLS
//! handshakes, by the bound on handshakes that go on in one turn.

use std::env;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use greenroom::tls::{self, rustls};
use greenroom::{Actor, Context, Input, ListenOptions, Outcome, System};
use greenroom_benches::rounds::{machine, median};
use greenroom_benches::server::{Server, shell_quote};
use greenroom_benches::{raise_descriptor_limit, reduce_timer_slack, reset_on_close, stand_back};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// From one ping to the next.
const PING_EVERY: Duration = Duration::from_micros(500);
/// The length of a ping.
const PING_BYTES: usize = 64;
/// For so long the control has its pings: about as long as the handshakes take.
const CONTROL: Duration = Duration::from_millis(300);
/// The CPUs of the servers and of the load.
const SERVER_CPU: usize = 0;
const LOAD_CPU: usize = 1;

/// The latency of a connection beside others that do their handshakes.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    serve: Option<Mode>,
    /// Clients, all of whose first words come at once
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Rounds, in each of which every bound has its turn
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// The bounds on handshakes in one turn
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32, 64, 1_000])]
    bounds: Vec<usize>,
}

#[derive(Subcommand)]
enum Mode {
    /// Only the server
    Serve { per_turn: usize },
}

/// Says where TLS is spoken, and sends back what it gets.
struct Echo {
    tls_port: u16,
}

impl Actor for Echo {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(self.tls_port.to_be_bytes());
        Ok(())
    }

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(input.take_all());
        Ok(())
    }
}

/// Says that its handshake is done.
struct Secured;

impl Actor for Secured {
    type Message = ();

    fn opened(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        ctx.write(b"!");
        Ok(())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.serve {
        Some(Mode::Serve { per_turn }) => serve(per_turn),
        None => compare(&cli),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("handshakes: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One poller, with a listener for pings and one for handshakes; an ECDSA key on P-256.
fn serve(per_turn: usize) -> io::Result<()> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
    let own = own.map_err(io::Error::other)?;
    let key = own.signing_key.serialize_der().try_into();
    let key = key.map_err(io::Error::other)?;
    let identity = tls::Identity::from_der([own.cert.der().clone()], key)?;
    let server = tls::Server::builder().identity(identity).build()?;
    // On a busy machine the last of them waits for longer than clients would.
    let server = server.handshakes_per_turn(per_turn);
    let server = server.handshake_deadline(Duration::from_secs(120));
    let system = System::builder().pollers(1).build()?;
    let options = ListenOptions::new().tls(server);
    let secured = system.listen_with("127.0.0.1:0", options, |_peer| Secured)?;
    let secured: SocketAddr = secured
        .local_addr()
        .to_string()
        .parse()
        .map_err(io::Error::other)?;
    let tls_port = secured.port();
    let listener = system.listen("127.0.0.1:0", move |_peer| Echo { tls_port })?;
    println!("listening on {}", listener.local_addr());
    system.run()
}

/// What a client has no time for here: it is the server that is measured.
#[derive(Debug)]
struct TrustsAnybody;

impl ServerCertVerifier for TrustsAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// TLS 1.3, each time in full.
fn client_config() -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsAnybody))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// A server, its ping, and what was measured of it, round by round.
struct Contender {
    /// `None` for the control.
    bound: Option<usize>,
    server: Server,
    ping: TcpStream,
    tls_addr: SocketAddr,
    p50: Vec<f64>,
    p99: Vec<f64>,
    most: Vec<f64>,
    took: Vec<f64>,
    cpu: Vec<f64>,
}

impl Contender {
    fn start(bound: Option<usize>) -> io::Result<Contender> {
        let program = shell_quote(&env::current_exe()?.to_string_lossy());
        let per_turn = bound.unwrap_or(1);
        let command = format!("{program} serve {per_turn}");
        let server = Server::start_on(&command, Some(&[SERVER_CPU]))?;
        let mut ping = TcpStream::connect(server.addr())?;
        ping.set_nodelay(true)?;
        ping.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut port = [0; 2];
        ping.read_exact(&mut port)?;
        let mut tls_addr = server.addr();
        tls_addr.set_port(u16::from_be_bytes(port));
        Ok(Contender {
            bound,
            server,
            ping,
            tls_addr,
            p50: Vec::new(),
            p99: Vec::new(),
            most: Vec::new(),
            took: Vec::new(),
            cpu: Vec::new(),
        })
    }

    fn measure(&mut self, config: &Arc<ClientConfig>, clients: usize) -> io::Result<()> {
        let mut storm = match self.bound {
            Some(_) => Some(Storm::prepare(self.tls_addr, config, clients)?),
            None => None,
        };
        let ping = self.ping.try_clone()?;
        let over = Arc::new(OnceLock::new());
        let until = Arc::clone(&over);
        let pinging = thread::spawn(move || pings(&ping, &until));
        // The pings have their pace by then.
        thread::sleep(Duration::from_millis(20));
        let cpu = self.server.cpu_time()?;
        let start = Instant::now();
        match &mut storm {
            Some(storm) => storm.pass()?,
            None => thread::sleep(CONTROL),
        }
        let end = Instant::now();
        let cpu = self.server.cpu_time()? - cpu;
        let _ = over.set(end);
        let pings = pinging.join().expect("pings do not panic")?;
        let mut latency: Vec<f64> = pings
            .iter()
            .filter(|(due, _)| (start..end).contains(due))
            .map(|(_, latency)| latency.as_secs_f64() * 1e6)
            .collect();
        latency.sort_by(f64::total_cmp);
        let at = |quantile: f64| latency[((latency.len() - 1) as f64 * quantile).round() as usize];
        self.p50.push(at(0.5));
        self.p99.push(at(0.99));
        self.most.push(at(1.0));
        self.took.push((end - start).as_secs_f64() * 1e3);
        self.cpu.push(cpu.as_secs_f64() * 1e6 / clients as f64);
        Ok(())
    }
}

/// A ping at each of its times until that one, whether those before are back or not: how long each
/// took from when it was due.
fn pings(stream: &TcpStream, until: &OnceLock<Instant>) -> io::Result<Vec<(Instant, Duration)>> {
    let start = Instant::now();
    let due = |number: u32| start + PING_EVERY * number;
    // Known before the last one leaves, so that who reads them knows when it was the last.
    let count = OnceLock::new();
    thread::scope(|scope| {
        let send = scope.spawn(|| {
            reduce_timer_slack()?;
            for number in 0.. {
                thread::sleep(due(number).saturating_duration_since(Instant::now()));
                let is_last = until.get().is_some_and(|until| due(number) >= *until);
                if is_last {
                    let _ = count.set(number + 1);
                }
                (&*stream).write_all(&[0; PING_BYTES])?;
                if is_last {
                    break;
                }
            }
            Ok(())
        });
        let mut pings = Vec::new();
        let mut buffer = [0; PING_BYTES];
        let mut number = 0;
        while count.get() != Some(&number) {
            (&*stream).read_exact(&mut buffer)?;
            pings.push((due(number), due(number).elapsed()));
            number += 1;
        }
        let sent: io::Result<()> = send.join().expect("a sender does not panic");
        sent.map(|()| pings)
    })
}

/// Clients that are connected, whose first words are still to come.
struct Storm {
    clients: Vec<(TcpStream, ClientConnection)>,
}

impl Storm {
    fn prepare(addr: SocketAddr, config: &Arc<ClientConfig>, clients: usize) -> io::Result<Storm> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut ready = Vec::with_capacity(clients);
        for _ in 0..clients {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(120)))?;
            reset_on_close(&stream)?;
            let client = ClientConnection::new(Arc::clone(config), name.clone());
            ready.push((stream, client.map_err(io::Error::other)?));
        }
        Ok(Storm { clients: ready })
    }

    /// All of their first words at once; then each goes on as it is answered, on a processor that
    /// the pings have first.
    fn pass(&mut self) -> io::Result<()> {
        for (stream, client) in &mut self.clients {
            client.write_tls(stream)?;
        }
        thread::scope(|scope| {
            let rest = scope.spawn(|| {
                stand_back()?;
                for (stream, client) in &mut self.clients {
                    client.complete_io(stream)?;
                }
                for (stream, client) in &mut self.clients {
                    let mut done = [0];
                    rustls::Stream::new(client, stream).read_exact(&mut done)?;
                }
                Ok(())
            });
            rest.join().expect("clients do not panic")
        })
    }
}

fn compare(cli: &Cli) -> io::Result<()> {
    raise_descriptor_limit()?;
    println!("{}", machine());
    greenroom_benches::pin_if_many(LOAD_CPU);
    let config = client_config()?;
    let bounds = cli.bounds.iter().copied().map(Some);
    let mut contenders = std::iter::once(None)
        .chain(bounds)
        .map(Contender::start)
        .collect::<io::Result<Vec<_>>>()?;
    let clients = cli.clients as usize;
    let count = contenders.len();
    for round in 0..cli.rounds as usize {
        for turn in 0..count {
            contenders[(round + turn) % count].measure(&config, clients)?;
        }
    }
    println!(
        "one connection's pings, every {PING_EVERY:?}, while {clients} clients do their handshakes \
         (TLS 1.3, ECDSA P-256); medians of {} rounds",
        cli.rounds
    );
    println!("per turn     p50 us     p99 us     max us   all done ms   server CPU us each");
    for contender in &mut contenders {
        let bound = contender.bound;
        let name = bound.map_or_else(|| "none".to_owned(), |bound| bound.to_string());
        print!("{name:<8}");
        for values in [&mut contender.p50, &mut contender.p99, &mut contender.most] {
            print!(" {:>10.0}", median(values));
        }
        match bound {
            Some(_) => println!(
                " {:>13.0} {:>20.0}",
                median(&mut contender.took),
                median(&mut contender.cpu)
            ),
            None => println!(),
        }
    }
    Ok(())
}
