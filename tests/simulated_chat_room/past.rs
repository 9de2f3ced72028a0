//! What a room keeps of its past, held against all that was said.

use greenroom::testing::{Random, for_each_seed};

use crate::chat_room::history::{BYTES_MAX, History, LINES_MAX, Since};

const EPOCH: u64 = 7;

fn since(random: &mut Random, last: u64) -> Since {
    let epoch = if random.one_in(5) { EPOCH + 1 } else { EPOCH };
    match random.below(5) {
        0 => Since::Ever,
        1 => Since::Line { epoch, id: 0 },
        // Nobody has seen that: a client may say anything.
        2 => Since::Line {
            epoch,
            id: last + random.below(3),
        },
        3 => Since::Line {
            epoch,
            id: u64::MAX,
        },
        _ => Since::Line {
            epoch,
            id: random.below(last + 1),
        },
    }
}

/// With what was seen before and what is told to be missed it is all that was said, in its order, and
/// nothing twice; and no more is missed than has to be.
#[test]
fn what_follows_a_line_is_all_that_was_said_since() {
    for_each_seed(300, |sim| {
        let random = sim.random();
        let mut history = History::new(EPOCH);
        let mut sizes = Vec::new();
        let largest = *random.pick(&[100, 20_000, BYTES_MAX as u64]);
        for _ in 0..random.below(600) {
            let size = random.range(1..largest) as usize;
            sizes.push(size);
            history.push(sizes.len() as u64, size);

            let last = sizes.len() as u64;
            assert_eq!(history.last, last);
            let since = since(random, last);
            let past = history.since(since);
            let seen = match since {
                Since::Line { epoch: EPOCH, id } => id.min(last),
                Since::Line { .. } | Since::Ever => 0,
            };
            let first = past.lines.first().copied().unwrap_or(last + 1);
            let expected: Vec<u64> = (first..=last).collect();
            assert_eq!(past.lines, expected);
            let is_other = matches!(since, Since::Line { epoch, .. } if epoch != EPOCH);
            assert_eq!(past.restarted, is_other);
            if let Since::Line { epoch: EPOCH, .. } = since {
                assert_eq!(seen + past.missed + past.lines.len() as u64, last);
            } else {
                assert_eq!(past.missed, 0);
            }
            let bytes = |from: u64| sizes[from as usize - 1..].iter().sum::<usize>();
            let kept = past.lines.len();
            assert!(kept <= LINES_MAX && (kept == 0 || bytes(first) <= BYTES_MAX));
            if first > seen + 1 {
                let one_more = bytes(first - 1) > BYTES_MAX || kept == LINES_MAX;
                assert!(one_more, "line {} could have been kept", first - 1);
            }
        }
    });
}

#[test]
fn where_to_go_on_from_is_read_as_it_was_written() {
    assert_eq!("0".parse(), Ok(Since::Ever));
    let line = Since::Line {
        epoch: 0xbeef,
        id: 12,
    };
    assert_eq!("beef.12".parse(), Ok(line));
    let bad = [
        "",
        "1",
        ".",
        "x.1",
        "1.",
        ".1",
        "-1.1",
        "1.-1",
        "1.1.1",
        "1.x",
        "0.",
        "10000000000000000.1",
        "1.99999999999999999999",
    ];
    for bad in bad {
        assert_eq!(bad.parse::<Since>(), Err(()), "{bad:?}");
    }
}
