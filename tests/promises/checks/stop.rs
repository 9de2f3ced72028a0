//! Promise 11: how it ends.

use std::time::Duration;

use super::{ENDLESS, FILES, NEVER_ENDS, Run};
use crate::record::{Event, Kind};

/// ... and one that got no processor for a while.
const STALL: Duration = Duration::from_secs(5);

/// How late a poller may be that nothing holds up.
const SLACK: Duration = Duration::from_millis(50);

/// Promise 11: Stopping is graceful.
pub fn stopping_is_graceful(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let slack = if run.plan.stops_early { STALL } else { SLACK };
    let over = run.is_over();
    let said = run.record.crash.iter();
    let said = said.filter(|text| {
        let endless = text.contains(ENDLESS) && run.stop < usize::MAX;
        endless || text.contains(NEVER_ENDS) || text.contains(FILES)
    });
    wrong.extend(said.cloned());
    let ours = run.lives.iter();
    for (id, life) in ours.filter(|(_, life)| life.kind != Kind::Visitor) {
        match life.closed {
            Some((place, at, reason)) if place > run.stop => {
                if at > run.deadline + slack {
                    wrong.push(format!(
                        "actor {id} is closed at {at:?}, and the system was to stop by {:?}",
                        run.deadline
                    ));
                }
                if reason == "stopped" && life.kind == Kind::Connection && at < run.deadline {
                    wrong.push(format!(
                        "connection {id} is cut off at {at:?}, and had time until {:?}",
                        run.deadline
                    ));
                }
            }
            Some(_) => {}
            None if over && !life.calls.is_empty() => {
                wrong.push(format!("actor {id} outlives its system"));
            }
            None => {}
        }
    }
    for (id, stream, client) in run.pairs() {
        let closed = run.lives.get(&id).and_then(|life| life.closed);
        let after = closed.is_some_and(|(place, ..)| place > run.stop);
        let has_all = client.received.len() == stream.written.len() && !client.was_reset;
        if after && over && run.ends_in_peace(id, client) && !has_all {
            wrong.push(format!(
                "client {} got {} of the {} bytes that were written to it before the stop or at it",
                client.number,
                client.received.len(),
                stream.written.len()
            ));
        }
    }
    wrong.extend(who_is_connected_is_served(run));
    for (_, event) in run.events() {
        if *event == Event::ServedAfterStop {
            wrong.push("a client came after the stop, and has a connection".to_owned());
        }
    }
    wrong
}

/// A listener that closes accepts its backlog first: whose connect was answered has an actor.
fn who_is_connected_is_served(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    // Past its deadline a poller takes nobody any more.
    if run.plan.within < STALL || run.record.crash.is_some() {
        return wrong;
    }
    for (number, limits) in run.plan.listeners.iter().enumerate() {
        let count = |wanted: &dyn Fn(&Event) -> bool| {
            run.events().filter(|(_, event)| wanted(event)).count()
        };
        let made = count(
            &|event| matches!(event, Event::Made { listener: Some(listener), .. } if *listener == number),
        );
        // Of whichever factory.
        let panicked = count(&|event| matches!(event, Event::Panics { id: None }));
        let clients = run.record.clients.iter();
        let ours = clients.filter(|client| client.listener == number);
        let connected = ours
            .filter(|client| client.is_connected && !client.is_unlucky)
            .count();
        if limits.max == usize::MAX && connected > made + panicked {
            wrong.push(format!(
                "{connected} clients were connected to listener {number} before it closed, and {made} actors made for them"
            ));
        }
    }
    wrong
}
