use proptest::prelude::*;

use super::*;
use crate::output::COPY_MAX;

/// A write as the model knows it: bytes with their own content, key, and whether it may be dropped.
#[derive(Clone, Debug)]
struct Waits {
    bytes: Vec<u8>,
    key: Option<u64>,
    may_drop: bool,
    begun: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Push {
        len: usize,
        may_drop: bool,
    },
    Put {
        key: u64,
        len: usize,
    },
    Drop,
    /// A share of what waits, in 1/16.
    Advance(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..300_usize, any::<bool>()).prop_map(|(len, may_drop)| Step::Push { len, may_drop }),
        (0..4_u64, 1..300_usize).prop_map(|(key, len)| Step::Put { key, len }),
        Just(Step::Drop),
        (0..=16_usize).prop_map(Step::Advance),
    ]
}

fn bytes_of(pieces: &Pieces) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 200];
    let filled = pieces.io_slices(&mut slices);
    let filled = slices[..filled].iter();
    filled.flat_map(|slice| slice.to_vec()).collect()
}

proptest! {
    #[test]
    fn pieces_are_a_queue_of_which_some_are_dropped_or_replaced_whole(
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let (mut pieces, mut model) = (Pieces::default(), VecDeque::<Waits>::new());
        for (n, step) in steps.into_iter().enumerate() {
            let fill = |len: usize| (0..len).map(|at| (n * 31 + at) as u8).collect::<Vec<u8>>();
            match step {
                Step::Push { len, may_drop } => {
                    pieces.push(fill(len).into(), may_drop);
                    if len > 0 {
                        model.push_back(Waits { bytes: fill(len), key: None, may_drop, begun: false });
                    }
                }
                Step::Put { key, len } => {
                    let place = model.iter().position(|waits| waits.key == Some(key) && !waits.begun);
                    let waiting = place.map(|place| model[place].bytes.len());
                    prop_assert_eq!(pieces.waiting_of(key), waiting);
                    let change = pieces.put(key, fill(len).into(), true, true);
                    let expected = place.map(|place| Change {
                        behind: model.range(..place).map(|waits| waits.bytes.len()).sum(),
                        was: model[place].bytes.len(),
                        is: len,
                    });
                    prop_assert_eq!(change, expected);
                    match place {
                        Some(place) => model[place].bytes = fill(len),
                        None => model.push_back(Waits {
                            bytes: fill(len), key: Some(key), may_drop: true, begun: false,
                        }),
                    }
                }
                Step::Drop => {
                    // A key before one that is dropped may not be: all that have keys may be
                    // dropped here.
                    let place = model.iter().position(|waits| waits.may_drop && !waits.begun);
                    let change = pieces.drop_first();
                    let expected = place.map(|place| Change {
                        behind: model.range(..place).map(|waits| waits.bytes.len()).sum(),
                        was: model[place].bytes.len(),
                        is: 0,
                    });
                    prop_assert_eq!(change, expected);
                    place.map(|place| model.remove(place));
                }
                Step::Advance(share) => {
                    let all: usize = model.iter().map(|waits| waits.bytes.len()).sum();
                    let mut n = all * share / 16;
                    pieces.advance(n);
                    while n > 0 {
                        let first = &mut model[0];
                        let step = n.min(first.bytes.len());
                        first.bytes.drain(..step);
                        first.begun = true;
                        n -= step;
                        if first.bytes.is_empty() {
                            model.pop_front();
                        }
                    }
                }
            }
            let all: Vec<u8> = model.iter().flat_map(|waits| waits.bytes.clone()).collect();
            prop_assert_eq!(bytes_of(&pieces), &all[..]);
            prop_assert_eq!(pieces.len(), all.len());
            prop_assert_eq!(pieces.cost(), all.len() + PIECE_BYTES * model.len());
            prop_assert_eq!(pieces.is_empty(), model.is_empty());
            let droppable = model.iter().filter(|waits| waits.may_drop && !waits.begun).count();
            prop_assert_eq!(pieces.droppable(), droppable);
        }
        let all: Vec<u8> = model.iter().flat_map(|waits| waits.bytes.clone()).collect();
        prop_assert_eq!(pieces.take(), all);
        prop_assert!(pieces.is_empty());
    }

    #[test]
    fn a_cursor_gives_what_was_staged(
        shown in 0..3000_usize,
        writes in prop::collection::vec((0..2 * COPY_MAX, any::<bool>()), 0..12),
        cuts in prop::collection::vec(0..800_usize, 0..30),
        drop in 0..4000_usize,
    ) {
        let input: Vec<u8> = (0..4000).map(|at| (at % 241) as u8).collect();
        let (mut staged, mut all) = (Staged::default(), Vec::new());
        if shown >= 1024 {
            assert!(staged.takes_shown(shown) && staged.push_shown(100..100 + shown));
            all.extend(&input[100..100 + shown]);
        }
        for (n, (len, is_shared)) in writes.into_iter().enumerate() {
            let bytes = vec![n as u8; len];
            all.extend(&bytes);
            if is_shared {
                staged.push_bytes(bytes.into());
            } else {
                staged.push_slice(&bytes);
            }
        }
        let drop = drop.min(all.len());
        staged.drop_front(drop);
        prop_assert_eq!(staged.len(), all.len() - drop);
        let mut rest = &all[drop..];
        let mut cursor = staged.cursor(&input);
        for cut in cuts {
            let taken;
            (taken, rest) = rest.split_at(cut.min(rest.len()));
            prop_assert_eq!(cursor.next(taken.len()), taken);
        }
        prop_assert_eq!(cursor.next(rest.len()), rest);
    }
}

#[test]
fn what_was_handed_over_as_one_is_not_copied() {
    let payload = Bytes::from(vec![7; 10_000]);
    let mut staged = Staged::default();
    staged.push_slice(b"head");
    staged.push_bytes(payload.clone());
    let mut cursor = staged.cursor(&[]);
    assert_eq!(cursor.next(4), "head");
    assert_eq!(cursor.next(10_000).as_ptr(), payload.as_ptr());
}

#[test]
fn a_piece_takes_no_more_than_it_counts_as() {
    assert!(size_of::<Piece>() <= PIECE_BYTES);
}

#[test]
fn files_stand_in_line_with_bytes() {
    let file = File::open("/dev/null").expect("there is one");
    let mut pieces = Pieces::default();
    let part = |left| FilePart {
        file: Arc::new(file.try_clone().expect("a descriptor")),
        at: 10,
        left,
    };
    pieces.push("abc".into(), true);
    pieces.push_file(part(0));
    pieces.push_file(part(1 << 40));
    pieces.push("def".into(), false);
    assert_eq!(pieces.len(), (1 << 40) + 6);
    assert_eq!(pieces.cost(), 6 + 3 * PIECE_BYTES);
    assert!(pieces.has_file() && pieces.first_file().is_none());
    assert_eq!(bytes_of(&pieces), b"abc");
    pieces.advance(3 + 1000);
    let first = pieces.first_file().expect("it is next");
    assert_eq!((first.at, first.left), (1010, (1 << 40) - 1000));
    assert!(bytes_of(&pieces).is_empty() && pieces.drop_first().is_none());
    pieces.advance((1 << 40) - 1000);
    assert!(!pieces.has_file());
    assert_eq!(bytes_of(&pieces), b"def");
}
