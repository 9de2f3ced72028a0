//! Promises 3 and 4: what is sent arrives, once, in its order, and wakes who sleeps.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Run, SLEEPER};
use crate::record::{Answer, Callback, Event, Id};

/// Promise 3: A message that `send` accepted is delivered exactly once, in the order of its sender, or the
/// actor was gone: then it is counted and dropped.
pub fn accepted_is_delivered_once(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut accepted: BTreeMap<(Id, Id), Vec<u64>> = BTreeMap::new();
    let mut delivered: BTreeMap<(Id, Id), Vec<u64>> = BTreeMap::new();
    let mut dropped = HashSet::new();
    for (_, event) in run.events() {
        match *event {
            Event::Sent {
                letter,
                from,
                to,
                answer: Answer::Accepted,
                ..
            } => accepted.entry((from, to)).or_default().push(letter),
            Event::Delivered {
                letter, from, to, ..
            } => delivered.entry((from, to)).or_default().push(letter),
            Event::LetterDropped { letter } => {
                dropped.insert(letter);
            }
            _ => {}
        }
    }
    let nothing = Vec::new();
    for (pair, got) in &delivered {
        let (from, to) = pair;
        let sent = accepted.get(pair).unwrap_or(&nothing);
        let whole = got.len() <= sent.len() && got[..] == sent[..got.len()];
        if !whole {
            let first = got
                .iter()
                .zip(sent.iter().chain([&0]))
                .find(|(a, b)| a != b);
            wrong.push(format!(
                "of the letters from {from} to {to}, {} were accepted and {} delivered, not one after \
                 the other and each once: first {first:?} (delivered, accepted)",
                sent.len(),
                got.len()
            ));
        }
    }
    let mut undelivered = 0;
    for (pair, sent) in &accepted {
        let got = delivered.get(pair).unwrap_or(&nothing).len();
        undelivered += sent.len().saturating_sub(got);
        for letter in sent {
            if !dropped.contains(letter) && run.record.crash.is_none() {
                wrong.push(format!("letter {letter} is kept for ever"));
            }
        }
        if got < sent.len() && !run.is_gone(pair.1, usize::MAX) && run.record.crash.is_none() {
            wrong.push(format!(
                "letter {} to actor {}, which never ended, is not delivered",
                sent[got], pair.1
            ));
        }
    }
    let counted = run.record.stats.dead_letters;
    if undelivered as u64 > counted && run.record.crash.is_none() {
        wrong.push(format!(
            "{undelivered} letters were accepted and not delivered, but only {counted} are counted as dead"
        ));
    }
    wrong.extend(answers_come_once(run));
    wrong.extend(lines_come_once(run));
    wrong
}

fn answers_come_once(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut answers: BTreeMap<u64, (Id, u32)> = BTreeMap::new();
    for (place, event) in run.events() {
        match *event {
            Event::Asked { question, by } => {
                answers.insert(question, (by, 0));
            }
            Event::Answered { question, .. } => {
                let count = answers.get_mut(&question).map(|(_, count)| {
                    *count += 1;
                    *count
                });
                if count != Some(1) {
                    wrong.push(format!("question {question} is answered again"));
                }
            }
            Event::AtRest => {
                for (question, (by, count)) in &answers {
                    if *count == 0 && !run.is_gone(*by, place) {
                        wrong.push(format!("question {question} of actor {by} has no answer"));
                    }
                }
            }
            _ => {}
        }
    }
    wrong
}

fn lines_come_once(run: &Run<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut last: HashMap<(Id, Id), u64> = HashMap::new();
    let mut seen: HashSet<(u64, Id)> = HashSet::new();
    let mut owed: Vec<(u64, &Vec<Id>)> = Vec::new();
    let mut refused: HashMap<u64, &Vec<Id>> = HashMap::new();
    for (place, event) in run.events() {
        match event {
            Event::Line { hub, line, at } => {
                let last = last.entry((*hub, *at)).or_default();
                if *line <= *last {
                    wrong.push(format!(
                        "line {line} of hub {hub} comes to {at} after {last}"
                    ));
                }
                *last = *line;
                seen.insert((*line, *at));
            }
            Event::Pushed {
                line,
                refused: true,
                members,
                ..
            } => {
                refused.insert(*line, members);
            }
            Event::Pushed { line, members, .. } => owed.push((*line, members)),
            Event::PushedAgain { line, .. } => {
                owed.extend(refused.remove(line).map(|members| (*line, members)));
            }
            Event::AtRest => {
                for (line, members) in &owed {
                    for member in *members {
                        if !run.is_gone(*member, place) && !seen.contains(&(*line, *member)) {
                            wrong.push(format!("line {line} has not come to member {member}"));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    wrong
}

/// Promise 4: A wake is never lost; a poller that is awake costs its senders nothing, one that sleeps at
/// most one write.
pub fn no_wake_is_lost(run: &Run<'_>) -> Vec<String> {
    let crash = run.record.crash.iter();
    let sleeper = crash.filter(|text| text.contains(SLEEPER));
    let mut wrong: Vec<String> = sleeper.cloned().collect();
    let mut delivered = HashSet::new();
    let mut waiting: BTreeSet<Id> = BTreeSet::new();
    let mut sent = Vec::new();
    let mut woken: &[u64] = &[];
    let mut targets = HashMap::new();
    for (place, event) in run.events() {
        match event {
            Event::Delivered { letter, .. } => {
                delivered.insert(*letter);
            }
            Event::Sent {
                letter,
                to,
                answer: Answer::Accepted,
                ..
            } => {
                targets.insert(*letter, *to);
                sent.push((*letter, *to));
            }
            Event::Waits { id, .. } => {
                waiting.insert(*id);
            }
            Event::Enters {
                id,
                callback: Callback::Room,
                ..
            } => {
                waiting.remove(id);
            }
            Event::AtRest => {
                for (letter, to) in &sent {
                    let excused = delivered.contains(letter)
                        || run.is_gone(*to, place)
                        || waiting.contains(to);
                    if !excused {
                        wrong.push(format!(
                            "letter {letter} lies in a mailbox, actor {to} is there, and its poller sleeps"
                        ));
                    }
                }
            }
            Event::Woken {
                poller,
                letters,
                wakes,
            } => {
                woken = letters;
                if *wakes > 1 {
                    wrong.push(format!(
                        "{} letters to poller {poller}, which slept, cost {wakes} writes",
                        letters.len()
                    ));
                }
            }
            Event::WokenBefore => {
                for letter in woken {
                    let to = targets.get(letter).copied().unwrap_or_default();
                    let excused = run.is_gone(to, place) || waiting.contains(&to);
                    if !delivered.contains(letter) && !excused {
                        wrong.push(format!(
                            "letter {letter} to actor {to} does not wake its poller"
                        ));
                    }
                }
            }
            Event::SentHere { poller, wakes } if *wakes > 0 => {
                wrong.push(format!(
                    "a letter within poller {poller}, which is awake, costs {wakes} writes"
                ));
            }
            _ => {}
        }
    }
    wrong
}
