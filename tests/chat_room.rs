//! The chat room, end to end: the program in a process of its own, its clients over TCP.

#[path = "util/process.rs"]
mod process;

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use process::{DEADLINE, Example, Talker};

/// Lines that a flood has.
const FLOOD: usize = 100_000;

/// The server's limit of rooms.
const ROOMS_MAX: usize = 100;

const WELCOME: &str = "* welcome to the chat room";
const AGAIN: &str = "* what is your nickname?";
const BAD_NAME: &str = "! a name has 1 to 20 letters, digits, - and _";
const TOO_LONG: &str = "! that line is longer than 4096 bytes and was not sent";
const NOT_UTF8: &str = "! that line is not UTF-8 and was not sent";
const STOPPING: &str = "* the server is stopping";
const TOO_SOON: &str = "! that line came too soon after the others and was not sent";
const CONTROL: &str = "! that line has control characters in it and was not sent";

/// With so many lines a second for each.
fn start(rate: &str) -> Example {
    let args = ["--pollers", "2", "--http", "127.0.0.1:0", "--rate", rate];
    Example::start("chat_room", &args)
}

fn chat_room() -> Example {
    start("0")
}

/// Connects and gives a name. On return the lobby has let it in.
fn enter(chat: &Example, name: &str) -> Talker<TcpStream> {
    let mut talker = chat.connect();
    talker.expect(WELCOME);
    talker.expect(AGAIN);
    talker.say(name);
    talker.expect(format!("* {name} has joined lobby"));
    talker
}

/// Several, each of whom has seen all who came after.
fn enter_all<const N: usize>(chat: &Example, names: [&str; N]) -> [Talker<TcpStream>; N] {
    let mut inside: Vec<Talker<TcpStream>> = Vec::new();
    for name in names {
        let newcomer = enter(chat, name);
        for talker in &mut inside {
            talker.expect(format!("* {name} has joined lobby"));
        }
        inside.push(newcomer);
    }
    inside.try_into().ok().expect("as many as names")
}

fn join(talker: &mut Talker<TcpStream>, name: &str, room: &str) {
    talker.say(format!("/join {room}"));
    talker.expect(format!("* {name} has joined {room}"));
}

#[test]
fn the_whole_dialogue() {
    let chat = chat_room();
    let [mut alice, mut bob] = enter_all(&chat, ["alice", "bob"]);
    alice.say("hello, bob");
    bob.expect("alice: hello, bob");
    bob.say_bytes("hello, alice \u{1f44b}\tand all\r\n\n".as_bytes());
    alice.expect("bob: hello, alice \u{1f44b}\tand all");

    alice.say("/help");
    alice.expect("* /nick NAME, /who, /rooms, /join ROOM, /quit; all else is said to the room");
    alice.say("/who");
    alice.expect("* 2 in lobby: alice, bob");
    alice.say("/rooms");
    alice.expect("* 1 rooms: lobby (2)");
    alice.say("/dance");
    alice.expect("! there is no such command; /help shows those that there are");
    for bad in [
        "/nick",
        "/nick a b",
        "/nick a/b",
        "/join",
        "/join \u{e9}",
        "/nick 123456789012345678901",
    ] {
        alice.say(bad);
        alice.expect(BAD_NAME);
    }
    alice.say("/nick carol");
    alice.expect("* you are now carol");
    bob.expect("* alice is now carol");
    // Lines sent at once are taken one after another, each with the effect of those before.
    alice.say_bytes(b"one\n/nick dora\ntwo\n/join den\nthree\n/who\n");
    for line in [
        "carol: one",
        "* carol is now dora",
        "dora: two",
        "* dora has left lobby",
    ] {
        bob.expect(line);
    }
    for line in [
        "* you are now dora",
        "* dora has joined den",
        "* 1 in den: dora",
    ] {
        alice.expect(line);
    }
    chat.signal("INT");
    for talker in [&mut alice, &mut bob] {
        talker.expect(STOPPING);
        talker.expect_end();
    }
    drop([alice, bob]);
    assert_eq!(chat.last_line(), "stopped after 2 connections");
}

#[test]
fn quit_says_goodbye_and_the_bytes_arrive() {
    let chat = chat_room();
    let [mut alice, mut bob] = enter_all(&chat, ["alice", "bob"]);
    // What follows is never read, which must not cost the goodbye.
    let mut bytes = b"bye, all\n/quit\n".to_vec();
    bytes.resize(500_000, b'x');
    bob.say_bytes(&bytes);
    bob.expect("* goodbye");
    bob.expect_end();
    alice.expect("bob: bye, all");
    alice.expect("* bob has left lobby");
    // Before a nickname, too.
    let mut nobody = chat.connect();
    nobody.say("/quit");
    nobody.expect(WELCOME);
    nobody.expect(AGAIN);
    nobody.expect("* goodbye");
    nobody.expect_end();
}

#[test]
fn the_last_words_of_who_half_closes_are_heard() {
    let chat = chat_room();
    let [mut alice] = enter_all(&chat, ["alice"]);
    let mut bob = chat.connect();
    bob.say_bytes(b"bob\nhello\nand goodbye");
    bob.shutdown_write();
    bob.lines_until_end();
    for line in [
        "* bob has joined lobby",
        "bob: hello",
        "bob: and goodbye",
        "* bob has left lobby",
    ] {
        alice.expect(line);
    }
}

#[test]
fn a_nickname_is_unique_and_free_again_when_its_owner_has_gone() {
    let chat = chat_room();
    let [mut alice] = enter_all(&chat, ["alice"]);
    let mut late = chat.connect();
    late.expect(WELCOME);
    late.expect(AGAIN);
    for taken in ["alice", "Alice", "/nick ALICE"] {
        late.say(taken);
        late.expect(format!("! {} is taken", taken.trim_start_matches("/nick ")));
        late.expect(AGAIN);
    }
    for bad in [
        "",
        "a b",
        "\u{e5}",
        "/who",
        "hello/",
        "123456789012345678901",
    ] {
        late.say(bad);
        late.expect(BAD_NAME);
        late.expect(AGAIN);
    }
    late.say("late");
    late.expect("* late has joined lobby");
    alice.expect("* late has joined lobby");

    let ends: [fn(Talker<TcpStream>); 4] = [
        |mut bob| bob.say("/quit"),
        |bob| drop(bob),
        |bob| bob.shutdown_write(),
        |bob| {
            bob.stream
                .get_ref()
                .peek(&mut [0])
                .expect("the line below arrives");
            bob.reset();
        },
    ];
    for end in ends {
        let bob = enter(&chat, "bob");
        alice.expect("* bob has joined lobby");
        alice.say("something unread");
        end(bob);
        alice.expect("* bob has left lobby");
        // Seen to have left, so the name is free: no waiting.
        alice.say("/nick bob");
        alice.expect("* you are now bob");
        alice.say("/nick BOB");
        alice.expect("* you are now BOB");
        alice.say("/nick alice");
        alice.expect("* you are now alice");
    }
    // A name that was given up is free, too, and one that was asked for in vain changes nothing.
    alice.say("/nick late");
    alice.expect("! late is taken");
    alice.say("/who");
    alice.lines_until("* 2 in lobby: alice, late");
}

/// As a page that comes back may do it twice.
#[test]
fn a_nickname_that_stays_is_no_news_to_the_others() {
    let chat = chat_room();
    let [mut alice, mut bob] = enter_all(&chat, ["alice", "bob"]);
    alice.say("/nick alice");
    alice.expect("* you are now alice");
    alice.say("still me");
    bob.expect("alice: still me");
    // Written in another way it is.
    alice.say("/nick Alice");
    alice.expect("* you are now Alice");
    bob.expect("* alice is now Alice");
}

#[test]
fn bad_lines_are_answered_and_do_not_harm_others() {
    let chat = chat_room();
    let [mut alice, mut bob] = enter_all(&chat, ["alice", "bob"]);
    let longest = "x".repeat(4096);
    bob.say(&longest);
    alice.expect(format!("bob: {longest}"));
    let bad: [(&[u8], &str); 9] = [
        (&[b'x'; 4097], TOO_LONG),
        (&[b'x'; 300_000], TOO_LONG),
        (b"\xff\xfe", NOT_UTF8),
        (b"half a letter \xe2\x82", NOT_UTF8),
        (b"/nick \xff", NOT_UTF8),
        (b"\x1b[2J", CONTROL),
        (b"nul \0", CONTROL),
        (b"del \x7f", CONTROL),
        ("next line \u{85}".as_bytes(), CONTROL),
    ];
    for (line, error) in bad {
        bob.say(line);
        bob.expect(error);
    }
    bob.say("still here");
    alice.expect("bob: still here");

    // Answered as soon as it is too long, not at its end; and the name is asked for again.
    let mut endless = chat.connect();
    endless.expect(WELCOME);
    endless.expect(AGAIN);
    endless.say_bytes(&[b'x'; 5000]);
    endless.expect(TOO_LONG);
    endless.expect(AGAIN);
    let before = chat.resident();
    for _ in 0..64 {
        endless.say_bytes(&[b'x'; 1 << 20]);
    }
    let grown = chat.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "a line of 64 MiB took {grown} bytes");
    endless.say_bytes(b"\nendless\n");
    endless.expect("* endless has joined lobby");
    alice.expect("* endless has joined lobby");
}

#[test]
fn a_reset_in_the_middle_of_a_line_is_a_leave() {
    let chat = chat_room();
    let [mut alice, mut bob] = enter_all(&chat, ["alice", "bob"]);
    bob.say_bytes(b"a line\nhalf a li");
    alice.expect("bob: a line");
    alice.say("never read");
    bob.reset();
    alice.expect("* bob has left lobby");
    alice.say("/who");
    alice.expect("* 1 in lobby: alice");
}

#[test]
fn join_moves_and_rooms_come_and_go() {
    let chat = chat_room();
    let [mut alice, mut bob, mut carol] = enter_all(&chat, ["alice", "bob", "carol"]);
    join(&mut alice, "alice", "den");
    for talker in [&mut bob, &mut carol] {
        talker.expect("* alice has left lobby");
    }
    alice.say("/join den");
    alice.expect("! you are in den already");
    alice.say("unheard");
    // Its answer says that the room has heard the line before, so before anybody else comes.
    alice.say("/who");
    alice.expect("* 1 in den: alice");
    join(&mut bob, "bob", "den");
    alice.expect("* bob has joined den");
    carol.expect("* bob has left lobby");
    alice.say("welcome");
    bob.expect("alice: welcome");
    carol.say("/rooms");
    carol.expect("* 2 rooms: den (2), lobby (1)");

    join(&mut bob, "bob", "lobby");
    alice.expect("* bob has left den");
    carol.expect("* bob has joined lobby");
    join(&mut alice, "alice", "attic");
    carol.say("/rooms");
    carol.expect("* 2 rooms: attic (1), lobby (2)");
    drop(alice);
    drop(bob);
    carol.expect("* bob has left lobby");
    // Nobody here sees alice go.
    loop {
        carol.say("/rooms");
        match carol.line().as_str() {
            "* 1 rooms: lobby (1)" => break,
            other => assert_eq!(other, "* 2 rooms: attic (1), lobby (1)"),
        }
    }
    // The lobby stays when it is empty.
    join(&mut carol, "carol", "den");
    carol.say("/rooms");
    carol.expect("* 2 rooms: den (1), lobby (0)");
    join(&mut carol, "carol", "lobby");
}

#[test]
fn the_number_of_rooms_is_bounded() {
    let chat = chat_room();
    let mut talkers: Vec<_> = (0..ROOMS_MAX)
        .map(|n| {
            let mut talker = chat.connect();
            talker.say(format!("n{n}"));
            talker.lines_until(&format!("* n{n} has joined lobby"));
            talker
        })
        .collect();
    let (last, others) = talkers.split_last_mut().expect("there are some");
    for (n, talker) in others.iter_mut().enumerate() {
        talker.say(format!("/join room{n}"));
        talker.lines_until(&format!("* n{n} has joined room{n}"));
    }
    let refusal = format!("! there are {ROOMS_MAX} rooms already; /rooms lists them");
    last.say("/join one-more");
    last.lines_until(&refusal);
    // Who has no room yet comes into the lobby instead, and into its past.
    last.say("heard in the lobby");
    last.say("/who");
    last.lines_until("* 1 in lobby: n99");
    let mut late = chat.connect();
    late.say("/join one-more 123.4");
    late.say("late");
    late.expect(WELCOME);
    late.expect(AGAIN);
    late.expect(refusal.as_str());
    late.expect("n99: heard in the lobby");
    late.expect("* late has joined lobby");
    last.lines_until("* late has joined lobby");
    // Into one that is there, and a place has become free.
    others[0].say("/join room1");
    others[0].lines_until("* n0 has joined room1");
    last.say("/join one-more");
    last.lines_until("* n99 has joined one-more");
}

/// A room that is left by its last member while another one comes: nobody must end up in a room
/// that is no more.
#[test]
fn no_joiner_is_lost_while_rooms_come_and_go() {
    const TALKERS: usize = 6;
    const ROUNDS: usize = 300;
    let chat = chat_room();
    let mut talkers: Vec<_> = thread::scope(|scope| {
        let movers: Vec<_> = (0..TALKERS)
            .map(|n| {
                let addr = chat.socket_addr();
                scope.spawn(move || {
                    let mut talker = Talker::connect(addr);
                    talker.say(format!("n{n}"));
                    talker.lines_until(&format!("* n{n} has joined lobby"));
                    for round in 0..ROUNDS {
                        let room = ["odd", "even"][(round + n) % 2];
                        talker.say(format!("/join {room}"));
                        talker.lines_until(&format!("* n{n} has joined {room}"));
                    }
                    talker.say("/join end");
                    talker.lines_until(&format!("* n{n} has joined end"));
                    talker
                })
            })
            .collect();
        movers
            .into_iter()
            .map(|mover| mover.join().expect("a mover ends"))
            .collect()
    });
    for sayer in 0..TALKERS {
        talkers[sayer].say(format!("hello from {sayer}"));
        for (listener, talker) in talkers.iter_mut().enumerate() {
            if listener != sayer {
                talker.lines_until(&format!("n{sayer}: hello from {sayer}"));
            }
        }
    }
    talkers[0].say("/rooms");
    talkers[0].expect("* 2 rooms: end (6), lobby (0)");
}

#[test]
fn all_readers_see_one_sequence() {
    const LINES: usize = 10_000;
    let chat = chat_room();
    // Connections go to the pollers in turn: the two senders are on different ones, and so are the
    // readers.
    let [mut ann, mut ben, carl, dora, emil] =
        enter_all(&chat, ["ann", "ben", "carl", "dora", "emil"]);
    let (sequences, by_ann, by_ben) = thread::scope(|scope| {
        let readers = [carl, dora, emil].map(|mut reader| {
            scope.spawn(move || {
                std::iter::repeat_with(|| reader.line())
                    .take(2 * LINES)
                    .collect::<Vec<_>>()
            })
        });
        let [ann, ben] = [(&mut ann, "to ben"), (&mut ben, "to ann")].map(|(sender, what)| {
            scope.spawn(move || {
                let lines: String = (0..LINES).map(|n| format!("{what} {n}\n")).collect();
                sender.say_bytes(lines.as_bytes());
                std::iter::repeat_with(|| sender.line())
                    .take(LINES)
                    .collect::<Vec<_>>()
            })
        });
        (
            readers.map(|reader| reader.join().expect("a reader ends")),
            ann.join().expect("ann"),
            ben.join().expect("ben"),
        )
    });
    let [first, second, third] = sequences;
    assert!(
        first == second && second == third,
        "the readers saw different sequences"
    );
    let expected = |who: &str, what: &str| {
        (0..LINES)
            .map(|n| format!("{who}: {what} {n}"))
            .collect::<Vec<_>>()
    };
    let of = |who: &str| {
        first
            .iter()
            .filter(|line| line.starts_with(who))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert!(
        of("ann: ") == expected("ann", "to ben"),
        "lines of ann were lost or changed their order"
    );
    assert!(
        of("ben: ") == expected("ben", "to ann"),
        "lines of ben were lost or changed their order"
    );
    // A sender gets the other's lines and not its own.
    assert!(
        by_ben == expected("ann", "to ben"),
        "ben got something else than ann's lines"
    );
    assert!(
        by_ann == expected("ben", "to ann"),
        "ann got something else than ben's lines"
    );
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_the_rest_never_notice() {
    let chat = chat_room();
    let [mut sender, mut reader, mut mute] = enter_all(&chat, ["sender", "reader", "mute"]);
    // More than its budget and the kernel's buffers together.
    let line = |n: usize| format!("{n:0200}");
    // A reader that reads, but has no processor for a while, is not to be taken for a slow one: it
    // is no more than a part of its budget behind.
    const AHEAD: usize = 2_000;
    let read = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..FLOOD {
                let start = Instant::now();
                while n > read.load(Ordering::Relaxed) + AHEAD {
                    assert!(start.elapsed() < DEADLINE, "the reader reads");
                    thread::park_timeout(Duration::from_millis(1));
                }
                sender
                    .stream
                    .get_mut()
                    .write_all(format!("{}\n", line(n)).as_bytes())
                    .expect("the server reads");
            }
        });
        let mut left = 0;
        for n in 0..FLOOD {
            let mut got = reader.line();
            if got == "* mute has left lobby" {
                left += 1;
                got = reader.line();
            }
            assert_eq!(got, format!("sender: {}", line(n)));
            read.store(n, Ordering::Relaxed);
        }
        if left == 0 {
            reader.expect("* mute has left lobby");
        }
    });
    sender.expect("* mute has left lobby");
    sender.say("/who");
    sender.expect("* 2 in lobby: reader, sender");
    // What it can still read is in order, without a gap, and then it is over.
    let mut n = 0;
    while let Ok(Some(got)) = mute.try_line() {
        assert_eq!(got, format!("sender: {}", line(n)));
        n += 1;
    }
    assert!(n < FLOOD, "it got all {n} lines, so it was not dropped");
}

#[test]
fn bursts_of_the_longest_lines_drop_nobody_who_reads() {
    const BURSTS: usize = 15;
    /// Together less than may wait for a reader, which gets no processor for a while.
    const LINES: usize = 200;
    let chat = chat_room();
    let [mut sender, mut reader] = enter_all(&chat, ["sender", "reader"]);
    let line = "x".repeat(4096);
    let burst = format!("{line}\n").repeat(LINES);
    for _ in 0..BURSTS {
        sender.say_bytes(burst.as_bytes());
        for _ in 0..LINES {
            reader.expect(format!("sender: {line}"));
        }
    }
}

#[test]
fn garbage_and_a_flood_of_connects_leave_nothing_behind() {
    const CONNECTS: usize = 2_000;
    let chat = chat_room();
    let [mut alice, mut bob] = enter_all(&chat, ["alice", "bob"]);
    let before = chat.descriptors();
    let mut random = 1_u64;
    for n in 0..CONNECTS {
        let mut talker = chat.connect();
        // xorshift64 (Marsaglia 2003): any bytes will do, but the same in each run.
        let garbage: Vec<u8> = std::iter::repeat_with(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as u8
        })
        .take(n % 64)
        .collect();
        talker.say_bytes(&garbage);
    }
    alice.say("still here");
    loop {
        let line = bob.line();
        if line == "alice: still here" {
            break;
        }
        // Garbage may be a name.
        assert!(line.starts_with("* "), "{line:?}");
    }
    chat.wait_for_descriptors(before);
}

#[test]
fn a_room_that_was_left_is_not_heard_any_more() {
    const LINES: usize = 20_000;
    let chat = chat_room();
    let [mut mover, mut sender] = enter_all(&chat, ["mover", "sender"]);
    let mut said = sender
        .stream
        .get_ref()
        .try_clone()
        .expect("a second descriptor");
    thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..LINES {
                said.write_all(format!("{n}\n").as_bytes())
                    .expect("the server reads");
            }
        });
        for _ in 0..100 {
            mover.say("/join den");
            mover.lines_until("* mover has joined den");
            mover.say("/who");
            mover.expect("* 1 in den: mover");
            mover.say("/join lobby");
            mover.lines_until("* mover has joined lobby");
        }
        mover.say("/join den");
    });
    sender.lines_until("* mover has left lobby");
}

#[test]
fn who_comes_late_can_be_told_what_was_said() {
    /// What the server keeps of a room.
    const KEPT: usize = 200;
    let chat = chat_room();
    let [mut alice] = enter_all(&chat, ["alice"]);
    join(&mut alice, "alice", "den");
    alice.say("one");
    alice.say("two");
    // Not without being asked to.
    let mut bob = enter(&chat, "bob");
    join(&mut bob, "bob", "den");
    alice.expect("* bob has joined den");
    join(&mut bob, "bob", "lobby");
    alice.expect("* bob has left den");
    for bad in ["den 1", "den 0 0", "den -", "den x.y", "a/b 0"] {
        bob.say(format!("/join {bad}"));
        bob.expect(BAD_NAME);
    }
    bob.say("/join den 0");
    for line in ["alice: one", "alice: two", "* bob has joined den"] {
        bob.expect(line);
    }
    alice.expect("* bob has joined den");

    for n in 0..KEPT {
        alice.say(format!("line {n}"));
        bob.expect(format!("alice: line {n}"));
    }
    // Straight into a room, and its past with it.
    let mut carol = chat.connect();
    carol.say("/join den 0");
    carol.say("carol");
    carol.expect(WELCOME);
    carol.expect(AGAIN);
    for n in 0..KEPT {
        carol.expect(format!("alice: line {n}"));
    }
    carol.expect("* carol has joined den");
    // Of another epoch: the room does not know what was said in between.
    carol.say("/join lobby 123abc.7");
    carol.expect("* what was said before is not known any more");
    carol.expect("* carol has joined lobby");
    // A room that was empty has no past.
    alice.say("/join attic");
    alice.lines_until("* alice has joined attic");
    bob.say("/join attic");
    bob.lines_until("* bob has joined attic");
    carol.say("/join den 0");
    carol.expect("* carol has joined den");
}

#[test]
fn who_says_too_much_is_told_so_and_then_dropped() {
    let chat = start("1");
    let [mut alice, mut bob] = enter_all(&chat, ["alice", "bob"]);
    let mut flood = format!("{}\n", "x".repeat(5_000)).repeat(9);
    flood += &"flood\n".repeat(500);
    bob.say_bytes(flood.as_bytes());
    let mut lines = bob.lines_until_end();
    let dropped = "* you have been dropped for sending too many lines";
    assert_eq!(lines.pop().as_deref(), Some(dropped));
    assert!(lines.iter().any(|line| line == TOO_SOON), "{lines:?}");
    alice.lines_until("* bob has left lobby");
    alice.say("/who");
    alice.expect("* 1 in lobby: alice");
}
