//! One request and its answer, from the head of the one to the last byte of the other.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;

use crate::actor::Actor;
use crate::context::Context;
use crate::http::date::Date;
use crate::http::head::Head;
use crate::http::responder::{Make, Reader};
use crate::http::response::{Begins, Content, Response, Switch, reason};
use crate::http::service::Service;
use crate::sys::read_file_at;

/// As much of a body is handed to the connection's output at a time: what is not copied costs no
/// memory, so it may be more than the output's high watermark.
const PART: usize = 1 << 20;

/// The lines around a chunk take no more.
const LINES: usize = 32;

/// As much of a file is read at a time, where it cannot be sent without that.
const READ: usize = 64 << 10;

/// A body of so many bytes is copied behind its head: that is one piece less to send.
const COPIED_MAX: usize = 4 << 10;

/// A request whose answer has not left.
pub(super) struct Exchange<S: Service> {
    pub(super) head: Head,
    /// Its client waits to be told that its body is wanted.
    pub(super) expects: bool,
    /// The connection ends behind its answer.
    pub(super) closes: bool,
    pub(super) answer: Option<Answer<S>>,
}

/// What is known of an answer.
pub(super) enum Answer<S: Service> {
    /// All, and nothing of it has been sent; with pieces where the body is streamed.
    Given(Response, Option<Pieces>),
    /// The head has been sent, and this is left.
    Body(Source),
    Upgrade(Switch, Make<S>),
}

impl<S: Service> Answer<S> {
    /// Whether the end of the connection is how the client is told the end of the body, which is not
    /// all there.
    pub(super) fn is_up_to_the_end(&self) -> bool {
        matches!(self, Answer::Body(Source::Pieces(pieces)) if !pieces.chunked)
    }

    /// The pieces of a body that is streamed.
    pub(super) fn pieces(&mut self) -> Option<&mut Pieces> {
        match self {
            Answer::Given(_, pieces) => pieces.as_mut(),
            Answer::Body(Source::Pieces(pieces)) => Some(pieces),
            Answer::Body(_) | Answer::Upgrade(..) => None,
        }
    }
}

/// Where a body comes from.
pub(super) enum Source {
    Bytes(Bytes),
    File { file: Arc<File>, at: u64, len: u64 },
    Pieces(Pieces),
}

/// A body that is streamed.
pub(super) struct Pieces {
    reader: Reader,
    pub(super) waiting: VecDeque<Bytes>,
    pub(super) end: End,
    chunked: bool,
}

/// What follows the pieces that are there.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum End {
    /// More of them.
    Open,
    Whole,
    Cut,
}

impl Pieces {
    pub(super) fn new(reader: Reader) -> Pieces {
        Pieces {
            reader,
            waiting: VecDeque::new(),
            end: End::Open,
            chunked: false,
        }
    }
}

/// How far an answer got.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Progress {
    /// All of it is in the connection's output.
    Done,
    /// As much as may.
    Waits,
    /// What was promised cannot be kept: the peer is to see that.
    Broken,
}

/// Sends the head of an answer and begins with the body; what is left of that, if anything. For the
/// `last` time nothing is sent where there is no room.
pub(super) fn send_head<A: Actor>(
    request: &Head,
    response: Response,
    pieces: Option<Pieces>,
    closes: bool,
    last: bool,
    ctx: &mut Context<'_, A>,
) -> (Option<Source>, bool) {
    let status = response.status;
    let is_bare = request.is_head || matches!(status, 204 | 205 | 304);
    let chunked = pieces.is_some() && !request.is_old;
    let mut digits = [0; 20];
    let length: &[&[u8]] = match (status, &pieces) {
        (204 | 304, _) => &[b"", b"", b""],
        (205, _) => &[b"Content-Length: ", b"0", b"\r\n"],
        (_, Some(_)) if chunked => &[b"Transfer-Encoding: ", b"chunked", b"\r\n"],
        (_, Some(_)) => &[b"", b"", b""],
        (_, None) => &[
            b"Content-Length: ",
            decimal(response.body.len(), &mut digits),
            b"\r\n",
        ],
    };
    let connection: &[u8] = match (closes, request.is_old) {
        (true, _) => b"Connection: close\r\n",
        (false, true) => b"Connection: keep-alive\r\n",
        (false, false) => b"",
    };
    let mut body = match (response.body, pieces) {
        _ if is_bare => None,
        (_, Some(mut pieces)) => {
            pieces.chunked = chunked;
            Some(Source::Pieces(pieces))
        }
        (Content::Bytes(bytes), None) => Some(Source::Bytes(bytes)),
        (Content::File { file, at, len }, None) => Some(Source::File { file, at, len }),
    };
    let date = Date::now(ctx);
    let (date, digits, first) = (date.borrow(), status_digits(status), &mut Bytes::new());
    let mut parts: [&[u8]; 14] = [
        b"HTTP/1.1 ",
        &digits,
        b" ",
        reason(status).as_bytes(),
        b"\r\nDate: ",
        date.text().as_bytes(),
        b"\r\n",
        connection,
        &response.fields,
        length[0],
        length[1],
        length[2],
        b"\r\n",
        b"",
    ];
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let room = ctx.call().options().output_max;
    let room = room.saturating_sub(ctx.queued() + len);
    if last && room == 0 {
        return (None, false);
    }
    if let Some(Source::Bytes(bytes)) = &mut body
        && bytes.len() <= COPIED_MAX.min(room)
    {
        *first = std::mem::take(bytes);
        parts[13] = first;
    }
    let written = ctx.write_parts(&parts);
    if matches!(&body, Some(Source::Bytes(bytes)) if bytes.is_empty()) {
        body = None;
    }
    (body, written)
}

/// Sends the answer with which another protocol begins.
pub(super) fn send_switch<A: Actor>(answer: Switch, ctx: &mut Context<'_, A>) {
    let bytes = match answer.0 {
        Begins::Bytes(bytes) => bytes,
        Begins::Response(response) => {
            let date = Date::now(ctx);
            let bytes = [
                b"HTTP/1.1 101 Switching Protocols\r\nDate: ",
                date.borrow().text().as_bytes(),
                b"\r\n",
                &response.fields,
                b"\r\n",
            ]
            .concat();
            bytes.into()
        }
    };
    ctx.write_kept(bytes);
}

impl Source {
    /// Sends on, up to the output's high watermark, or for the `last` time: then as much as may wait.
    /// `told` is set where whoever writes the body is to be told that there is room again.
    pub(super) fn send<A: Actor>(
        &mut self,
        last: bool,
        told: &mut bool,
        ctx: &mut Context<'_, A>,
    ) -> Progress {
        let options = ctx.call().options();
        // So that one on top of a little less than the watermark is within the budget.
        let room = options
            .output_max
            .saturating_sub(options.high_watermark + LINES);
        let part = PART.min(room).max(1);
        match self {
            Source::Bytes(bytes) => {
                while !bytes.is_empty() {
                    let len = part.min(bytes.len());
                    if !has_room(len, last, ctx) {
                        return Progress::Waits;
                    }
                    if !ctx.write_bytes(bytes.split_to(len)) {
                        return Progress::Broken;
                    }
                }
                Progress::Done
            }
            Source::File { file, at, len } => send_file(file, at, len, last, ctx),
            Source::Pieces(pieces) => pieces.send(part, last, told, ctx),
        }
    }
}

fn has_room<A: Actor>(len: usize, last: bool, ctx: &mut Context<'_, A>) -> bool {
    match last {
        true => ctx.queued() + len + LINES <= ctx.call().options().output_max,
        false => !ctx.is_above_high_watermark(),
    }
}

fn send_file<A: Actor>(
    file: &Arc<File>,
    at: &mut u64,
    len: &mut u64,
    last: bool,
    ctx: &mut Context<'_, A>,
) -> Progress {
    if *len > 0 && ctx.write_file(file.clone(), *at, *len).is_ok() {
        *len = 0;
    }
    // An adapter stands around this one and is to see all bytes.
    while *len > 0 {
        let most = usize::try_from(*len).unwrap_or(READ).min(READ);
        if !has_room(most, last, ctx) {
            return Progress::Waits;
        }
        let mut read = vec![0; most];
        match read_file_at(file, &mut read, *at) {
            Ok(0) => {
                log::warn!("http: a file ends before the part that was promised");
                return Progress::Broken;
            }
            Ok(n) => {
                read.truncate(n);
                *at += n as u64;
                *len -= n as u64;
            }
            Err(error) => {
                log::warn!("http: a file cannot be read: {error}");
                return Progress::Broken;
            }
        }
        if !ctx.write_bytes(read.into()) {
            return Progress::Broken;
        }
    }
    Progress::Done
}

impl Pieces {
    fn send<A: Actor>(
        &mut self,
        part: usize,
        last: bool,
        told: &mut bool,
        ctx: &mut Context<'_, A>,
    ) -> Progress {
        while let Some(first) = self.waiting.front_mut() {
            let len = part.min(first.len());
            if !has_room(len, last, ctx) {
                return Progress::Waits;
            }
            let piece = first.split_to(len);
            let is_all = first.is_empty();
            if is_all {
                self.waiting.pop_front();
            }
            if !self.send_piece(piece, ctx) {
                return Progress::Broken;
            }
            *told |= self.reader.release(len, usize::from(is_all));
        }
        match self.end {
            End::Open => Progress::Waits,
            End::Cut => Progress::Broken,
            End::Whole if self.chunked && !ctx.write("0\r\n\r\n") => Progress::Broken,
            End::Whole => Progress::Done,
        }
    }

    fn send_piece<A: Actor>(&self, piece: Bytes, ctx: &mut Context<'_, A>) -> bool {
        if !self.chunked {
            return ctx.write_bytes(piece);
        }
        let size = format!("{:x}\r\n", piece.len());
        if piece.len() <= COPIED_MAX {
            return ctx.write_parts(&[size.as_bytes(), &piece, b"\r\n"]);
        }
        ctx.write(size) && ctx.write_bytes(piece) && ctx.write("\r\n")
    }
}

fn status_digits(status: u16) -> [u8; 3] {
    [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8)
}

fn decimal(mut number: u64, room: &mut [u8; 20]) -> &[u8] {
    let mut at = room.len();
    loop {
        at -= 1;
        room[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &room[at..];
        }
    }
}
