//! The codecs: the same frames however the bytes come, and what is written of them is read as the same frames.
//! The first byte of an input chooses the codec, the others are what the peer sends.

#![no_main]

use greenroom::protocol::{
    Codec, Delimited, Fixed, Frame, FrameActor, Framed, LengthPrefixed, Lines, Prefix,
};
use greenroom::testing::Stage;
use greenroom::*;
use libfuzzer_sys::fuzz_target;

const MAX: usize = 300;

/// Sends back the frames that its codec can write.
#[derive(Default)]
struct Echo {
    frames: Vec<Vec<u8>>,
    unwritten: usize,
}

impl Actor for Echo {
    type Message = ();
}

impl FrameActor for Echo {
    fn frame(&mut self, frame: Frame<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        assert!(frame.len() <= MAX);
        self.frames.push(frame.to_vec());
        if ctx.write_frame(frame).is_err() {
            self.unwritten += 1;
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq)]
struct Seen {
    frames: Vec<Vec<u8>>,
    unwritten: usize,
    written: Vec<u8>,
    reason: String,
}

fn run<C: Codec>(codec: C, pieces: &[&[u8]]) -> Seen {
    let mut stage = Stage::new(Framed::new(codec, Echo::default()));
    for piece in pieces {
        stage.receive(piece);
    }
    stage.half_close();
    let written = stage.output().to_vec();
    let reason = stage.reason().expect("it ends with its input").to_string();
    let framed = stage.actor();
    let echo = framed.actor();
    Seen {
        frames: echo.frames.clone(),
        unwritten: echo.unwritten,
        written,
        reason,
    }
}

fn check<C: Codec + Clone>(codec: C, bytes: &[u8]) {
    let whole = greenroom_fuzz::same_however_cut(bytes, |pieces| run(codec.clone(), pieces));
    let again = run(codec, &[&whole.written]);
    assert_eq!(again.written, whole.written);
    if whole.unwritten == 0 {
        assert_eq!(again.frames, whole.frames);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let prefixes = [
        Prefix::U8,
        Prefix::U16Be,
        Prefix::U16Le,
        Prefix::U32Be,
        Prefix::U32Le,
        Prefix::U64Be,
        Prefix::U64Le,
        Prefix::Varint,
    ];
    match choice % 13 {
        0 => check(Lines::new(MAX), bytes),
        1 => check(Lines::new(MAX).crlf(), bytes),
        2 => check(Delimited::new("--\r\n", MAX), bytes),
        3 => check(Delimited::new("aab", MAX), bytes),
        4 => check(Fixed::new(5), bytes),
        prefix => check(
            LengthPrefixed::new(prefixes[usize::from(prefix) - 5], MAX),
            bytes,
        ),
    }
});
