//! Serves the files of a directory over HTTP, and lists it: large files to any number of slow
//! readers in flat memory, each at a limited rate if asked to.
//!
//!     cargo run --release --example file_server -- --dir . --rate 1000000
//!     curl -O http://127.0.0.1:9000/Cargo.lock
//!
//! One request for each connection: GET or HEAD, with a range or without. Files are opened, and
//! directories read, on a thread of the pool, since a disk may block. The kernel sends the contents
//! (`Context::write_file`).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use greenroom::{
    Actor, ConnectionOptions, Context, Input, ListenOptions, Listener, Outcome, System, TimerKey,
    WorkError,
};

mod support;

/// Bytes of a request. A longer one ends its connection.
const REQUEST_MAX: usize = 8 << 10;

/// How many names of a directory are listed.
const NAMES_MAX: usize = 10_000;

/// How often a connection with a limited rate gets its share: a whole number of times a second.
const TICK: Duration = Duration::from_millis(50);

/// Serves the files of a directory.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    common: support::Common,

    /// What is served, and nothing outside of it.
    #[arg(long, default_value = ".")]
    dir: PathBuf,

    /// Bytes a second for each connection [default: as fast as it takes them].
    #[arg(long, value_parser = clap::value_parser!(u64).range(20..))]
    rate: Option<u64>,
}

/// What was asked for.
#[derive(Debug, PartialEq)]
struct Request {
    path: String,
    is_head: bool,
    /// First byte and last, each if given: `5-`, `5-9`, `-9`.
    range: Option<(Option<u64>, Option<u64>)>,
}

/// What has been found.
enum Found {
    File {
        file: File,
        len: u64,
    },
    Listing(String),
    /// Nothing that is served, or nothing that can be.
    Nothing(Status),
}

type Status = &'static str;

const BAD_REQUEST: Status = "400 Bad Request";
const FORBIDDEN: Status = "403 Forbidden";
const NOT_FOUND: Status = "404 Not Found";
const NOT_ALLOWED: Status = "405 Method Not Allowed";
const NOT_SATISFIABLE: Status = "416 Range Not Satisfiable";
const FAILED: Status = "500 Internal Server Error";
const BUSY: Status = "503 Service Unavailable";

struct Session {
    root: Arc<Path>,
    rate: Option<u64>,
    /// What the pool looks for.
    asked: Option<Request>,
    /// What is still to be sent of a file, slice by slice.
    sending: Option<(Arc<File>, Range<u64>)>,
}

impl Session {
    fn answer(&mut self, found: Found, request: &Request, ctx: &mut Context<'_, Self>) -> Outcome {
        let is_head = request.is_head;
        match found {
            Found::Nothing(status) => refuse(status, is_head, ctx),
            Found::Listing(text) => {
                head(
                    "200 OK",
                    "text/html; charset=utf-8",
                    text.len() as u64,
                    "",
                    ctx,
                );
                if !is_head {
                    ctx.write(text);
                }
                ctx.close();
            }
            Found::File { file, len } => {
                let (status, part) = match request.range {
                    None => ("200 OK", 0..len),
                    Some(range) => match part_of(range, len) {
                        Some(part) => ("206 Partial Content", part),
                        None => {
                            refuse(NOT_SATISFIABLE, is_head, ctx);
                            return Ok(());
                        }
                    },
                };
                let mut more = "Accept-Ranges: bytes\r\n".to_owned();
                if request.range.is_some() {
                    let (first, last) = (part.start, part.end - 1);
                    let _ = write!(more, "Content-Range: bytes {first}-{last}/{len}\r\n");
                }
                let part_len = part.end - part.start;
                head(status, "application/octet-stream", part_len, &more, ctx);
                if is_head {
                    ctx.close();
                } else if self.rate.is_none() {
                    ctx.write_file(file, part.start, part_len)?;
                    ctx.close();
                } else {
                    self.sending = Some((Arc::new(file), part));
                    ctx.set_interval(TICK);
                    self.send_slice(ctx)?;
                }
            }
        }
        Ok(())
    }

    /// Sends the share of one tick, unless the peer has not taken the last one yet.
    fn send_slice(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        let (Some((file, part)), Some(rate)) = (&mut self.sending, self.rate) else {
            return Ok(());
        };
        let share = rate / (1000 / TICK.as_millis() as u64);
        let len = share.min(part.end - part.start);
        ctx.write_file(file.clone(), part.start, len)?;
        part.start += len;
        if part.is_empty() {
            ctx.close();
        }
        Ok(())
    }
}

impl Actor for Session {
    type Message = Result<Found, WorkError>;

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.asked.is_some() {
            // One request for each connection.
            input.take_all();
            return Ok(());
        }
        let end = end_of_head(input.bytes());
        if end.unwrap_or(input.len()) > REQUEST_MAX {
            input.take_all();
            refuse(BAD_REQUEST, false, ctx);
            return Ok(());
        }
        let Some(end) = end else { return Ok(()) };
        let request = input.take(end).unwrap_or_default();
        match parse(request) {
            Err(status) => refuse(status, false, ctx),
            Ok(request) => {
                let (root, path) = (self.root.clone(), request.path.clone());
                let is_head = request.is_head;
                self.asked = Some(request);
                if ctx
                    .offload(move || find(&root, &path), |found| found)
                    .is_err()
                {
                    refuse(BUSY, is_head, ctx);
                }
            }
        }
        Ok(())
    }

    fn message(&mut self, found: Self::Message, ctx: &mut Context<'_, Self>) -> Outcome {
        let Some(request) = self.asked.take() else {
            return Ok(());
        };
        let outcome = self.answer(found.unwrap_or(Found::Nothing(FAILED)), &request, ctx);
        self.asked = Some(request);
        outcome
    }

    fn timer(&mut self, _: TimerKey, ctx: &mut Context<'_, Self>) -> Outcome {
        if ctx.queued() == 0 {
            self.send_slice(ctx)?;
        }
        Ok(())
    }

    /// Who sends its request and half-closes still gets its answer, which closes.
    fn read_closed(&mut self, ctx: &mut Context<'_, Self>) -> Outcome {
        if self.asked.is_none() {
            ctx.close();
        }
        Ok(())
    }

    /// So does who has asked before the end, as far as there is time.
    fn stopping(&mut self, _deadline: Instant, ctx: &mut Context<'_, Self>) -> Outcome {
        self.read_closed(ctx)
    }
}

fn head(status: Status, kind: &str, len: u64, more: &str, ctx: &mut Context<'_, Session>) {
    ctx.write(format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len}\r\n{more}Connection: close\r\n\r\n"
    ));
}

fn refuse(status: Status, is_head: bool, ctx: &mut Context<'_, Session>) {
    let text = format!("{status}\n");
    head(status, "text/plain", text.len() as u64, "", ctx);
    if !is_head {
        ctx.write(text);
    }
    ctx.close();
}

/// How long the head of a request is, with the empty line behind it, once that has come.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(len) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[at..at + len];
        at += len + 1;
        if line.is_empty() || line == b"\r" {
            return Some(at);
        }
    }
    None
}

fn parse(head: &[u8]) -> Result<Request, Status> {
    let head = std::str::from_utf8(head).map_err(|_| BAD_REQUEST)?;
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or("").split(' ');
    let is_head = match words.next() {
        Some("GET") => false,
        Some("HEAD") => true,
        Some(method) if !method.is_empty() => return Err(NOT_ALLOWED),
        _ => return Err(BAD_REQUEST),
    };
    let target = words.next().ok_or(BAD_REQUEST)?;
    if !words
        .next()
        .is_some_and(|version| version.starts_with("HTTP/1."))
    {
        return Err(BAD_REQUEST);
    }
    let path = target.split(['?', '#']).next().unwrap_or("");
    let path = decode(path.strip_prefix('/').ok_or(BAD_REQUEST)?).ok_or(BAD_REQUEST)?;
    let range = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("range").then_some(value.trim())
    });
    // What cannot be read, several ranges among it, may be passed over.
    let range = range.and_then(|value| value.strip_prefix("bytes="));
    let range = range.and_then(|value| value.split_once('-'));
    let range = range.and_then(|(first, last)| match (first, last) {
        ("", last) => Some((None, Some(last.parse().ok()?))),
        (first, "") => Some((Some(first.parse().ok()?), None)),
        (first, last) => Some((Some(first.parse().ok()?), Some(last.parse().ok()?))),
    });
    Ok(Request {
        path,
        is_head,
        range,
    })
}

/// Resolves `%41` and the like.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

/// The bytes that a range means of so many; none where it lies behind them.
fn part_of(range: (Option<u64>, Option<u64>), len: u64) -> Option<Range<u64>> {
    let part = match range {
        (None, last) => len.saturating_sub(last?)..len,
        (Some(first), None) => first..len,
        (Some(first), Some(last)) if first <= last => first..len.min(last.saturating_add(1)),
        _ => return None,
    };
    (part.start < part.end).then_some(part)
}

/// Opens what a path names below `root`. Blocks.
fn find(root: &Path, path: &str) -> Found {
    let is_below = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(path).components().all(is_below) {
        return Found::Nothing(FORBIDDEN);
    }
    open(root, path).unwrap_or_else(|error| {
        Found::Nothing(match error.kind() {
            io::ErrorKind::PermissionDenied => FORBIDDEN,
            _ => NOT_FOUND,
        })
    })
}

fn open(root: &Path, path: &str) -> io::Result<Found> {
    // Links may lead anywhere.
    let real = root.join(path).canonicalize()?;
    if !real.starts_with(root) {
        return Ok(Found::Nothing(FORBIDDEN));
    }
    // Asked before it is opened: to open a pipe would wait for somebody to write.
    let metadata = fs::metadata(&real)?;
    if metadata.is_dir() {
        return Ok(Found::Listing(list(&real, path)?));
    }
    if !metadata.is_file() {
        return Ok(Found::Nothing(NOT_FOUND));
    }
    let file = File::open(&real)?;
    let len = file.metadata()?.len();
    Ok(Found::File { file, len })
}

fn list(dir: &Path, path: &str) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)?.take(NAMES_MAX) {
        let entry = entry?;
        let mut name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            name.push('/');
        }
        names.push(name);
    }
    names.sort();
    let path = path.trim_matches('/');
    let base = if path.is_empty() {
        String::new()
    } else {
        format!("/{path}")
    };
    let mut text = format!("<title>{0}/</title><h1>{0}/</h1><ul>\n", escape(&base));
    for name in names {
        let href = encode(&format!("{base}/{name}"));
        let _ = writeln!(text, "<li><a href=\"{href}\">{}</a>", escape(&name));
    }
    text.push_str("</ul>\n");
    Ok(text)
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

fn encode(path: &str) -> String {
    let mut encoded = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Serves what is below `dir`, at so many bytes a second for each connection.
pub(crate) fn serve(
    system: &System,
    addr: &str,
    dir: &Path,
    rate: Option<u64>,
) -> io::Result<Listener> {
    // What cannot be listed is none, or not for us.
    let root = dir.canonicalize().and_then(|root| {
        fs::read_dir(&root)?;
        Ok(root)
    });
    let root = root.map_err(|error| {
        io::Error::new(error.kind(), format!("--dir {}: {error}", dir.display()))
    })?;
    let root: Arc<Path> = root.into();
    let connection = ConnectionOptions::new()
        .input_max(2 * REQUEST_MAX)
        .incomplete_timeout(Duration::from_secs(10))
        .idle_timeout(Duration::from_secs(60));
    let listen = ListenOptions::new().connection(connection);
    system.listen_with(addr, listen, move |_peer| Session {
        root: root.clone(),
        rate,
        asked: None,
        sending: None,
    })
}

fn main() -> Result<(), support::Error> {
    let options = Options::parse();
    let system = options.common.builder().build()?;
    let addr = options.common.addr.as_str();
    let listener = serve(&system, addr, &options.dir, options.rate)?;
    let url = support::for_curl(listener.local_addr());
    let then = format!(", then type `GET / HTTP/1.0` and an empty line; or: curl {url}");
    support::run_until_signal(system, &listener, &then)
}
