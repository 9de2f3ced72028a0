use proptest::prelude::*;

use super::*;

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

type Read = for<'b> fn(&mut Input<'b>, usize, usize) -> Result<Option<&'b [u8]>, FrameError>;

type Frames = Vec<Result<Vec<u8>, FrameError>>;

fn line<'b>(input: &mut Input<'b>, max: usize, _: usize) -> Result<Option<&'b [u8]>, FrameError> {
    input.line(max)
}

fn prefixed<'b>(
    input: &mut Input<'b>,
    max: usize,
    prefix: usize,
) -> Result<Option<&'b [u8]>, FrameError> {
    input.length_prefixed(PREFIXES[prefix], max)
}

/// Feeds the chunks as a poller does, keeping what is left and honouring `need`, and returns the
/// frames, what is left in the end, and the number of calls.
fn feed<'a>(
    chunks: impl IntoIterator<Item = &'a [u8]>,
    read: impl for<'b> Fn(&mut Input<'b>) -> Result<Option<&'b [u8]>, FrameError>,
) -> (Frames, Vec<u8>, usize) {
    let (mut frames, mut kept, mut needed, mut calls) = (Vec::new(), Vec::new(), 0, 0);
    for chunk in chunks {
        kept.extend_from_slice(chunk);
        if kept.len() < needed {
            continue;
        }
        let mut input = Input::new(&kept, false);
        calls += 1;
        loop {
            let before = input.bytes();
            match read(&mut input) {
                Ok(Some(frame)) => frames.push(Ok(frame.to_vec())),
                Ok(None) => {
                    assert_eq!(input.bytes(), before, "short input consumes nothing");
                    break;
                }
                Err(error) => {
                    assert_eq!(input.bytes(), before, "an error consumes nothing");
                    frames.push(Err(error));
                    let left = input.bytes().to_vec();
                    return (frames, left, calls);
                }
            }
        }
        needed = input.needed();
        assert!(needed == 0 || needed > input.len());
        let consumed = input.consumed();
        kept.drain(..consumed);
    }
    (frames, kept, calls)
}

/// Cuts at the given points, empty chunks included.
fn cut(bytes: &[u8], mut points: Vec<usize>) -> Vec<&[u8]> {
    points
        .iter_mut()
        .for_each(|point| *point %= bytes.len() + 1);
    points.extend([0, bytes.len()]);
    points.sort_unstable();
    points
        .windows(2)
        .map(|pair| &bytes[pair[0]..pair[1]])
        .collect()
}

fn encode(prefix: Prefix, n: usize) -> Vec<u8> {
    let n = n as u64;
    match prefix {
        Prefix::U8 => vec![n as u8],
        Prefix::U16Be => (n as u16).to_be_bytes().to_vec(),
        Prefix::U16Le => (n as u16).to_le_bytes().to_vec(),
        Prefix::U32Be => (n as u32).to_be_bytes().to_vec(),
        Prefix::U32Le => (n as u32).to_le_bytes().to_vec(),
        Prefix::U64Be => n.to_be_bytes().to_vec(),
        Prefix::U64Le => n.to_le_bytes().to_vec(),
        Prefix::Varint if n < 128 => vec![n as u8],
        Prefix::Varint => [vec![n as u8 | 128], encode(prefix, (n >> 7) as usize)].concat(),
    }
}

proptest! {
    #[test]
    fn every_split_gives_the_same_lines(
        lines in prop::collection::vec(("[a-z\r]{0,20}", any::<bool>()), 0..20),
        rest in "[a-z]{0,20}",
        points in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (line, has_cr) in &lines {
            let line = format!("{line}{}", if *has_cr { "\r" } else { "" });
            expected.push(Ok(line.strip_suffix('\r').unwrap_or(&line).as_bytes().to_vec()));
            bytes.extend([line.as_bytes(), b"\n"].concat());
        }
        bytes.extend_from_slice(rest.as_bytes());
        let (frames, kept, _) = feed(cut(&bytes, points), |input| input.line(21));
        prop_assert_eq!((frames, kept), (expected, rest.into_bytes()));
    }

    #[test]
    fn every_split_gives_the_same_frames(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..255), 0..12),
        prefix in 0..PREFIXES.len(),
        points in prop::collection::vec(any::<usize>(), 0..60),
    ) {
        let encoded = |frame: &Vec<u8>| [encode(PREFIXES[prefix], frame.len()), frame.clone()].concat();
        let bytes: Vec<u8> = frames.iter().flat_map(encoded).collect();
        let (read, kept, calls) = feed(cut(&bytes, points), |input| prefixed(input, 255, prefix));
        let expected: Vec<_> = frames.iter().cloned().map(Ok).collect();
        prop_assert_eq!((read, kept.len()), (expected, 0));

        // Byte by byte: once for each length, of a varint for both of its bytes, and frame, and once
        // for each byte that is not waited for.
        let (read, _, calls_by_byte) = feed(bytes.chunks(1), |input| prefixed(input, 255, prefix));
        prop_assert_eq!(read.len(), frames.len());
        prop_assert!(calls_by_byte <= 3 * frames.len() + 1 && calls <= 62);
    }

    #[test]
    fn arbitrary_bytes_give_the_same_answers_in_every_split(
        bytes in prop::collection::vec(prop_oneof![0..4_u8, Just(b'\n'), any::<u8>()], 0..200),
        max in prop_oneof![0..30_usize, Just(usize::MAX)],
        prefix in 0..PREFIXES.len(),
        points in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        for read in [line as Read, prefixed] {
            let (whole, left, _) = feed([&bytes[..]], |input| read(input, max, prefix));
            let (split, kept, _) = feed(cut(&bytes, points.clone()), |input| read(input, max, prefix));
            prop_assert_eq!(&whole, &split);
            for frame in whole.iter().flatten() {
                prop_assert!(frame.len() <= max);
            }
            // Where there was an error, the split input may have met it before the last bytes.
            prop_assert!(left.starts_with(&kept));
            prop_assert!(left.len() == kept.len() || whole.last().is_some_and(Result::is_err));
        }
    }
}

#[test]
fn limits_of_lines_are_exact() {
    let too_long = Err(FrameError::TooLong { limit: 4 });
    assert_eq!(Input::new(b"1234\n", false).line(4), Ok(Some(&b"1234"[..])));
    assert_eq!(Input::new(b"123\r\n", false).line(4), Ok(Some(&b"123"[..])));
    assert_eq!(Input::new(b"1234", false).line(4), Ok(None));
    assert_eq!(Input::new(b"12345", false).line(4), too_long);
    assert_eq!(Input::new(b"12345\n", false).line(4), too_long);
    assert_eq!(Input::new(b"1234\r\n", false).line(4), too_long);
    assert_eq!(Input::new(b"\n", false).line(0), Ok(Some(&b""[..])));
    assert_eq!(Input::new(b"", true).line(0), Ok(None));
    assert_eq!(Input::new(b"x", true).line(usize::MAX), Ok(None));
}

#[test]
fn limits_of_frames_are_exact_and_checked_before_waiting() {
    let too_long = Err(FrameError::TooLong { limit: 3 });
    assert_eq!(Input::new(b"123", false).frame(3, 3), Ok(Some(&b"123"[..])));
    assert_eq!(Input::new(b"", false).frame(4, 3), too_long);
    let mut input = Input::new(b"\x03ab", false);
    assert_eq!(
        (input.length_prefixed(Prefix::U8, 3), input.needed()),
        (Ok(None), 4)
    );
    for prefix in PREFIXES {
        let mut input = Input::new(&[0xff; 8], false);
        assert_eq!(
            (input.length_prefixed(prefix, 3), input.needed()),
            (too_long, 0)
        );
    }
    let mut input = Input::new(&[0xff; 8], false);
    assert_eq!(input.length_prefixed(Prefix::U64Be, usize::MAX), Ok(None));
    assert_eq!(input.needed(), usize::MAX);
}

#[test]
fn need_is_taken_back_by_consuming() {
    // By reference, as in a callback: an owned input would offer Buf::take.
    let input = &mut Input::new(b"abcdef", false);
    input.need(10);
    assert_eq!(
        (input.take(7), input.take(0), input.needed()),
        (None, Some(&b""[..]), 10)
    );
    assert_eq!((input.take(1), input.needed()), (Some(&b"a"[..]), 0));
    assert_eq!((input.frame(8, 8), input.needed()), (Ok(None), 8));
    assert_eq!((input.take_all(), input.needed()), (&b"bcdef"[..], 0));
    assert_eq!((input.consumed(), input.is_empty()), (6, true));
}

#[test]
fn slices_outlive_the_borrow() {
    let mut input = Input::new(b"one\ntwo\n", true);
    let (one, two) = (input.line(9).unwrap(), input.line(9).unwrap());
    assert_eq!((one, two), (Some(&b"one"[..]), Some(&b"two"[..])));
    assert!(input.at_end());
}

#[test]
fn buf_consumes_and_debug_hides_the_bytes() {
    let mut input = Input::new(b"\x01\x02secret", false);
    assert_eq!((input.get_u16(), input.remaining()), (0x102, 6));
    let shown = format!("{input:?}");
    assert_eq!(
        shown,
        "Input { len: 6, consumed: 2, needed: 0, held: 0, at_end: false }"
    );
    assert_eq!(input.copy_to_bytes(6), "secret");
}

#[test]
#[should_panic(expected = "consumed 3 bytes of an input of 2")]
fn consuming_more_than_there_is_panics() {
    Input::new(b"ab", false).consume(3);
}

#[test]
fn an_input_tells_what_is_left_and_whether_more_may_come() {
    let mut input = Input::new(b"ab", false);
    assert_eq!((input.bytes(), input.at_end()), (&b"ab"[..], false));
    assert!(!input.is_empty());
    input.consume(1);
    assert_eq!((input.bytes(), input.take_all()), (&b"b"[..], &b"b"[..]));
    assert!(input.is_empty() && input.bytes().is_empty());
    assert!(Input::new(b"", true).at_end());
    assert_eq!(
        FrameError::TooLong { limit: 80 }.to_string(),
        "line or frame longer than its limit of 80 bytes"
    );
}

#[test]
fn what_was_looked_through_is_not_looked_through_again() {
    let mut searched = 0;
    let mut line = |bytes: &[u8]| {
        let found = Input::new(bytes, false).line_from(20, &mut searched);
        (found.map(|line| line.map(<[u8]>::len)), searched)
    };
    assert_eq!(line(b"12345"), (Ok(None), 5));
    // That it is not seen there shows it.
    assert_eq!(line(b"1\n345678"), (Ok(None), 8));
    assert_eq!(line(b"1\n345678\n"), (Ok(Some(8)), 0));
    assert_eq!(line(b"12345"), (Ok(None), 5));

    let mut searched = 0;
    let mut delimited = |bytes: &[u8]| {
        let found = Input::new(bytes, false).delimited_from(b"--", 20, &mut searched);
        (found.map(|frame| frame.map(<[u8]>::len)), searched)
    };
    assert_eq!(delimited(b"12345"), (Ok(None), 5));
    // A delimiter that has begun is looked at again from its beginning.
    assert_eq!(delimited(b"--34567-"), (Ok(None), 7));
    assert_eq!(delimited(b"--34567-9"), (Ok(None), 9));
    assert_eq!(delimited(b"--34567-9--"), (Ok(Some(9)), 0));
}

#[test]
#[should_panic(expected = "the delimiter is empty")]
fn an_empty_delimiter_panics() {
    let _ = Input::new(b"ab", false).delimited(b"", 9);
}

#[test]
fn lengths_are_written_as_they_are_read() {
    for prefix in PREFIXES {
        for n in [0, 1, 127, 128, 255, 256, 65_535, 65_536, u64::MAX] {
            let Some((header, size)) = prefix.write(n) else {
                assert!(n > prefix.max());
                continue;
            };
            assert!(n <= prefix.max() && size <= prefix.size());
            assert_eq!(header[..size], encode(prefix, n as usize));
            let needs = prefix.read(&header[..size - 1], usize::MAX);
            assert_eq!(needs, Ok(Err(size)));
            assert_eq!(prefix.read(&header, usize::MAX), Ok(Ok((size, n))));
        }
    }
    assert_eq!((Prefix::U8.max(), Prefix::U16Le.max()), (255, 65_535));
}
