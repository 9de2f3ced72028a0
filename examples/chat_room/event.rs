//! What clients are told, and the two ways of writing it.
//!
//! Which one is decided once for each client, where it comes in: who types lines reads lines, the
//! page reads JSON. What clients *send* is the same for both.

use greenroom::ActorId;
use greenroom::protocol::SharedFrame;
use greenroom::websocket::CloseCode;
use serde::Serialize;

/// How a client is written to.
#[derive(Clone, Copy)]
pub(crate) enum Voice {
    /// As lines for somebody who reads them.
    Lines,
    /// As JSON, an object for each event, whose field `type` is the name of the event.
    Json,
}

#[derive(Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event {
    Welcome,
    /// There is no nickname yet.
    NameWanted,
    /// Yours is now this one.
    Named {
        name: String,
        is_first: bool,
    },
    /// You are in a room. So many lines of its past follow, of which the last has this number.
    Entered {
        room: String,
        /// Of numbers of another epoch the room knows nothing.
        epoch: String,
        last: u64,
        lines: usize,
        /// Lines that would follow too, but that are not kept any more.
        missed: u64,
        /// What was said before this epoch is not known at all.
        restarted: bool,
        count: usize,
        names: Vec<String>,
    },
    /// Somebody has said something.
    Line {
        id: u64,
        /// Milliseconds since 1970.
        at: u64,
        from: String,
        text: String,
    },
    Joined {
        name: String,
        room: String,
    },
    Left {
        name: String,
        room: String,
    },
    Renamed {
        from: String,
        to: String,
    },
    Who {
        room: String,
        count: usize,
        names: Vec<String>,
    },
    Rooms {
        rooms: Vec<RoomEntry>,
    },
    Note {
        text: String,
    },
    /// Something that you asked for, or said, is not to be.
    Refused {
        what: What,
        why: String,
        /// What you said, if that is it.
        line: Option<String>,
    },
    /// The last thing that you are told.
    Closing {
        reason: Why,
        text: String,
    },
}

#[derive(Clone, Serialize)]
pub(crate) struct RoomEntry {
    pub(crate) name: String,
    pub(crate) count: usize,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    Name,
    Room,
    Line,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    Quit,
    Stopping,
    Flooding,
}

impl Why {
    /// The same for a WebSocket's last frame.
    pub(crate) fn code(self) -> CloseCode {
        match self {
            Why::Quit => CloseCode::NORMAL,
            Why::Stopping => CloseCode::AWAY,
            Why::Flooding => CloseCode::POLICY,
        }
    }
}

impl Voice {
    /// Nothing, where this client is not to be told.
    pub(crate) fn write(self, event: &Event) -> Option<String> {
        match self {
            Voice::Lines => event.line(),
            Voice::Json => Some(event.json()),
        }
    }
}

impl Event {
    pub(crate) fn refused(what: What, why: impl Into<String>) -> Event {
        Event::Refused {
            what,
            why: why.into(),
            line: None,
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers can be written")
    }

    fn line(&self) -> Option<String> {
        Some(match self {
            Event::Welcome => "* welcome to the chat room".into(),
            Event::NameWanted => "* what is your nickname?".into(),
            // The room says that one has joined.
            Event::Named { is_first: true, .. } => return None,
            Event::Named { name, .. } => format!("* you are now {name}"),
            Event::Entered { restarted, .. } if *restarted => {
                "* what was said before is not known any more".into()
            }
            Event::Entered { missed: 0, .. } => return None,
            Event::Entered { missed, .. } => {
                format!("* {missed} lines were said that are not kept any more")
            }
            Event::Line { from, text, .. } => format!("{from}: {text}"),
            Event::Joined { name, room } => format!("* {name} has joined {room}"),
            Event::Left { name, room } => format!("* {name} has left {room}"),
            Event::Renamed { from, to } => format!("* {from} is now {to}"),
            Event::Who { room, count, names } => {
                let more = if *count > names.len() { ", ..." } else { "" };
                format!("* {count} in {room}: {}{more}", names.join(", "))
            }
            Event::Rooms { rooms } => {
                let list: Vec<_> = rooms
                    .iter()
                    .map(|room| format!("{} ({})", room.name, room.count))
                    .collect();
                format!("* {} rooms: {}", list.len(), list.join(", "))
            }
            Event::Note { text } | Event::Closing { text, .. } => format!("* {text}"),
            Event::Refused { why, .. } => format!("! {why}"),
        })
    }
}

/// An event that a room pushes to all its members. It is written once in each voice, and each
/// framing puts its frame around that once: however many members there are, they share the bytes.
#[derive(Clone)]
pub(crate) struct Said {
    pub(crate) room: ActorId,
    /// Whose doing it is: who reads lines has just typed it, and does not want to read it again.
    pub(crate) by: Option<ActorId>,
    line: SharedFrame,
    json: SharedFrame,
}

impl Said {
    pub(crate) fn new(room: ActorId, by: Option<ActorId>, event: &Event) -> Said {
        Said {
            room,
            by,
            line: SharedFrame::text(event.line().unwrap_or_default()),
            json: SharedFrame::text(event.json()),
        }
    }

    pub(crate) fn frame(&self, voice: Voice) -> &SharedFrame {
        match voice {
            Voice::Lines => &self.line,
            Voice::Json => &self.json,
        }
    }

    /// Bytes that keeping it takes, more or less.
    pub(crate) fn len(&self) -> usize {
        self.line.bytes().len() + self.json.bytes().len()
    }
}
