//! Sends back each datagram that it gets, from the address that it was sent to.
//!
//!     cargo run --release --example udp_echo
//!     nc -u 127.0.0.1 9000
//!
//! With a multicast group, by one socket for all pollers:
//!
//!     cargo run --release --example udp_echo -- --addr 0.0.0.0:9000 --group 239.1.2.3 --interface eth0

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use clap::Parser;
use greenroom::{
    Actor, Context, Datagram, DatagramAddr, DatagramFailure, DatagramOptions, DatagramSockets,
    Interface, Outcome, System, signals,
};

mod support;

/// Sends back each datagram that it gets.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Join this multicast group.
    #[arg(long)]
    group: Option<IpAddr>,

    /// ... on this network interface [default: the one that the system's routes choose].
    #[arg(long, value_name = "NAME", requires = "group")]
    interface: Option<String>,
}

struct Echo;

impl Actor for Echo {
    type Message = ();

    fn datagram(&mut self, datagram: Datagram<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        // `false` says that too much waits to be sent; whoever asked will ask again.
        ctx.reply(&datagram, datagram.bytes());
        Ok(())
    }

    fn datagram_failed(&mut self, failure: DatagramFailure, _: &mut Context<'_, Self>) -> Outcome {
        log::info!("{failure}");
        Ok(())
    }
}

/// Binds one socket for each poller, or one that has joined a group.
fn serve(
    system: &System,
    addr: &str,
    group: Option<(IpAddr, Interface)>,
) -> io::Result<DatagramSockets<Echo>> {
    let options = match group {
        Some((group, interface)) => DatagramOptions::new().join(group, interface),
        None => DatagramOptions::new(),
    };
    system.bind_datagram_with(addr, options, || Echo)
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let interface = options.interface.map_or(Interface::Any, Interface::Name);
    let group = options.group.map(|group| (group, interface));
    let sockets = serve(&system, &options.common.addr, group)?;

    signals::stop_on(&system.handle(), Duration::from_secs(5))?;
    let addr = sockets.local_addr();
    let nc = match addr {
        DatagramAddr::Udp(addr) => format!("nc -u {} {}", addr.ip(), addr.port()),
        other => format!("nc -uU {}", other.path().unwrap_or("".as_ref()).display()),
    };
    println!("listening on {addr}; try: {nc}, then type a line");
    let handle = system.handle();
    system.run()?;
    let received = handle.stats().datagrams_received;
    support::say(format_args!("stopped after {received} datagrams"));
    Ok(())
}
