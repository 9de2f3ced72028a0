//! Whatever the cuts of what comes, a WebSocket takes the same messages and gives the same answers.

use std::time::Duration;

use greenroom::protocol::{Control, Frame, FrameActor, FrameKind};
use greenroom::testing::Stage;
use greenroom::websocket::{Options, WebSocket};
use greenroom::*;
use proptest::prelude::*;

#[path = "util/websocket.rs"]
mod wire;
use wire::*;

/// Notes what comes.
#[derive(Default)]
struct Note(Vec<(u8, Vec<u8>)>);

impl Actor for Note {
    type Message = ();

    fn read_closed(&mut self, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }
}

impl FrameActor for Note {
    fn frame(&mut self, frame: Frame<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        let opcode = match frame.kind() {
            FrameKind::Text => {
                frame.text()?;
                TEXT
            }
            FrameKind::Binary => BINARY,
        };
        self.0.push((opcode, frame.to_vec()));
        Ok(())
    }

    fn control(&mut self, control: Control<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        if let Control::Pong(payload) = control {
            self.0.push((PONG, payload.to_vec()));
        }
        Ok(())
    }
}

/// What is noted, what is answered, and why it has ended, if it has.
type Seen = (Vec<(u8, Vec<u8>)>, Vec<u8>, Option<String>);

fn run(pieces: &[&[u8]]) -> Seen {
    let options = Options::new().message_max(3000).frame_max(2000);
    let mut stage = Stage::new(WebSocket::upgraded(options, Note::default()));
    for piece in pieces {
        stage.receive(piece);
    }
    let answered = stage.output().to_vec();
    let actor = stage.actor();
    let noted = actor.actor().unwrap().0.clone();
    (noted, answered, stage.reason().map(ToString::to_string))
}

/// The same bytes in pieces that end at these places.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|at| at.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|ends| &bytes[ends[0]..ends[1]])
        .collect()
}

#[derive(Clone, Debug)]
struct Message {
    is_text: bool,
    payload: Vec<u8>,
    /// Where its frames end.
    ends: Vec<prop::sample::Index>,
    /// Control frames behind the first of them, and so on.
    controls: Vec<(bool, Vec<u8>)>,
    mask: [u8; 4],
}

fn message() -> impl Strategy<Value = Message> {
    let text = prop_oneof![
        3 => "\\PC{0,40}",
        1 => "\\PC{100,140}",
    ];
    let payload = prop_oneof![
        text.prop_map(|text: String| (true, text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (false, bytes)),
        prop::collection::vec(any::<u8>(), 1990..2000).prop_map(|bytes| (false, bytes)),
    ];
    let control = (any::<bool>(), prop::collection::vec(any::<u8>(), 0..=125));
    let ends = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let controls = prop::collection::vec(control, 0..3);
    (payload, ends, controls, any::<[u8; 4]>()).prop_map(
        |((is_text, payload), ends, controls, mask)| Message {
            is_text,
            payload,
            ends,
            controls,
            mask,
        },
    )
}

/// The opcode of what came, and its payload.
type Noted = (u8, Vec<u8>);

/// The bytes of these messages, what is to be noted of them, and what answered.
fn encode(messages: &[Message]) -> (Vec<u8>, Vec<Noted>, Vec<u8>) {
    let (mut bytes, mut noted, mut answered) = (vec![], vec![], vec![]);
    for message in messages {
        let parts = cut(&message.payload, &message.ends);
        let mut controls = message.controls.iter();
        for (at, part) in parts.iter().enumerate() {
            let opcode = match (at, message.is_text) {
                (0, true) => TEXT,
                (0, false) => BINARY,
                _ => CONTINUATION,
            };
            let is_last = at + 1 == parts.len();
            let fin = if is_last { FIN } else { 0 };
            bytes.extend(frame(fin | opcode, Some(message.mask), part));
            if is_last {
                let opcode = if message.is_text { TEXT } else { BINARY };
                noted.push((opcode, message.payload.clone()));
            }
            if let Some((is_ping, payload)) = controls.next() {
                let opcode = if *is_ping { PING } else { PONG };
                bytes.extend(frame(FIN | opcode, Some(message.mask), payload));
                if *is_ping {
                    answered.extend(served(PONG, payload));
                } else {
                    noted.push((PONG, payload.clone()));
                }
            }
        }
    }
    (bytes, noted, answered)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_gives_the_same_messages(
        messages in prop::collection::vec(message(), 0..6),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let (bytes, noted, answered) = encode(&messages);
        prop_assert_eq!(run(&[&bytes]), (noted.clone(), answered.clone(), None));
        prop_assert_eq!(run(&cut(&bytes, &places)), (noted, answered, None));
    }

    #[test]
    fn any_cut_finds_the_same_error(
        messages in prop::collection::vec(message(), 1..4),
        changed in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let (mut bytes, ..) = encode(&messages);
        for (at, bit) in changed {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << (bit % 8);
        }
        prop_assert_eq!(run(&cut(&bytes, &places)), run(&[&bytes]));
    }

    #[test]
    fn any_cut_of_a_handshake_gives_the_same_answer(
        changed in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        headers in prop::collection::vec("[A-Za-z-]{1,12}: \\PC{0,20}\r?\n", 0..3),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        max in 100..400_usize,
    ) {
        let mut bytes = request("/chat?room=1", &headers.concat()).into_bytes();
        bytes.extend(sent(TEXT, "hello"));
        for (at, byte) in changed {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let options = Options::new().handshake_max(max);
        let server = websocket::Server::new(|_| Ok(Note::default())).options(options);
        let shake = |pieces: &[&[u8]]| {
            let mut stage = Stage::new(server.accept());
            for piece in pieces {
                stage.receive(piece);
            }
            (stage.output(), stage.reason().map(ToString::to_string))
        };
        prop_assert_eq!(shake(&cut(&bytes, &places)), shake(&[&bytes]));
    }

    #[test]
    fn what_is_written_is_read_again(
        payloads in prop::collection::vec((any::<bool>(), "\\PC{0,200}"), 0..6),
        fragment in 1..300_usize,
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let request = websocket::Request::new("test", "/").unwrap();
        let options = Options::new().fragment(fragment);
        let client = WebSocket::client(request, Write).with_options(options);
        let mut client = Stage::new(client);
        let asked = String::from_utf8(client.output().to_vec()).unwrap();
        let mut server = Stage::new(websocket::Server::new(|_| Ok(Note::default())).accept());
        server.receive(&asked);
        client.receive(server.output());
        for payload in &payloads {
            client.send(payload.clone());
        }
        let bytes = client.output();
        for piece in cut(&bytes, &places) {
            server.receive(piece);
        }
        let sent: Vec<_> = payloads
            .into_iter()
            .map(|(is_text, text)| (if is_text { TEXT } else { BINARY }, text.into_bytes()))
            .collect();
        let noted = server.actor().actor().unwrap().0.clone();
        prop_assert_eq!(noted, sent);
        prop_assert!(server.reason().is_none());
        server.advance(Duration::from_secs(100));
        prop_assert!(server.reason().is_none(), "nothing is kept");
    }
}

/// Writes what it is sent.
struct Write;

impl Actor for Write {
    type Message = (bool, String);

    fn message(&mut self, (is_text, text): (bool, String), ctx: &mut Context<'_, Self>) -> Outcome {
        match is_text {
            true => ctx.write_frame(text)?,
            false => ctx.write_frame(text.as_bytes())?,
        };
        Ok(())
    }
}

impl FrameActor for Write {
    fn frame(&mut self, _frame: Frame<'_>, _ctx: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }
}
