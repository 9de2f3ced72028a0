//! What is held against one another when all is over.
//!
//! What a member has heard between coming into a room and going elsewhere is an unbroken piece of
//! one sequence, which the room pushes; only that he hears nothing of his own. So the pieces of any
//! two members, laid side by side where both have the same line, agree as far as both reach. That is
//! one order for all, without loss and without repetition; it leaves open only what *nobody* heard,
//! and for this there is the speaker: he knows what he had heard before he spoke, and what he heard
//! after the server had answered him.

use std::collections::{BTreeMap, HashMap};

use crate::ledger::{Event, Ledger, Phase, Stay};

/// How many events at the end of a stay are looked at to learn how long it was.
const LAST: usize = 8;

/// With so many that come after it each stay is held against, and then with every one at a distance
/// that is a power of two: of hundreds all pairs would be too many.
const ALL: usize = 10;

/// One stay, prepared.
struct Piece<'a> {
    owner: usize,
    room: &'a str,
    stay: &'a Stay,
    /// Where each event that happens only once stands.
    places: HashMap<Event, usize>,
    /// The arrival that the stay begins with, if the name says whose it is.
    joined: Option<Event>,
    /// The departure that it ends with, likewise. None for who has stayed to the end.
    left: Vec<Event>,
    is_last: bool,
}

impl Piece<'_> {
    fn place(&self, event: Event) -> Option<usize> {
        self.places.get(&event).copied()
    }
}

/// Panics if a promise is broken.
pub(crate) fn check(ledger: &Ledger) {
    let pieces = pieces(ledger);
    for piece in &pieces {
        check_speakers(ledger, piece);
    }
    let mut rooms: BTreeMap<&str, Vec<&Piece<'_>>> = BTreeMap::new();
    for piece in &pieces {
        rooms.entry(piece.room).or_default().push(piece);
    }
    for pieces in rooms.values() {
        for (at, one) in pieces.iter().enumerate() {
            for distance in (1..pieces.len()).filter(|n| *n <= ALL || n.is_power_of_two()) {
                let other = pieces[(at + distance) % pieces.len()];
                if one.owner != other.owner {
                    check_order(ledger, one, other);
                    check_completeness(ledger, one, other);
                    check_completeness(ledger, other, one);
                }
            }
        }
    }
}

fn pieces(ledger: &Ledger) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    for (owner, session) in ledger.sessions.iter().enumerate() {
        for (at, stay) in session.stays.iter().enumerate() {
            let room = session.visits[stay.visit].as_str();
            let mut places = HashMap::new();
            for (place, event) in stay.heard.iter().enumerate() {
                let once = match *event {
                    Event::Joined(name) | Event::Left(name) => ledger.comes_once(name, room),
                    event => ledger.is_singular(event),
                };
                if once {
                    places.insert(*event, place);
                }
            }
            pieces.push(Piece {
                owner,
                room,
                stay,
                joined: Some(stay.heard[0]).filter(|event| places.contains_key(event)),
                left: session
                    .names
                    .iter()
                    .filter(|name| ledger.comes_once(**name, room))
                    .map(|name| Event::Left(*name))
                    .collect(),
                places,
                is_last: at + 1 == session.stays.len(),
            });
        }
    }
    pieces
}

/// Of each speaker all lines from the first that was heard to the last; from his very first if his
/// coming was heard.
fn check_speakers(ledger: &Ledger, piece: &Piece<'_>) {
    // The visit and the place in it of the last line; None where only the coming was heard.
    let mut last: HashMap<usize, Option<(usize, usize)>> = HashMap::new();
    for event in &piece.stay.heard {
        let (by, number) = match *event {
            Event::Said { by, number } => (by, number),
            Event::Joined(name) => {
                if let Some(owner) = ledger.owner(name) {
                    last.entry(owner).or_insert(None);
                }
                continue;
            }
            _ => continue,
        };
        let speaker = &ledger.sessions[by];
        let saying = &speaker.said[number];
        let next = last.get(&by).map(|last| match last {
            Some((visit, place)) if *visit == saying.visit => place + 1,
            _ => 0,
        });
        if next.is_some_and(|next| next != saying.place) {
            let what = format!("has not heard all lines up to number {number} of {by}");
            ledger.wrong(piece.owner, &what, &saying.text);
        }
        last.insert(by, Some((saying.visit, saying.place)));
    }
}

/// Both have heard the same where both were there.
fn check_order(ledger: &Ledger, one: &Piece<'_>, other: &Piece<'_>) {
    let mut events = one.stay.heard.iter();
    let is_common = |event: &&Event| ledger.is_singular(**event) && other.place(**event).is_some();
    let Some(common) = events.find(is_common) else {
        return;
    };
    let both = |mine: &Piece<'_>, his: &Piece<'_>| -> Vec<Event> {
        let events = mine.stay.heard.iter().copied();
        events
            .filter(|event| !ledger.is_by(*event, his.owner))
            .collect()
    };
    let (one_heard, other_heard) = (both(one, other), both(other, one));
    let place = |heard: &[Event]| heard.iter().position(|event| event == common);
    let (Some(at), Some(there)) = (place(&one_heard), place(&other_heard)) else {
        return;
    };
    let back = at.min(there);
    let one_part = &one_heard[at - back..];
    let other_part = &other_heard[there - back..];
    for (place, (mine, his)) in one_part.iter().zip(other_part).enumerate() {
        if mine != his {
            let before = &one_part[place.saturating_sub(3)..place];
            let what = format!(
                "and member {} were both in {}, and after {before:?} one heard {mine:?} and the other",
                other.owner, one.room
            );
            ledger.wrong(one.owner, &what, &format!("{his:?}"));
        }
    }
}

/// Who was there before a line was said, and still was when it had certainly been pushed, has heard
/// it; so has who heard the speaker come and go, if the server had taken the line.
fn check_completeness(ledger: &Ledger, speaker: &Piece<'_>, hearer: &Piece<'_>) {
    let session = &ledger.sessions[speaker.owner];
    let heard_him_come = speaker
        .joined
        .is_some_and(|joined| hearer.place(joined).is_some_and(|place| place > 0));
    let came_at = hearer.joined.and_then(|joined| speaker.place(joined));
    let heard_him_go = speaker
        .left
        .iter()
        .any(|left| hearer.place(*left).is_some());
    // How far the speaker's own hearing shows that the other one was still there.
    let last = hearer.stay.heard.iter().rev().take(LAST);
    let there_until = last.filter_map(|event| speaker.place(*event)).max();
    let are_here = |owner: usize| ledger.sessions[owner].phase == Phase::Here;
    let both_stayed =
        speaker.is_last && hearer.is_last && are_here(speaker.owner) && are_here(hearer.owner);
    if !heard_him_come && came_at.is_none() {
        return;
    }
    for (number, saying) in session.said.iter().enumerate() {
        if saying.visit != speaker.stay.visit {
            continue;
        }
        let was_in = heard_him_come || came_at.is_some_and(|place| place < saying.after);
        let stayed = saying
            .before
            .is_some_and(|before| both_stayed || there_until >= Some(before))
            || heard_him_go && saying.is_accepted;
        let event = Event::Said {
            by: speaker.owner,
            number,
        };
        if was_in && stayed && hearer.place(event).is_none() {
            let what = format!(
                "was there and has not heard number {number} of {}",
                speaker.owner
            );
            ledger.wrong(hearer.owner, &what, &saying.text);
        }
    }
}
