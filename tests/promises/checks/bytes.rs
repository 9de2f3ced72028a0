//! Promise 5: what is written leaves.

use super::Run;
use crate::record::Event;

/// Promise 5: Bytes given to `write` leave in order, whole, or the connection closes with a reason.
pub fn bytes_leave_whole(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, stream, client) in run.pairs() {
        let number = client.number;
        if let Some(at) = parts_at(&client.received, &stream.written) {
            wrong.push(format!(
                "what client {number} received differs at byte {at} of {} from what actor {id} wrote",
                client.received.len()
            ));
        }
        if let Some(at) = parts_at(&stream.input, &client.sent) {
            wrong.push(format!(
                "what actor {id} was shown differs at byte {at} of {} from what client {number} sent",
                stream.input.len()
            ));
        }
        if stream.is_ended && stream.kept > 0 && !stream.has_seen_end {
            wrong.push(format!(
                "actor {id} is told the end, and is not shown the {} bytes once more that it left",
                stream.kept
            ));
        }
        let shown = stream.input.len() + stream.kept;
        let all = client.sent.len();
        if stream.is_ended && client.half_closed && !client.is_unlucky && shown != all {
            wrong.push(format!(
                "actor {id} is told the end after {shown} of the {all} bytes of client {number}"
            ));
        }
        let closed = run.lives.get(&id).and_then(|life| life.closed);
        if let Some((_, at, reason @ ("reset" | "io"))) = closed
            && !client.is_unlucky
            && at < run.deadline
        {
            wrong.push(format!(
                "actor {id} is told {reason}, and nothing has befallen its client {number}"
            ));
        }
        // Whatever the reason: what was thrown away is not to be taken for never written. Over a Unix
        // socket, which knows no reset, it cannot be told.
        let is_unix = run.plan.listeners[client.listener].is_unix();
        let is_orderly = client.is_closed && client.is_connected && !client.was_reset;
        if is_orderly && !is_unix && client.reads && client.received.len() < stream.written.len() {
            wrong.push(format!(
                "client {number} got {} of the {} bytes that actor {id} wrote, and an orderly end",
                client.received.len(),
                stream.written.len()
            ));
        }
        let has_all = client.received.len() == stream.written.len() && !client.was_reset;
        if let Some((place, _, reason)) = closed
            && place < run.stop
            && run.ends_in_peace(id, client)
            && !has_all
        {
            wrong.push(format!(
                "actor {id} has {reason}, and client {number} got {} of {} bytes{}",
                client.received.len(),
                stream.written.len(),
                if client.was_reset { " and a reset" } else { "" }
            ));
        }
    }
    for stream in run.record.streams.values() {
        if let Some(number) = stream.client
            && !run
                .record
                .clients
                .iter()
                .any(|client| client.number == number)
        {
            wrong.push(format!(
                "an actor was shown bytes of client {number}, who never was"
            ));
        }
    }
    for (place, event) in run.events() {
        match event {
            Event::WroteInClosed { id } => wrong.push(format!(
                "a write in `closed` of actor {id} was taken, and led nowhere"
            )),
            Event::StreamAtRest {
                id,
                written,
                received,
            } if written != received && !run.is_gone(*id, place) => {
                let client = run.pairs().find(|(pair, ..)| pair == id);
                if client.is_some_and(|(.., client)| !client.is_unlucky && client.reads) {
                    wrong.push(format!(
                        "actor {id} wrote {written} bytes; {received} have come, and nothing moves"
                    ));
                }
            }
            _ => {}
        }
    }
    wrong
}

/// Where `part` is no longer the beginning of `whole`.
fn parts_at(part: &[u8], whole: &[u8]) -> Option<usize> {
    if whole.starts_with(part) {
        return None;
    }
    let differs = part.iter().zip(whole).position(|(a, b)| a != b);
    differs.or((part.len() > whole.len()).then_some(whole.len()))
}
