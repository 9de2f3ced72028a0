//! Protobuf messages over TCP: a server that sums up what sensors report, and its client.
//!
//!     cargo run --release --example protobuf
//!     cargo run --release --example protobuf -- --client
//!     report kitchen 21.5
//!     report kitchen 22.5
//!     query kitchen
//!
//! The messages are those of `telemetry.proto`, each with its length in front, as a varint: what
//! protobuf's own libraries call delimited (`writeDelimitedTo`, `length_prefixed`). They are derived
//! by prost, in `messages.rs`, without a build script.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use clap::Parser;
use greenroom::protocol::{Frame, FrameActor, Framed, LengthPrefixed, Prefix};
use greenroom::{Actor, Context, Listener, Outcome, System};
use prost::Message;

#[allow(unreachable_pub, reason = "as prost's own generator writes them")]
mod messages;
#[path = "../support/mod.rs"]
mod support;

use messages::{Query, Reading, Reason, Refusal, Request, Response, Summary, request, response};

/// Bytes of a message, its length not among them. A longer one ends its connection before any of it
/// is waited for.
const MESSAGE_MAX: usize = 16 << 10;

/// Sensors of one connection. Each costs its name, so at most 16 MiB together.
const SENSORS_MAX: usize = 1024;

/// Protobuf messages over TCP: a server that sums up what sensors report, and its client.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Connect to --addr instead, and send what is typed: report SENSOR VALUE, or query SENSOR.
    #[arg(long)]
    client: bool,
}

/// One connection, and what was reported on it.
#[derive(Default)]
struct Server {
    sensors: BTreeMap<String, Summary>,
}

impl Actor for Server {
    type Message = ();
}

impl FrameActor for Server {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        // What is no message closes the connection, and the log says why.
        let Request { id, kind } = Request::decode(&frame[..])?;
        let kind = Some(self.answer(kind));
        ctx.write_frame(Response { id, kind }.encode_to_vec())?;
        Ok(())
    }
}

impl Server {
    fn answer(&mut self, kind: Option<request::Kind>) -> response::Kind {
        match kind {
            Some(request::Kind::Reading(reading)) => self.take(reading),
            Some(request::Kind::Query(Query { sensor })) => match self.sensors.get(&sensor) {
                Some(summary) => response::Kind::Summary(*summary),
                None => refuse(Reason::UnknownSensor, "nothing was reported of it"),
            },
            None => refuse(Reason::UnknownRequest, "neither a reading nor a query"),
        }
    }

    fn take(&mut self, Reading { sensor, value }: Reading) -> response::Kind {
        let is_full = self.sensors.len() >= SENSORS_MAX;
        if is_full && !self.sensors.contains_key(&sensor) {
            return refuse(Reason::TooManySensors, "of another one, that is");
        }
        let summary = self.sensors.entry(sensor).or_insert(Summary {
            count: 0,
            least: value,
            mean: 0.0,
            most: value,
        });
        summary.count += 1;
        summary.least = summary.least.min(value);
        summary.most = summary.most.max(value);
        summary.mean += (value - summary.mean) / summary.count as f64;
        response::Kind::Taken(summary.count)
    }
}

fn refuse(reason: Reason, text: &str) -> response::Kind {
    response::Kind::Refusal(Refusal {
        reason: reason.into(),
        text: text.into(),
    })
}

/// Serves whoever connects.
fn serve(system: &System, addr: &str) -> io::Result<Listener> {
    system.listen(addr, |_peer| {
        let codec = LengthPrefixed::new(Prefix::Varint, MESSAGE_MAX);
        Framed::new(codec, Server::default())
    })
}

// ---- the client ---------------------------------------------------------------------------------

/// What is typed, as a request.
fn request(line: &str) -> Result<request::Kind, &'static str> {
    let mut words = line.split_whitespace();
    let kind = match (words.next(), words.next(), words.next(), words.next()) {
        (Some("report"), Some(sensor), Some(value), None) => request::Kind::Reading(Reading {
            sensor: sensor.into(),
            value: value.parse().map_err(|_| "the value is no number")?,
        }),
        (Some("query"), Some(sensor), None, None) => request::Kind::Query(Query {
            sensor: sensor.into(),
        }),
        _ => return Err("say: report SENSOR VALUE, or query SENSOR"),
    };
    Ok(kind)
}

/// Reads a response and its length. Blocking, as befits a client.
fn read(from: &mut impl Read) -> io::Result<Response> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text);
    let (mut len, mut shift) = (0_u64, 0);
    loop {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        len |= u64::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] & 0x80 == 0 {
            break;
        }
        if shift > 56 {
            return Err(invalid("the server has sent a length that is none"));
        }
    }
    if len > MESSAGE_MAX as u64 {
        return Err(invalid("the server has sent a message that is too long"));
    }
    let mut message = vec![0; len as usize];
    from.read_exact(&mut message)?;
    Ok(Response::decode(&message[..])?)
}

/// Sends each line of `lines` as a request and writes each answer to `out`.
fn talk(
    addr: &str,
    lines: impl Iterator<Item = io::Result<String>>,
    out: &mut impl Write,
) -> io::Result<()> {
    let stream = TcpStream::connect(addr)
        .map_err(|error| io::Error::new(error.kind(), format!("connect to {addr}: {error}")))?;
    let (mut writer, mut reader) = (stream.try_clone()?, BufReader::new(stream));
    for (line, id) in lines.zip(1..) {
        let kind = match request(&line?) {
            Ok(kind) => Some(kind),
            Err(error) => {
                writeln!(out, "{error}")?;
                continue;
            }
        };
        writer.write_all(&Request { id, kind }.encode_length_delimited_to_vec())?;
        match read(&mut reader)?.kind {
            Some(response::Kind::Taken(1)) => writeln!(out, "taken: the first reading")?,
            Some(response::Kind::Taken(count)) => writeln!(out, "taken: {count} readings")?,
            Some(response::Kind::Summary(summary)) => {
                let Summary {
                    count,
                    least,
                    mean,
                    most,
                } = summary;
                writeln!(
                    out,
                    "{count} readings from {least} to {most}, {mean} on average"
                )?;
            }
            Some(response::Kind::Refusal(refusal)) => {
                writeln!(out, "refused: {:?}: {}", refusal.reason(), refusal.text)?;
            }
            None => writeln!(out, "an answer that this client does not know")?,
        }
    }
    Ok(())
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let addr = options.common.addr.as_str();
    if options.client {
        let out = &mut io::stdout();
        return Ok(talk(addr, io::stdin().lock().lines(), out)?);
    }
    let system = options.common.builder().build()?;
    let listener = serve(&system, addr)?;
    let client = format!(
        "cargo run --release --example protobuf -- --client --addr {}",
        listener.local_addr()
    );
    support::run_until_signal_saying(system, &listener, &client)
}
