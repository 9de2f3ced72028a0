//! A protocol of one's own: frames with their length in front, requests and answers.
//!
//!     cargo run --release --example length_prefixed
//!     cargo run --release --example length_prefixed -- --client
//!     upper hello world
//!
//! or by hand, which answers `HI`:
//!
//!     printf '\0\0\0\10\5upperhi' | nc -N 127.0.0.1 9000 | xxd
//!
//! A frame is four bytes of length, most significant first and not counting themselves, and so many
//! bytes. In a request these are one byte with the length of a verb, the verb, and its argument; in an
//! answer one byte, 0 for done and 1 for refused, and a text.

use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;

use clap::Parser;
use greenroom::protocol::{Frame, FrameActor, Framed, LengthPrefixed, Prefix};
use greenroom::{Actor, Context, Listener, Outcome, System};

mod support;

/// Bytes of a frame, its length not among them. A longer one ends its connection before any of it
/// is waited for.
const FRAME_MAX: usize = 64 << 10;

const DONE: u8 = 0;
const REFUSED: u8 = 1;

/// A protocol of one's own: frames with their length in front.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// Connect to --addr, HOST:PORT, instead, send each line that is typed as a request, and show the
    /// answer.
    #[arg(long)]
    client: bool,
}

struct Server;

impl Actor for Server {
    type Message = ();
}

impl FrameActor for Server {
    /// Takes one request, without the length in front of it, and answers it in the same way.
    fn frame(&mut self, request: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        let (kind, mut answer) = answer(&request);
        answer.insert(0, kind);
        ctx.write_frame(answer)?;
        Ok(())
    }
}

/// What a request is answered.
fn answer(frame: &[u8]) -> (u8, Vec<u8>) {
    let refused = |why: &str| (REFUSED, why.as_bytes().to_vec());
    let Some((&len, rest)) = frame.split_first() else {
        return refused("an empty request");
    };
    let Some((verb, argument)) = rest.split_at_checked(usize::from(len)) else {
        return refused("a verb longer than its frame");
    };
    match verb {
        b"echo" => (DONE, argument.to_vec()),
        b"upper" => (DONE, argument.to_ascii_uppercase()),
        b"reverse" => (DONE, argument.iter().rev().copied().collect()),
        b"length" => (DONE, argument.len().to_string().into_bytes()),
        _ => refused("the verbs are echo, upper, reverse and length"),
    }
}

/// A request as its frame.
fn request(verb: &str, argument: &str) -> io::Result<Vec<u8>> {
    let invalid = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
    let verb_len = u8::try_from(verb.len()).map_err(|_| invalid("the verb is too long"))?;
    let len = 1 + verb.len() + argument.len();
    let len = u32::try_from(len).map_err(|_| invalid("the request is too long"))?;
    let mut frame = len.to_be_bytes().to_vec();
    frame.push(verb_len);
    frame.extend_from_slice(verb.as_bytes());
    frame.extend_from_slice(argument.as_bytes());
    Ok(frame)
}

/// Serves whoever connects.
pub(crate) fn serve(system: &System, addr: &str) -> io::Result<Listener> {
    system.listen(addr, |_peer| {
        Framed::new(LengthPrefixed::new(Prefix::U32Be, FRAME_MAX), Server)
    })
}

/// Sends a frame and takes the one that answers it.
fn exchange(stream: &mut TcpStream, frame: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(frame)?;
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let mut answer = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Sends each line of `lines` and writes each answer to `out`. Blocking, as befits a client.
fn talk(
    addr: &str,
    lines: impl Iterator<Item = io::Result<String>>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut stream = TcpStream::connect(addr)
        .map_err(|error| io::Error::new(error.kind(), format!("connect to {addr}: {error}")))?;
    for line in lines {
        let line = line?;
        let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let frame = match request(verb, argument) {
            Ok(frame) => frame,
            Err(error) => {
                writeln!(out, "{error}")?;
                continue;
            }
        };
        let answer = exchange(&mut stream, &frame).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other("the server closed the connection"),
            _ => error,
        })?;
        let (kind, text) = answer.split_first().unwrap_or((&REFUSED, &[]));
        let said = if *kind == DONE { "" } else { "refused: " };
        writeln!(out, "{said}{}", String::from_utf8_lossy(text))?;
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
    let addr = listener.local_addr();
    let then = format!(", or better: the same command with --client --addr {addr}");
    support::run_until_signal(system, &listener, &then)
}
