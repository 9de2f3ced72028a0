//! What everybody said and heard, held against what may be heard at the moment it is.
//!
//! Each connection has a model of what the server owes it: one answer to each command, in their
//! order; its own arrival in each room that it goes to; and, once it has asked `/who`, every change
//! among those who are there.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use greenroom::Addr;

use crate::member::Member;
use crate::weather::{Weather, fill};

pub(crate) const WELCOME: &str = "* welcome to the chat room";
pub(crate) const AGAIN: &str = "* what is your nickname?";
const GOODBYE: &str = "* goodbye";
const STOPPING: &str = "* the server is stopping";

/// Names that `/who` lists.
const WHO_MAX: usize = 100;

pub(crate) type NameId = u32;

/// What a room tells its members. A member does not hear what it said, nor that it has been
/// renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    Said {
        by: usize,
        number: usize,
    },
    Joined(NameId),
    Left(NameId),
    Renamed(NameId, NameId),
    /// The first bytes of a line whose speaker died before it had left: what comes before the end
    /// of a stream counts as a line.
    Cut(NameId),
}

/// A line that was sent to the server.
pub(crate) struct Saying {
    /// Without the speaker's name.
    pub(crate) text: String,
    /// In which of the speaker's rooms, and as which line there.
    pub(crate) visit: usize,
    pub(crate) place: usize,
    pub(crate) at: Instant,
    /// How much the speaker had heard in that room before.
    pub(crate) after: usize,
    /// How much it had heard when it got an answer to what it asked after this: so that comes
    /// later for everybody.
    pub(crate) before: Option<usize>,
    /// The server has certainly taken it.
    pub(crate) is_accepted: bool,
}

/// From hearing that one has come into a room until a call for the next: an unbroken piece of what
/// the room pushed, but for what oneself did.
pub(crate) struct Stay {
    pub(crate) visit: usize,
    pub(crate) heard: Vec<Event>,
    /// Who is there, known from the first `/who` on.
    present: Option<BTreeMap<NameId, usize>>,
}

/// An answer that is owed.
#[derive(Debug)]
pub(crate) enum Answer {
    Exactly(String),
    Name(String),
    Who { visit: usize, said: usize },
    Rooms { visit: usize },
    Goodbye,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Connecting,
    Here,
    /// The peer's end has been read; there was no broken line before it.
    AtEnd,
    Ended(&'static str),
}

pub(crate) struct Session {
    pub(crate) addr: Option<Addr<Member>>,
    pub(crate) phase: Phase,
    /// The last is the current one.
    pub(crate) names: Vec<NameId>,
    /// How often it has asked for another one.
    renames: usize,
    pub(crate) said: Vec<Saying>,
    /// The rooms in the order in which it goes there.
    pub(crate) visits: Vec<String>,
    pub(crate) stays: Vec<Stay>,
    /// Visits whose beginning has not been heard yet.
    arriving: VecDeque<usize>,
    /// Rooms that it left before it could hear that it had come in. It does not go there again:
    /// it might hear that then, and take it for the new arrival.
    missed: Vec<String>,
    /// A room is gone back to: until the arrival, what is heard may be of the former visit, with a
    /// gap before it.
    is_between: bool,
    answers: VecDeque<Answer>,
    /// The first nickname, until it has been refused, or the lobby has said who has come in.
    naming: Option<String>,
    /// The last line of each speaker.
    last_heard: HashMap<usize, usize>,
    /// Things to do, and whether it reads.
    pub(crate) is_busy: bool,
    pub(crate) is_deaf: bool,
    /// It does not read for so long that the server may end it.
    pub(crate) is_stalled: bool,
    /// It has done something after which the server may end it.
    pub(crate) asked_for_end: bool,
    /// It has half-closed, or said that it quits: it is to be answered to the last, and then to see
    /// an orderly end.
    pub(crate) half_closed: bool,
}

struct Name {
    text: String,
    /// Nobody else ever had it.
    owner: Option<usize>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) sessions: Vec<Session>,
    names: Vec<Name>,
    ids: HashMap<String, NameId>,
    /// Resets and the like may happen.
    pub(crate) is_rough: bool,
    /// Clients may die, so that their last line is cut.
    pub(crate) may_die: bool,
    /// The server has been told to stop.
    pub(crate) is_stopping: bool,
    /// The longest that a line took to somebody who reads.
    pub(crate) slowest: Duration,
    pub(crate) deliveries: usize,
}

/// What a member has to do about what it heard.
pub(crate) enum Next {
    Nothing,
    /// It is in the lobby: the script begins.
    Begin,
    /// The name is taken: try another one.
    OtherName,
}

impl Ledger {
    pub(crate) fn new(weather: Weather) -> Ledger {
        Ledger {
            is_rough: weather.is_rough(),
            may_die: weather == Weather::Deadly,
            ..Ledger::default()
        }
    }

    // ---- what members do ------------------------------------------------------------------------

    pub(crate) fn add(&mut self) -> usize {
        let answers = [WELCOME, AGAIN].map(|line| Answer::Exactly(line.into()));
        self.sessions.push(Session {
            addr: None,
            phase: Phase::Connecting,
            names: Vec::new(),
            renames: 0,
            said: Vec::new(),
            visits: Vec::new(),
            stays: Vec::new(),
            arriving: VecDeque::new(),
            missed: Vec::new(),
            is_between: false,
            answers: answers.into(),
            naming: None,
            last_heard: HashMap::new(),
            is_busy: true,
            is_deaf: false,
            is_stalled: false,
            asked_for_end: false,
            half_closed: false,
        });
        self.sessions.len() - 1
    }

    pub(crate) fn name_id(&mut self, text: &str, owner: Option<usize>) -> NameId {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let text = text.to_owned();
        self.names.push(Name {
            text: text.clone(),
            owner,
        });
        let id = self.names.len() as NameId - 1;
        self.ids.insert(text, id);
        id
    }

    fn name(&self, id: NameId) -> &str {
        &self.names[id as usize].text
    }

    fn list(&self, names: &BTreeMap<NameId, usize>) -> String {
        let names: Vec<&str> = names.keys().map(|name| self.name(*name)).collect();
        names.join(", ")
    }

    /// Who alone is ever called that.
    pub(crate) fn owner(&self, name: NameId) -> Option<usize> {
        self.names[name as usize].owner
    }

    fn is_unique(&self, name: NameId) -> bool {
        self.owner(name).is_some()
    }

    /// Whether who is called that goes into this room only once, so that there is one coming and
    /// one going to be heard.
    pub(crate) fn comes_once(&self, name: NameId, room: &str) -> bool {
        self.owner(name).is_some_and(|owner| {
            let visits = self.sessions[owner].visits.iter();
            visits.filter(|visit| *visit == room).count() == 1
        })
    }

    /// Whose doing it is, so that he himself does not hear it.
    pub(crate) fn is_by(&self, event: Event, session: usize) -> bool {
        match event {
            Event::Said { by, .. } => by == session,
            Event::Renamed(_, to) => self.owner(to) == Some(session),
            Event::Joined(_) | Event::Left(_) | Event::Cut(_) => false,
        }
    }

    /// Happens once, so that two who heard it heard the same.
    pub(crate) fn is_singular(&self, event: Event) -> bool {
        match event {
            Event::Said { .. } => true,
            Event::Renamed(_, to) => self.is_unique(to),
            Event::Joined(_) | Event::Left(_) | Event::Cut(_) => false,
        }
    }

    /// What it is to be called from now on, and the line that asks for it.
    pub(crate) fn first_name(&mut self, id: usize, name: &str, unique: bool) -> String {
        let name_id = self.name_id(name, unique.then_some(id));
        let session = &mut self.sessions[id];
        session.names = vec![name_id];
        session.naming = Some(name.into());
        session.visits = vec!["lobby".into()];
        session.arriving = VecDeque::from([0]);
        format!("{name}\n")
    }

    pub(crate) fn rename(&mut self, id: usize) -> String {
        let session = &mut self.sessions[id];
        session.renames += 1;
        let name = format!("s{id}r{}-", session.renames);
        self.name_id(&name, Some(id));
        let line = format!("/nick {name}\n");
        self.expect(id, Answer::Name(name));
        line
    }

    pub(crate) fn say(&mut self, id: usize, len: usize, now: Instant) -> String {
        let session = &mut self.sessions[id];
        let visit = session.visits.len() - 1;
        let number = session.said.len();
        let place = match session.said.last() {
            Some(last) if last.visit == visit => last.place + 1,
            _ => 0,
        };
        let mut text = format!("s{id}.{number} {} ", session.visits[visit]);
        fill(&mut text, len);
        session.said.push(Saying {
            text: text.clone(),
            visit,
            place,
            at: now,
            after: session.stay_of(visit).map_or(0, |stay| stay.heard.len()),
            before: None,
            is_accepted: false,
        });
        text
    }

    /// Whether it may go somewhere: where an arrival is waited for, it would not be known which of
    /// two visits to one room has begun; and where a name that others may have next is given up,
    /// who has come in.
    pub(crate) fn may_go(&self, id: usize) -> bool {
        let session = &self.sessions[id];
        let is_renamed = |answer: &Answer| matches!(answer, Answer::Name(_));
        session.arriving.is_empty()
            && (self.is_unique(session.names[0]) || !session.answers.iter().any(is_renamed))
    }

    /// What the first one was called first.
    pub(crate) fn first_name_of_all(&self) -> &str {
        let names = self
            .sessions
            .iter()
            .find_map(|session| session.names.first());
        names.map_or("nobody", |name| self.name(*name))
    }

    /// Whether it may give its name up, likewise.
    pub(crate) fn may_rename(&self, id: usize) -> bool {
        let session = &self.sessions[id];
        self.is_unique(session.names[0]) || session.arriving.is_empty()
    }

    /// Goes to these rooms, one directly after the other.
    pub(crate) fn go(&mut self, id: usize, rooms: &[String]) -> String {
        let session = &mut self.sessions[id];
        let mut lines = String::new();
        for room in rooms {
            if session.missed.contains(room) {
                continue;
            }
            if session.visits.last() == Some(room) {
                let answer = format!("! you are in {room} already");
                session.answers.push_back(Answer::Exactly(answer));
            } else {
                session.is_between |= session.visits.contains(room);
                session.visits.push(room.clone());
                session.arriving.push_back(session.visits.len() - 1);
            }
            lines += &format!("/join {room}\n");
        }
        lines
    }

    pub(crate) fn who(&mut self, id: usize) -> String {
        let session = &self.sessions[id];
        let (visit, said) = (session.visits.len() - 1, session.said.len());
        self.expect(id, Answer::Who { visit, said });
        "/who\n".into()
    }

    pub(crate) fn rooms(&mut self, id: usize) -> String {
        let visit = self.sessions[id].visits.len() - 1;
        self.expect(id, Answer::Rooms { visit });
        "/rooms\n".into()
    }

    pub(crate) fn expect(&mut self, id: usize, answer: Answer) {
        self.sessions[id].answers.push_back(answer);
    }

    // ---- what members hear ----------------------------------------------------------------------

    /// A line has come; panics if it must not have.
    pub(crate) fn hear(&mut self, id: usize, line: &str, now: Instant) -> Next {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["*", name, "has", "joined", room] => {
                let name = self.known(id, name, line);
                return self.hear_arrival(id, name, room, line);
            }
            ["*", name, "has", "left", room] => {
                let name = self.known(id, name, line);
                self.hear_of_room(id, Some(room), Event::Left(name), line);
            }
            ["*", before, "is", "now", name] => {
                let event =
                    Event::Renamed(self.known(id, before, line), self.known(id, name, line));
                self.hear_of_room(id, None, event, line);
            }
            // The last line of all.
            _ if line == STOPPING && self.is_stopping => self.sessions[id].answers.clear(),
            ["*" | "!", ..] => return self.hear_answer(id, line),
            _ => self.hear_said(id, line, now),
        }
        Next::Nothing
    }

    /// A line without its end has come, and then the peer's end.
    pub(crate) fn hear_end(&mut self, id: usize, rest: &[u8]) {
        if !rest.is_empty() {
            let rest = String::from_utf8_lossy(rest);
            self.wrong(id, "has a line cut by an orderly end", &rest);
        }
        let (is_rough, is_stopping) = (self.is_rough, self.is_stopping);
        let session = &mut self.sessions[id];
        session.phase = Phase::AtEnd;
        if session.half_closed && !is_rough && !is_stopping {
            session.accept(usize::MAX, None);
            if let Some(owed) = session.answers.front() {
                let owed = format!("{owed:?}");
                self.wrong(id, "half-closed and was not answered", &owed);
            }
        }
    }

    fn known(&mut self, id: usize, name: &str, line: &str) -> NameId {
        if let Some(name) = self.ids.get(name) {
            return *name;
        }
        // Names end with a hyphen and have none before: of one that has none, the end was cut off.
        if !self.may_die || name.ends_with('-') {
            self.wrong(id, "hears of somebody whom nobody knows", line);
        }
        self.name_id(name, None)
    }

    fn hear_arrival(&mut self, id: usize, name: NameId, room: &str, line: &str) -> Next {
        let is_mine = self.owner(name) == Some(id);
        let session = &mut self.sessions[id];
        let visit = session
            .arriving
            .iter()
            .position(|visit| session.visits[*visit] == room);
        // It may have been renamed on the way.
        let is_own = is_mine || session.names.last() == Some(&name);
        let (true, Some(place)) = (is_own, visit) else {
            self.hear_of_room(id, Some(room), Event::Joined(name), line);
            return Next::Nothing;
        };
        // Those before this one were left again before they could be heard of.
        let missed = session.arriving.drain(..place);
        session
            .missed
            .extend(missed.map(|visit| session.visits[visit].clone()));
        let visit = session.arriving.pop_front().unwrap();
        session.is_between = session
            .arriving
            .iter()
            .any(|later| session.visits[..=visit].contains(&session.visits[*later]));
        session.accept(usize::MAX, Some(visit));
        session.stays.push(Stay {
            visit,
            heard: vec![Event::Joined(name)],
            present: None,
        });
        match session.naming.take() {
            Some(_) => Next::Begin,
            None => Next::Nothing,
        }
    }

    fn hear_said(&mut self, id: usize, line: &str, now: Instant) {
        let parsed = line.split_once(": ").and_then(|(name, text)| {
            let (by, rest) = text.strip_prefix('s')?.split_once('.')?;
            let (number, _) = rest.split_once(' ')?;
            Some((name, text, by.parse().ok()?, number.parse().ok()?))
        });
        let Some((name, text, by, number)) = parsed else {
            if self.may_die && line.contains(": ") {
                let cut = self.name_id(line, None);
                return self.hear_of_room(id, None, Event::Cut(cut), line);
            }
            self.wrong(id, "hears what is no line of anybody", line);
        };
        let name = self.known(id, name, line);
        let speaker: &Session = match self.sessions.get(by) {
            Some(session) if by != id => session,
            _ => self.wrong(id, "hears himself or nobody", line),
        };
        let Some(saying): Option<&Saying> = speaker.said.get(number) else {
            self.wrong(id, "hears what has not been said", line);
        };
        if saying.text != text && !(self.may_die && saying.text.starts_with(text)) {
            self.wrong(id, "hears a line that was changed", line);
        }
        // It may be heard under its new name before it has read that this was granted.
        if !speaker.names.contains(&name) && self.owner(name) != Some(by) {
            self.wrong(
                id,
                "hears a line under a name that is not its speaker's",
                line,
            );
        }
        let room = speaker.visits[saying.visit].clone();
        let took = now.duration_since(saying.at);
        if !self.sessions[id].is_deaf {
            self.slowest = self.slowest.max(took);
        }
        self.deliveries += 1;
        let last = self.sessions[id].last_heard.insert(by, number);
        if last.is_some_and(|last| last >= number) {
            self.wrong(id, "hears a line again, or late", line);
        }
        self.hear_of_room(id, Some(&room), Event::Said { by, number }, line);
        // Whom it knows to be there is complete.
        let session = &self.sessions[id];
        if !session.is_between
            && let Some(present) = session.stays.last().and_then(|stay| stay.present.as_ref())
            && !present.contains_key(&name)
        {
            self.wrong(id, "hears somebody who is not there", line);
        }
    }

    /// Something that a room pushed; a rename does not say of which room.
    fn hear_of_room(&mut self, id: usize, room: Option<&str>, event: Event, line: &str) {
        if self.is_by(event, id) {
            self.wrong(id, "hears its own doing", line);
        }
        let session = &mut self.sessions[id];
        let Some(stay) = session.stays.last_mut() else {
            self.wrong(id, "hears a room before it has come in", line);
        };
        let is_here = room.is_none_or(|room| session.visits[stay.visit] == room);
        if session.is_between {
            let mut coming = session.arriving.iter();
            let is_coming = coming.any(|visit| Some(session.visits[*visit].as_str()) == room);
            if !is_here && !is_coming {
                self.wrong(id, "hears a room that it is not in", line);
            }
            stay.present = None;
            return;
        }
        if !is_here {
            self.wrong(id, "hears a room that it is not in", line);
        }
        stay.heard.push(event);
        let Some(present) = &mut stay.present else {
            return;
        };
        let is_known = match event {
            Event::Joined(name) => come(present, name),
            Event::Left(name) => go(present, name),
            Event::Renamed(before, name) => go(present, before) && come(present, name),
            Event::Said { .. } | Event::Cut(_) => true,
        };
        if !is_known {
            self.wrong(id, "hears of somebody who was not there", line);
        }
    }

    fn hear_answer(&mut self, id: usize, line: &str) -> Next {
        let session = &mut self.sessions[id];
        let refusal = session.naming.as_ref();
        let refusal = refusal.map(|name| format!("! {name} is taken"));
        if refusal.is_some_and(|refusal| line == refusal) {
            session.naming = None;
            session.answers.push_front(Answer::Exactly(AGAIN.into()));
            let name = session.names[0];
            if self.is_unique(name) {
                self.wrong(id, "is refused a name that is its own", line);
            }
            return Next::OtherName;
        }
        let Some(answer) = session.answers.pop_front() else {
            self.wrong(id, "is told what it did not ask", line);
        };
        let is_right = match &answer {
            Answer::Exactly(text) => line == text,
            Answer::Goodbye => {
                self.sessions[id].accept(usize::MAX, None);
                line == GOODBYE
            }
            Answer::Rooms { visit } => self.is_list_of_rooms(id, line, *visit),
            Answer::Who { visit, said } => self.is_list_of_names(id, line, *visit, *said),
            Answer::Name(name) => {
                let name_id = self.ids[name];
                let session = &mut self.sessions[id];
                let before = session.names.last().copied();
                session.names.push(name_id);
                if let (Some(stay), Some(before)) = (session.stays.last_mut(), before)
                    && let Some(present) = &mut stay.present
                {
                    go(present, before);
                    come(present, name_id);
                }
                line.strip_prefix("* you are now ") == Some(name)
            }
        };
        if !is_right {
            self.wrong(id, &format!("waits for {answer:?}"), line);
        }
        Next::Nothing
    }

    fn is_list_of_rooms(&self, id: usize, line: &str, visit: usize) -> bool {
        let Some((count, list)) = line
            .strip_prefix("* ")
            .and_then(|line| line.split_once(" rooms: "))
        else {
            return false;
        };
        let rooms: Vec<&str> = list.split(", ").collect();
        let session = &self.sessions[id];
        // Its own room is among them, with one guest at least.
        let own = session.visits[visit].as_str();
        let mut with_guests = rooms.iter().filter_map(|room| room.split_once(" ("));
        count == rooms.len().to_string()
            && rooms.is_sorted()
            && with_guests.any(|(room, guests)| room == own && guests != "0)")
    }

    fn is_list_of_names(&mut self, id: usize, line: &str, visit: usize, said: usize) -> bool {
        let room = &self.sessions[id].visits[visit];
        let parsed = line.strip_prefix("* ").and_then(|line| {
            let (count, list) = line.split_once(&format!(" in {room}: "))?;
            let count: usize = count.parse().ok()?;
            let names: Vec<&str> = list.trim_end_matches(", ...").split(", ").collect();
            (names.len() == count.min(WHO_MAX) && names.is_sorted()).then_some((count, names))
        });
        let Some((count, names)) = parsed else {
            return false;
        };
        let mut listed = BTreeMap::new();
        for name in names {
            let name = self.known(id, name, line);
            come(&mut listed, name);
        }
        let session = &mut self.sessions[id];
        let own = *session.names.last().unwrap();
        session.accept(said, None);
        let is_between = session.is_between;
        let Some(stay) = session.stays.last_mut().filter(|stay| stay.visit == visit) else {
            self.wrong(id, "is told of a room that it has not come into", line);
        };
        if is_between {
            return true;
        }
        let heard = stay.heard.len();
        for saying in &mut session.said[..said] {
            if saying.visit == visit && saying.before.is_none() {
                saying.before = Some(heard);
            }
        }
        if count > WHO_MAX {
            return true;
        }
        if !listed.contains_key(&own) {
            return false;
        }
        match stay.present.replace(listed) {
            Some(present) if stay.present.as_ref() != Some(&present) => {
                let what = format!("knows of {}", self.list(&present));
                self.wrong(id, &what, line);
            }
            _ => true,
        }
    }

    #[track_caller]
    pub(crate) fn wrong(&self, id: usize, what: &str, line: &str) -> ! {
        let session = &self.sessions[id];
        let name = session.names.last().map_or("?", |name| self.name(*name));
        panic!("member {id} ({name}) {what}: {line:.120}");
    }

    // ---- what the test asks -----------------------------------------------------------------

    /// Nothing is on its way to it or from it.
    pub(crate) fn is_settled(&self, id: usize) -> bool {
        let session = &self.sessions[id];
        match session.phase {
            Phase::Connecting => false,
            Phase::Ended(_) => true,
            Phase::Here | Phase::AtEnd => {
                !session.is_busy
                    && !session.is_deaf
                    && !session.asked_for_end
                    && session.answers.is_empty()
                    && session.arriving.is_empty()
            }
        }
    }

    /// What those who are not settled wait for.
    pub(crate) fn unsettled(&self) -> String {
        let sessions = (0..self.sessions.len()).filter(|id| !self.is_settled(*id));
        let waits = |id: usize| {
            let session = &self.sessions[id];
            let arriving: Vec<&str> = session
                .arriving
                .iter()
                .map(|visit| session.visits[*visit].as_str())
                .collect();
            format!(
                "{id}: {:?}, busy {}, deaf {}, over {}, for {:?} and to come into {arriving:?}\n",
                session.phase,
                session.is_busy,
                session.is_deaf,
                session.asked_for_end,
                session.answers
            )
        };
        sessions.map(waits).collect()
    }

    /// Those who are still there, and in a room.
    pub(crate) fn survivors(&self) -> Vec<usize> {
        let is_here = |session: &Session| session.phase == Phase::Here && !session.stays.is_empty();
        (0..self.sessions.len())
            .filter(|id| is_here(&self.sessions[*id]))
            .collect()
    }

    /// Whether each survivor has heard all the others in its room to the last line.
    pub(crate) fn everything_is_heard(&self) -> bool {
        self.everything_is_heard_by(self.sessions.len())
    }

    /// The same of the first `sessions`.
    pub(crate) fn everything_is_heard_by(&self, sessions: usize) -> bool {
        let mut survivors = self.survivors();
        survivors.retain(|id| *id < sessions);
        survivors.iter().all(|id| {
            let session = &self.sessions[*id];
            survivors.iter().all(|other| {
                let speaker = &self.sessions[*other];
                other == id
                    || speaker.visits.last() != session.visits.last()
                    || session.last_heard.get(other).map(|number| number + 1)
                        == Some(speaker.said.len())
            })
        })
    }

    /// At quiescence: the last `/who` of each survivor has told of exactly those who are there.
    pub(crate) fn check_presence(&self) {
        let survivors = self.survivors();
        for id in &survivors {
            let session = &self.sessions[*id];
            let Some(told) = session.stays.last().and_then(|stay| stay.present.as_ref()) else {
                continue;
            };
            let mut there = BTreeMap::new();
            for other in &survivors {
                let other = &self.sessions[*other];
                if other.visits.last() == session.visits.last() {
                    come(&mut there, *other.names.last().unwrap());
                }
            }
            if let Some((name, _)) = there.iter().find(|(_, count)| **count > 1) {
                self.wrong(*id, "shares a room with two of one name", self.name(*name));
            }
            if *told != there {
                let what = format!("was told of {}, and there are", self.list(told));
                self.wrong(*id, &what, &self.list(&there));
            }
        }
    }
}

impl Session {
    /// How many lines of others.
    pub(crate) fn heard_of_all(&self) -> usize {
        let heard = self.stays.iter().flat_map(|stay| &stay.heard);
        heard
            .filter(|event| matches!(event, Event::Said { .. }))
            .count()
    }

    /// The unbroken hearing of a visit that still goes on.
    fn stay_of(&self, visit: usize) -> Option<&Stay> {
        self.stays.last().filter(|stay| stay.visit == visit)
    }

    /// The server has taken the first `lines`, or those of the visits before one.
    fn accept(&mut self, lines: usize, before_visit: Option<usize>) {
        for saying in self.said.iter_mut().take(lines) {
            if before_visit.is_none_or(|visit| saying.visit < visit) {
                saying.is_accepted = true;
            }
        }
    }
}

fn come(present: &mut BTreeMap<NameId, usize>, name: NameId) -> bool {
    *present.entry(name).or_insert(0) += 1;
    true
}

fn go(present: &mut BTreeMap<NameId, usize>, name: NameId) -> bool {
    match present.get_mut(&name) {
        Some(1) => present.remove(&name).is_some(),
        Some(count) => {
            *count -= 1;
            true
        }
        None => false,
    }
}
