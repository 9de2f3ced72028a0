//! Promise 8: what is bounded, and what happens at the bound.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Run;
use crate::record::{Answer, Callback, Event, Id, Kind};
use crate::scenario::FAREWELL;

/// One read of a poller: what an actor may be shown beyond what is kept for it.
const READ_MAX: usize = 64 << 10;

/// Promise 8: Memory is bounded by what was configured, and each bound has its policy.
pub fn memory_is_bounded(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, stream) in &run.record.streams {
        let limits = &run.plan.listeners[stream.listener];
        if stream.shown_max > limits.input_max + READ_MAX {
            wrong.push(format!(
                "{} bytes of input were kept for actor {id}, which may have {}",
                stream.shown_max, limits.input_max
            ));
        }
        if stream.went_on && limits.slow != greenroom::SlowReader::PauseSource {
            wrong.push(format!(
                "actor {id} left more than the {} bytes that may be kept for it, and went on",
                limits.input_max
            ));
        }
        if stream.queued_max > limits.output_max {
            wrong.push(format!(
                "{} bytes of output waited for actor {id}, which may have {}",
                stream.queued_max, limits.output_max
            ));
        }
    }
    wrong.extend(mailboxes_are_bounded(run));
    wrong.extend(a_flood_leaves_room(run));
    wrong.extend(listeners_are_bounded(run));
    wrong.extend(who_waits_is_told(run));
    wrong
}

fn mailboxes_are_bounded(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut places: HashMap<u64, (Kind, usize)> = HashMap::new();
    let mut waiting: HashMap<(Kind, usize), usize> = HashMap::new();
    let mut doubled = HashSet::new();
    let mut home = HashMap::new();
    for (_, event) in run.events() {
        match *event {
            Event::Enters { id, poller, .. } => {
                home.insert(id, poller);
            }
            // Who waits for the mailbox of its own kind may pass the bound, up to twice.
            Event::Waits { id, place } => {
                let own = run.lives.get(&id).map(|life| life.kind) == Some(place.0);
                if own && home.get(&id) == Some(&place.1) {
                    doubled.insert(place);
                }
            }
            Event::Sent {
                letter,
                place,
                answer: Answer::Accepted,
                ..
            } => {
                places.insert(letter, place);
                let waiting = waiting.entry(place).or_default();
                *waiting += 1;
                let bound = run.plan.mailbox_bound;
                let bound = if doubled.contains(&place) {
                    2 * bound
                } else {
                    bound
                };
                if *waiting > bound {
                    wrong.push(format!(
                        "{waiting} letters wait in the mailbox of {place:?}, which has room for {bound}"
                    ));
                }
            }
            Event::LetterDropped { letter } => {
                if let Some(place) = places.remove(&letter) {
                    *waiting.entry(place).or_default() -= 1;
                }
            }
            _ => {}
        }
    }
    wrong.truncate(3);
    wrong
}

/// In a mailbox that is more than half full nobody holds more places than are free.
fn a_flood_leaves_room(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut letters: HashMap<u64, ((Kind, usize), Id, bool)> = HashMap::new();
    let mut waiting: HashMap<(Kind, usize), usize> = HashMap::new();
    let mut held: HashMap<Id, usize> = HashMap::new();
    let waits = |wanted: Kind| {
        let mut events = run.events();
        events.any(
            |(_, event)| matches!(event, Event::Waits { place: (kind, _), .. } if *kind == wanted),
        )
    };
    // Who waits for his own mailbox is let in beyond his share.
    let exempt = [Kind::Connection, Kind::Kid].map(|kind| (kind, waits(kind)));
    let bound = run.plan.mailbox_bound;
    for (_, event) in run.events() {
        match *event {
            Event::Sent {
                letter,
                to,
                place,
                answer: Answer::Accepted,
                ..
            } if !exempt.contains(&(place.0, true)) => {
                let waiting = waiting.entry(place).or_default();
                let is_crowded = *waiting >= bound.div_ceil(2);
                if is_crowded {
                    let held = held.entry(to).or_default();
                    if *held >= bound.saturating_sub(*waiting) {
                        wrong.push(format!(
                            "actor {to} holds {held} places of the mailbox of {place:?}, and gets one \
                             more of the last {}",
                            bound.saturating_sub(*waiting)
                        ));
                    }
                    *held += 1;
                }
                *waiting += 1;
                letters.insert(letter, (place, to, is_crowded));
            }
            Event::LetterDropped { letter } => {
                if let Some((place, to, was_crowded)) = letters.remove(&letter) {
                    *waiting.entry(place).or_default() -= 1;
                    *held.entry(to).or_default() -= usize::from(was_crowded);
                }
            }
            _ => {}
        }
    }
    wrong.truncate(3);
    wrong
}

fn listeners_are_bounded(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut there = vec![0_usize; run.plan.listeners.len()];
    for (place, event) in run.events() {
        match *event {
            Event::Made {
                id,
                listener: Some(listener),
                ..
            } => {
                let limits = &run.plan.listeners[listener];
                there[listener] += 1;
                if there[listener] > limits.max {
                    wrong.push(format!(
                        "actor {id} is connection {} of listener {listener}, which may have {}",
                        there[listener], limits.max
                    ));
                }
            }
            Event::Closed { id, .. } => {
                if let Some(listener) = run.lives.get(&id).and_then(|life| life.listener) {
                    there[listener] = there[listener].saturating_sub(1);
                }
            }
            Event::AtRest => wrong.extend(backlogs_are_served(run, &there, place)),
            _ => {}
        }
    }
    for client in &run.record.clients {
        let limits = &run.plan.listeners[client.listener];
        let mut streams = run.record.streams.values();
        let is_served = streams.any(|stream| {
            stream.client == Some(client.number)
                || stream.client.is_none() && stream.written.starts_with(&client.received)
        });
        if limits.refuses && !is_served && !FAREWELL.starts_with(&client.received) {
            wrong.push(format!(
                "client {}, which was turned away, got something else than it was to be told",
                client.number
            ));
        }
    }
    wrong
}

/// Where there is room below a limit, nobody waits.
fn backlogs_are_served(run: &Run<'_>, there: &[usize], rest: usize) -> Vec<String> {
    let closes = |wanted: usize| {
        let mut before = run.events().take_while(|(place, _)| *place < rest);
        before.any(
            |(_, event)| matches!(event, Event::ListenerCloses { listener } if *listener == wanted),
        )
    };
    let mut wrong = Vec::new();
    for (listener, limits) in run.plan.listeners.iter().enumerate() {
        let clients = run.record.clients.iter();
        let ours = clients.filter(|client| client.listener == listener && !client.is_unlucky);
        let open = ours.filter(|client| client.was_open_at_rest).count();
        let there = there[listener];
        if open > there && there < limits.max && !closes(listener) {
            wrong.push(format!(
                "listener {listener} has {there} connections, room for {}, and {open} clients",
                limits.max
            ));
        }
    }
    wrong
}

fn who_waits_is_told(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut waiting: BTreeMap<Id, (Kind, usize)> = BTreeMap::new();
    for (place, event) in run.events() {
        match *event {
            Event::Waits { id, place } => {
                waiting.entry(id).or_insert(place);
            }
            Event::Enters {
                id,
                callback: Callback::Room,
                ..
            } => {
                waiting.remove(&id);
            }
            Event::AtRest => {
                for (id, what) in &waiting {
                    if !run.is_gone(*id, place) {
                        wrong.push(format!("actor {id} waits for room at {what:?} for ever"));
                    }
                }
            }
            _ => {}
        }
    }
    wrong
}
