//! Any bytes in any pieces to any codec: the frames are those of the bytes in one piece, and those
//! that a plain model finds; what is written is read as it was; limits are exact.

use greenroom::protocol::*;
use greenroom::testing::Stage;
use greenroom::*;
use proptest::prelude::*;

/// Which codec, with its limit.
#[derive(Clone, Debug)]
enum Kind {
    Lines,
    Length(Prefix),
    Delimited(Vec<u8>),
    Fixed,
}

const PREFIXES: [Prefix; 8] = [
    Prefix::U8,
    Prefix::U16Be,
    Prefix::U16Le,
    Prefix::U32Be,
    Prefix::U32Le,
    Prefix::U64Be,
    Prefix::U64Le,
    Prefix::Varint,
];

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Lines),
        (0..PREFIXES.len()).prop_map(|place| Kind::Length(PREFIXES[place])),
        // Of few different bytes, so that it is met often, and in part.
        prop::collection::vec(0..2_u8, 1..9).prop_map(Kind::Delimited),
        Just(Kind::Fixed),
    ]
}

/// Any codec behind one type: as one's own codec would be.
enum Any {
    Lines(Lines),
    Length(LengthPrefixed),
    Delimited(Delimited),
    Fixed(Fixed),
}

impl Any {
    fn new(kind: &Kind, max: usize) -> Any {
        match kind {
            Kind::Lines => Any::Lines(Lines::new(max)),
            Kind::Length(prefix) => Any::Length(LengthPrefixed::new(*prefix, max)),
            Kind::Delimited(bytes) => Any::Delimited(Delimited::new(bytes.clone(), max)),
            Kind::Fixed => Any::Fixed(Fixed::new(max.max(1))),
        }
    }
}

impl Codec for Any {
    fn decode<'f, 'buf: 'f>(
        &mut self,
        input: &mut Input<'buf>,
        decoded: &'f mut Vec<u8>,
    ) -> Result<Option<Frame<'f>>, FramingError> {
        match self {
            Any::Lines(codec) => codec.decode(input, decoded),
            Any::Length(codec) => codec.decode(input, decoded),
            Any::Delimited(codec) => codec.decode(input, decoded),
            Any::Fixed(codec) => codec.decode(input, decoded),
        }
    }
}

impl Framer for Any {
    fn encode(
        &self,
        kind: FrameKind,
        payload: &[u8],
        out: &mut Encoder<'_>,
    ) -> Result<(), FramingError> {
        match self {
            Any::Lines(codec) => codec.encode(kind, payload, out),
            Any::Length(codec) => codec.encode(kind, payload, out),
            Any::Delimited(codec) => codec.encode(kind, payload, out),
            Any::Fixed(codec) => codec.encode(kind, payload, out),
        }
    }
}

type Frames = Vec<Result<Vec<u8>, FrameError>>;

/// Feeds the pieces as a poller does, keeping what is left and honouring `need`; the frames up to
/// the first error, and how many bytes had come when that was told.
fn feed<'a>(codec: &mut Any, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Frames, usize) {
    let (mut frames, mut kept, mut needed, mut came) = (Vec::new(), Vec::new(), 0, 0);
    for piece in pieces {
        came += piece.len();
        kept.extend_from_slice(piece);
        if kept.len() < needed {
            continue;
        }
        let mut input = Input::new(&kept, false);
        loop {
            let before = input.bytes();
            let mut decoded = Vec::new();
            match codec.decode(&mut input, &mut decoded) {
                Ok(Some(frame)) => {
                    // It lies in one piece, and it lies there.
                    let lies = before.as_ptr_range();
                    let within = frame.as_ptr_range();
                    assert!(lies.start <= within.start && within.end <= lies.end);
                    assert!(input.bytes().len() < before.len());
                    frames.push(Ok(frame.to_vec()));
                }
                Ok(None) => {
                    assert_eq!(input.bytes(), before, "short input consumes nothing");
                    break;
                }
                Err(error) => {
                    frames.push(Err(*error.downcast::<FrameError>().unwrap()));
                    return (frames, came);
                }
            }
        }
        needed = input.needed();
        assert!(needed == 0 || needed > input.len());
        let consumed = input.consumed();
        kept.drain(..consumed);
    }
    (frames, came)
}

/// Cuts at the given points, empty pieces included.
fn cut(bytes: &[u8], mut points: Vec<usize>) -> Vec<&[u8]> {
    points
        .iter_mut()
        .for_each(|point| *point %= bytes.len() + 1);
    points.extend([0, bytes.len()]);
    points.sort_unstable();
    let cuts = points.windows(2);
    cuts.map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// What a plain model says of the frame at the front: its payload and how long it is with what
/// frames it; or that more has to come, or that nothing that comes can make it one.
enum Front<'a> {
    Frame(&'a [u8], usize),
    Short,
    TooLong,
}

fn front<'a>(kind: &Kind, max: usize, bytes: &'a [u8]) -> Front<'a> {
    match kind {
        Kind::Lines => {
            let line = match until(b"\n", max, bytes) {
                Front::Frame(line, len) => (line, len),
                other => return other,
            };
            Front::Frame(line.0.strip_suffix(b"\r").unwrap_or(line.0), line.1)
        }
        Kind::Delimited(delimiter) => until(delimiter, max, bytes),
        Kind::Fixed => match bytes.get(..max.max(1)) {
            Some(frame) => Front::Frame(frame, frame.len()),
            None => Front::Short,
        },
        Kind::Length(prefix) => {
            let (size, len) = match prefix {
                Prefix::Varint => {
                    let Some(size) = bytes.iter().position(|byte| byte & 0x80 == 0) else {
                        let so_far = varint(bytes);
                        let is_long = so_far > max as u128;
                        return if is_long {
                            Front::TooLong
                        } else {
                            Front::Short
                        };
                    };
                    (size + 1, varint(&bytes[..=size]))
                }
                _ => {
                    let size = prefix.size();
                    let Some(header) = bytes.get(..size) else {
                        return Front::Short;
                    };
                    let is_big = matches!(
                        prefix,
                        Prefix::U8 | Prefix::U16Be | Prefix::U32Be | Prefix::U64Be
                    );
                    let mut header = header.to_vec();
                    if !is_big {
                        header.reverse();
                    }
                    let len = header.iter().fold(0, |n, byte| n << 8 | u128::from(*byte));
                    (size, len)
                }
            };
            if len > max as u128 {
                return Front::TooLong;
            }
            let end = size + len as usize;
            match bytes.get(size..end) {
                Some(frame) => Front::Frame(frame, end),
                None => Front::Short,
            }
        }
    }
}

fn varint(bytes: &[u8]) -> u128 {
    let bits = bytes.iter().take(18).rev();
    bits.fold(0, |n, byte| n << 7 | u128::from(byte & 0x7f))
}

fn until<'a>(delimiter: &[u8], max: usize, bytes: &'a [u8]) -> Front<'a> {
    for len in 0..=max.min(bytes.len()) {
        let behind = &bytes[len..];
        if behind.starts_with(delimiter) {
            return Front::Frame(&bytes[..len], len + delimiter.len());
        }
    }
    // Whether it may still come to stand at a place where it is in time.
    let may_come = |len: usize| delimiter.starts_with(&bytes[len..]);
    if bytes.len() <= max || (0..=max).any(may_come) {
        Front::Short
    } else {
        Front::TooLong
    }
}

fn model(kind: &Kind, max: usize, mut bytes: &[u8]) -> Frames {
    let mut frames = Vec::new();
    loop {
        match front(kind, max, bytes) {
            Front::Frame(frame, len) => {
                frames.push(Ok(frame.to_vec()));
                bytes = &bytes[len..];
            }
            Front::Short => return frames,
            Front::TooLong => {
                frames.push(Err(FrameError::BadLength));
                return frames;
            }
        }
    }
}

/// The same, whatever error it ended with.
fn shape(frames: &Frames) -> Vec<Option<&[u8]>> {
    let shape = |frame: &'_ Result<Vec<u8>, FrameError>| frame.is_ok();
    frames
        .iter()
        .map(|frame| shape(frame).then(|| frame.as_deref().unwrap()))
        .collect()
}

/// Writes whatever it is sent.
struct Writer(Option<String>);

impl Actor for Writer {
    type Message = (Vec<u8>, u8);

    fn message(&mut self, (bytes, how): (Vec<u8>, u8), ctx: &mut Context<'_, Self>) -> Outcome {
        let written = match how {
            0 => ctx.write_frame(&bytes),
            1 => ctx.write_frame(bytes),
            _ => ctx.write_frame(&SharedFrame::binary(bytes)),
        };
        self.0 = written.err().map(|error| error.to_string());
        Ok(())
    }
}

impl FrameActor for Writer {
    fn frame(&mut self, _: Frame<'_>, _: &mut Context<'_, Self>) -> Outcome {
        Ok(())
    }
}

/// A payload of few different bytes, delimiters and line breaks often among them.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0..3_u8, 1 => Just(b'\r'), 1 => Just(b'\n'), 1 => any::<u8>()];
    prop::collection::vec(byte, 0..40)
}

proptest! {
    #[test]
    fn every_cut_gives_the_frames_of_one_piece_and_of_the_model(
        kind in kind(),
        max in prop_oneof![0..20_usize, Just(300)],
        bytes in prop::collection::vec(
            prop_oneof![6 => 0..2_u8, 1 => Just(b'\r'), 2 => Just(b'\n'), 1 => 0..40_u8, 1 => any::<u8>()],
            0..300,
        ),
        points in prop::collection::vec(any::<usize>(), 0..60),
    ) {
        let (whole, _) = feed(&mut Any::new(&kind, max), [&bytes[..]]);
        let expected = model(&kind, max, &bytes);
        prop_assert_eq!(shape(&whole), shape(&expected));
        for error in whole.iter().filter_map(|frame| frame.as_ref().err()) {
            let limit = format!("limit of {max} bytes");
            prop_assert!(error.to_string().contains(&limit));
        }
        let (pieces, _) = feed(&mut Any::new(&kind, max), cut(&bytes, points));
        prop_assert_eq!(&pieces, &whole);

        // Byte by byte, an error is told with the first byte that makes it one.
        let (single, came) = feed(&mut Any::new(&kind, max), bytes.chunks(1));
        prop_assert_eq!(&single, &whole);
        if single.last().is_some_and(Result::is_err) {
            let before = model(&kind, max, &bytes[..came - 1]);
            prop_assert!(before.iter().all(Result::is_ok));
        }
    }

    #[test]
    fn what_is_written_is_read_as_it_was_however_it_is_cut(
        kind in kind(),
        crlf in any::<bool>(),
        payloads in prop::collection::vec((payload(), 0..3_u8), 0..20),
        points in prop::collection::vec(any::<usize>(), 0..60),
    ) {
        let fixed = payloads.first().map_or(1, |(payload, _)| payload.len().max(1));
        let max = if matches!(kind, Kind::Fixed) { fixed } else { 50 };
        let codec = match (&kind, crlf) {
            (Kind::Lines, true) => Any::Lines(Lines::new(max).crlf()),
            _ => Any::new(&kind, max),
        };
        let mut stage = Stage::new(Framed::new(codec, Writer(None)));
        let (mut written, mut bytes) = (Vec::new(), Vec::new());
        for (payload, how) in payloads {
            stage.send((payload.clone(), how));
            let output = stage.output();
            if stage.actor().actor().0.is_some() {
                prop_assert!(output.is_empty());
                let alone = [&payload[..], match &kind {
                    Kind::Lines if crlf => b"\r\n",
                    Kind::Lines => b"\n",
                    Kind::Delimited(delimiter) => delimiter,
                    _ => b"",
                }].concat();
                // It would have been read as another.
                let read = model(&kind, max, &alone);
                prop_assert_ne!(read, vec![Ok(payload)]);
            } else {
                written.push(Ok(payload));
                bytes.extend(output);
            }
        }
        let (read, _) = feed(&mut Any::new(&kind, max), cut(&bytes, points));
        prop_assert_eq!(read, written);
    }
}

#[test]
fn limits_are_exact() {
    let kinds = PREFIXES
        .iter()
        .map(|prefix| Kind::Length(*prefix))
        .chain([Kind::Lines, Kind::Delimited(b"--".to_vec())]);
    for kind in kinds {
        for max in [0, 1, 127, 128, 200, 255] {
            let stage = || Stage::new(Framed::new(Any::new(&kind, max), Writer(None)));
            let write = |len: usize| {
                let mut stage = stage();
                stage.send((vec![b'x'; len], 0));
                stage.output()
            };
            let (just, over) = (write(max), write(max + 1));
            let (frames, _) = feed(&mut Any::new(&kind, max), just.chunks(1));
            assert_eq!(frames, [Ok(vec![b'x'; max])], "{kind:?} {max}");
            if let Kind::Length(Prefix::U8) = kind
                && max == 255
            {
                assert!(over.is_empty());
                continue;
            }
            // Told before the byte too many, where the length says so; else with it, or with the
            // first behind it that is no delimiter's.
            let told = match &kind {
                Kind::Length(Prefix::Varint) => over.len() - (max + 1),
                Kind::Length(prefix) => prefix.size(),
                _ => max + 1,
            };
            let (frames, came) = feed(&mut Any::new(&kind, max), over.chunks(1));
            assert!(frames[0].is_err() && came <= told, "{kind:?} {max} {came}");
        }
    }
}

#[test]
fn a_varint_may_be_long_but_no_longer_than_64_bits() {
    let read = |bytes: &[u8], max| {
        let mut input = Input::new(bytes, false);
        let frame = input.length_prefixed(Prefix::Varint, max);
        (frame.map(|frame| frame.map(<[u8]>::to_vec)), input.needed())
    };
    assert_eq!(
        read(b"\x83\x80\x80\x00abc", 3),
        (Ok(Some(b"abc".to_vec())), 0)
    );
    assert_eq!(read(b"\x83\x80", 3), (Ok(None), 3));
    assert_eq!(read(b"", 3), (Ok(None), 1));
    assert_eq!(
        read(b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 3).0,
        Ok(Some(vec![]))
    );
    let most = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_eq!(read(most, usize::MAX), (Ok(None), usize::MAX));
    let bad = Err(FrameError::BadLength);
    for last in [b'\x02', b'\x80', b'\xff'] {
        let bytes = [&[0x80; 9][..], &[last]].concat();
        assert_eq!(read(&bytes, usize::MAX).0, bad);
    }
    // Past the limit before it is whole.
    let long = |limit| read(b"\xff", limit).0.unwrap_err().to_string();
    assert!(long(126).contains("limit of 126 bytes"));
    assert_eq!(read(b"\xff", 127), (Ok(None), 2));
}
