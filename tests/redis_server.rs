//! The Redis server: its parser by properties, and the program in a process of its own, over TCP.

#[path = "../examples/redis_server/glob.rs"]
mod glob;
#[path = "util/process.rs"]
mod process;
#[path = "../examples/redis_server/resp.rs"]
mod resp;

use std::io::Read;
use std::net::TcpStream;
use std::thread;

use process::{Example, Talker};
use proptest::prelude::*;
use resp::{
    ARGUMENTS_MAX, Args, BULK_MAX, COMMAND_MAX, IN_PLACE_MAX, INLINE_MAX, LARGE_MIN, Partial,
    ProtocolError, Request, integer, parse, unquote,
};

/// A command as an array of bulk strings.
fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend(arg);
        bytes.extend(b"\r\n");
    }
    bytes
}

type Words = Vec<Vec<u8>>;

/// All commands in `bytes`, and how many bytes they take.
fn parse_all(bytes: &[u8]) -> Result<(Vec<Words>, usize), ProtocolError> {
    let (mut commands, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let mut args = Args::new();
        let owned = |args: &Args<'_>| args.iter().map(|arg| arg.to_vec()).collect();
        match parse(&bytes[at..], &mut args)? {
            Request::Command { len } => {
                commands.push(owned(&args));
                at += len;
            }
            Request::Quoted { line, len } => {
                commands.push(unquote(line)?);
                at += len;
            }
            Request::Incomplete { need } => {
                assert!(need > 0 && need <= IN_PLACE_MAX.max(bytes.len() - at + 1));
                break;
            }
            Request::Begun { .. } => panic!("nothing here is large"),
        }
    }
    Ok((commands, at))
}

/// All commands in what comes in pieces, as a connection takes them; and where a piece made it
/// wrong, that.
fn take_all(pieces: &[&[u8]]) -> Result<Vec<Words>, ProtocolError> {
    let (mut commands, mut kept, mut partial) = (Vec::new(), Vec::new(), None::<Partial>);
    for piece in pieces {
        kept.extend_from_slice(piece);
        while !kept.is_empty() {
            let mut args = Args::new();
            let consumed = match &mut partial {
                Some(begun) => {
                    let (len, need) = begun.take(&kept)?;
                    assert!(need.is_none() || need > Some(kept.len() - len));
                    if need.is_none() {
                        let words = partial.take().expect("it is there").into_args();
                        commands.push(words.iter().map(|word| word.to_vec()).collect());
                    } else if len == 0 {
                        break;
                    }
                    len
                }
                None => match parse(&kept, &mut args)? {
                    Request::Command { len } => {
                        commands.push(args.iter().map(|arg| arg.to_vec()).collect());
                        len
                    }
                    Request::Quoted { line, len } => {
                        commands.push(unquote(line)?);
                        len
                    }
                    Request::Incomplete { .. } => break,
                    Request::Begun { len, missing } => {
                        partial = Some(Partial::begin(&args, missing, COMMAND_MAX));
                        len
                    }
                },
            };
            drop(args);
            kept.drain(..consumed);
        }
    }
    Ok(commands)
}

/// Arguments around the lengths from which on they are received apart.
fn large_words() -> impl Strategy<Value = Words> {
    let near = |len: usize| (len - 3..len + 3).prop_map(|len| vec![b'l'; len]);
    let word = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => near(LARGE_MIN),
        1 => near(IN_PLACE_MAX),
        1 => Just(vec![b'm'; 3 * IN_PLACE_MAX]),
    ];
    prop::collection::vec(word, 1..8)
}

fn words() -> impl Strategy<Value = Words> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6)
}

/// What looks like the protocol, more or less.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"*".to_vec()),
        Just(b"$".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"'".to_vec()),
        Just(b"\\".to_vec()),
        Just(b"x4".to_vec()),
        (-3..1_000_i64).prop_map(|number| number.to_string().into_bytes()),
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        (0..30_usize).prop_map(|len| vec![b'9'; len]),
        prop::collection::vec(any::<u8>(), 0..5),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_command_is_parsed_wherever_it_is_cut(args in words(), after in nearly()) {
        let command = encode(&args);
        for cut in 1..command.len() {
            let mut found = Args::new();
            // It waits for more than is there, and never for more than there will be.
            match parse(&command[..cut], &mut found) {
                Ok(Request::Incomplete { need }) => prop_assert!(need <= command.len()),
                other => prop_assert!(false, "{other:?} at {cut}"),
            }
        }
        let bytes = [&command[..], &after].concat();
        let mut found = Args::new();
        prop_assert_eq!(parse(&bytes, &mut found), Ok(Request::Command { len: command.len() }));
        prop_assert!(found.iter().copied().eq(args.iter().map(Vec::as_slice)));
    }

    #[test]
    fn any_bytes_are_parsed_alike_in_one_piece_and_in_two(
        bytes in nearly(),
        cut in 0..60_usize,
    ) {
        let whole = parse_all(&bytes);
        let cut = cut.min(bytes.len());
        match parse_all(&bytes[..cut]) {
            // What is wrong with the beginning is wrong with the whole.
            Err(error) => prop_assert_eq!(whole, Err(error)),
            Ok((mut commands, consumed)) => match parse_all(&bytes[consumed..]) {
                Err(error) => prop_assert_eq!(whole, Err(error)),
                Ok((rest, len)) => {
                    commands.extend(rest);
                    prop_assert_eq!(whole, Ok((commands, consumed + len)));
                }
            },
        }
    }

    #[test]
    fn commands_of_any_size_are_taken_alike_however_they_are_cut(
        all in prop::collection::vec(large_words(), 1..4),
        cuts in prop::collection::vec(0..500_000_usize, 0..6),
    ) {
        let bytes = all.iter().map(|args| encode(args)).collect::<Vec<_>>().concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len()).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
        prop_assert_eq!(take_all(&pieces), Ok(all));
    }

    #[test]
    fn any_bytes_are_taken_alike_byte_by_byte(bytes in nearly()) {
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(take_all(&pieces), take_all(&[&bytes]));
    }

    /// What another parser of this protocol reads as an array of bulk strings is the same here, and
    /// what that one waits for is waited for here.
    #[test]
    fn another_parser_finds_the_same(args in words(), after in nearly(), cut in 0..200_usize) {
        use redis_protocol::resp2::{decode::decode, types::OwnedFrame};
        let bytes = [&encode(&args)[..], &after].concat();
        let bytes = &bytes[..cut.min(bytes.len())];
        let mut found = Args::new();
        let ours = if bytes.is_empty() { None } else { parse(bytes, &mut found).ok() };
        match decode(bytes) {
            Ok(Some((OwnedFrame::Array(frames), len))) => {
                prop_assert_eq!(ours, Some(Request::Command { len }));
                let frames = frames.iter().map(|frame| match frame {
                    OwnedFrame::BulkString(bytes) => &bytes[..],
                    other => panic!("{other:?}"),
                });
                prop_assert!(frames.eq(found.iter().copied()));
            }
            Ok(None) => {
                let waits = matches!(ours, None | Some(Request::Incomplete { .. }));
                prop_assert!(waits, "{ours:?}");
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn a_pattern_of_plain_letters_and_stars_matches_as_a_search_does(
        parts in prop::collection::vec("[ab]{0,3}", 1..5),
        text in "[ab]{0,12}",
    ) {
        // Each part at its first place behind the one before; the last one at the end.
        let mut rest = text.as_str();
        let found = (|| {
            let (last, others) = parts.split_last()?;
            let Some((first, middle)) = others.split_first() else {
                return (rest == last).then_some(());
            };
            rest = rest.strip_prefix(first.as_str())?;
            for part in middle {
                rest = &rest[rest.find(part.as_str())? + part.len()..];
            }
            rest.ends_with(last.as_str()).then_some(())
        })();
        let pattern = parts.join("*");
        prop_assert_eq!(glob::matches(pattern.as_bytes(), text.as_bytes()), found.is_some());
    }

    #[test]
    fn quoted_words_come_out_as_they_were(args in words()) {
        let quote = |arg: &Vec<u8>| -> String {
            arg.iter().map(|byte| format!("\\x{byte:02x}")).collect()
        };
        let line: Vec<String> = args.iter().map(|arg| format!("\"{}\"", quote(arg))).collect();
        prop_assert_eq!(unquote(line.join(" ").as_bytes()), Ok(args));
    }

    #[test]
    fn numbers_are_those_that_the_standard_library_writes(number: i64) {
        prop_assert_eq!(integer(number.to_string().as_bytes()), Some(number));
    }
}

#[test]
fn numbers_are_written_in_one_way_only() {
    for (digits, number) in [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX)] {
        assert_eq!(integer(digits.as_bytes()), Some(number));
    }
    assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
    for bad in [
        "",
        "-",
        "-0",
        "+1",
        "01",
        " 1",
        "1 ",
        "1x",
        "9223372036854775808",
        "-9223372036854775809",
    ] {
        assert_eq!(integer(bad.as_bytes()), None, "{bad:?}");
    }
}

#[test]
fn what_nobody_should_send_is_refused_before_it_is_waited_for() {
    let long_line = vec![b'x'; INLINE_MAX];
    let cases: [(&[u8], ProtocolError); 12] = [
        (b"*a\r\n", ProtocolError::ArrayLen),
        (b"*1\rx", ProtocolError::ArrayLen),
        (b"*111111111111111111111", ProtocolError::ArrayLen),
        (
            format!("*{}\r\n", ARGUMENTS_MAX + 1).leak().as_bytes(),
            ProtocolError::ArrayLen,
        ),
        (b"*99999999999999999999\r\n", ProtocolError::ArrayLen),
        (b"*1\r\n$99999999999999999999\r\n", ProtocolError::BulkLen),
        (b"*1\r\n+", ProtocolError::NotBulk(b'+')),
        (b"*1\r\n$-1\r\n", ProtocolError::BulkLen),
        (
            format!("*1\r\n${}\r\n", BULK_MAX + 1).leak().as_bytes(),
            ProtocolError::BulkLen,
        ),
        (b"*1\r\n$999999999999\r\n", ProtocolError::BulkLen),
        (b"*1\r\n$1\r\nabc", ProtocolError::LineEnd),
        (&long_line, ProtocolError::LineTooLong),
    ];
    for (bytes, error) in cases {
        assert_eq!(parse(bytes, &mut Args::new()), Err(error));
    }
    // Arguments that are allowed each, and too much together.
    let max = 3 * LARGE_MIN;
    let mut partial = Partial::begin(&[b"MSET"], 3, max);
    let large = format!("${LARGE_MIN}\r\n");
    assert_eq!(partial.take(large.as_bytes()), Ok((large.len(), Some(1))));
    assert!(partial.take(&[b'x'; LARGE_MIN]).is_ok());
    assert_eq!(partial.take(b"\r\n"), Ok((2, Some(6))));
    assert_eq!(partial.take(b"$1\r\nx\r\n"), Ok((7, Some(6))));
    let promised = format!("${}\r\n", 2 * LARGE_MIN);
    assert_eq!(
        partial.take(promised.as_bytes()),
        Err(ProtocolError::CommandTooLong)
    );
    assert!(partial.held() < max);
}

/// Nothing is kept for what was only promised.
#[test]
fn a_length_alone_takes_no_memory() {
    let promised = format!("*{ARGUMENTS_MAX}\r\n${BULK_MAX}\r\n");
    let mut args = Args::new();
    let begun = parse(promised.as_bytes(), &mut args);
    let Ok(Request::Begun { len, missing }) = begun else {
        panic!("{begun:?}");
    };
    let mut partial = Partial::begin(&args, missing, COMMAND_MAX);
    assert_eq!(partial.take(&promised.as_bytes()[len..]), Ok((12, Some(1))));
    assert!(partial.held() <= 12, "{}", partial.held());
}

#[test]
fn patterns_are_those_of_redis() {
    for (pattern, text, matches) in [
        ("", "", true),
        ("", "a", false),
        ("*", "", true),
        ("a*c", "abbc", true),
        ("a*c", "abb", false),
        ("?", "", false),
        ("h[ae]llo", "hello", true),
        ("h[^e]llo", "hello", false),
        ("h[^e]llo", "hallo", true),
        ("[c-a]", "b", true),
        ("[\\]]", "]", true),
        ("[a", "a", true),
        ("[", "[", false),
        ("\\*", "*", true),
        ("\\*", "a", false),
        ("a\\", "a\\", true),
    ] {
        let found = glob::matches(pattern.as_bytes(), text.as_bytes());
        assert_eq!(found, matches, "{pattern:?} {text:?}");
    }
    // Each star tried against each place would not end.
    let pattern = [&b"a*".repeat(500)[..], b"b"].concat();
    assert!(!glob::matches(&pattern, &[b'a'; 5_000]));
}

/// The beginning of a command is parsed again when more of it has come; not with every byte.
#[test]
fn a_command_of_many_arguments_is_not_parsed_again_and_again() {
    let command = encode(&vec!["key"; 100_000]);
    let (mut len, mut parses) = (1, 0);
    let (len, missing) = loop {
        parses += 1;
        assert!(parses < 100, "parsed again at byte {len}");
        match parse(&command[..len], &mut Args::new()) {
            Ok(Request::Incomplete { need }) => len = need.max(len + 1),
            Ok(Request::Begun { len, missing }) => break (len, missing),
            other => panic!("{other:?}"),
        }
    };
    assert!(len < 2 * IN_PLACE_MAX, "large from byte {len} on");
    let mut partial = Partial::begin(&[], missing, COMMAND_MAX);
    let taken = partial.take(&command[len..]);
    assert_eq!(taken, Ok((command.len() - len, None)));
}

fn server() -> Example {
    Example::start("redis_server", &["--pollers", "2"])
}

impl Talker<TcpStream> {
    /// One command by hand, one line of reply.
    fn expect_reply(&mut self, command: &str, reply: &str) {
        self.say_bytes(format!("{command}\r\n").as_bytes());
        self.expect_bytes(format!("{reply}\r\n").as_bytes());
    }

    fn expect_bytes(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        self.stream.read_exact(&mut read).expect("a reply");
        let (read, bytes) = (
            String::from_utf8_lossy(&read),
            String::from_utf8_lossy(bytes),
        );
        assert_eq!(read, bytes);
    }
}

#[test]
fn the_whole_dialogue() {
    let server = server();
    let mut client = server.connect();
    for (command, reply) in [
        ("PING", "+PONG"),
        ("ping hello", "$5\r\nhello"),
        (
            "ECHO 'it''s'",
            "-ERR Protocol error: unbalanced quotes in request",
        ),
    ] {
        client.expect_reply(command, reply);
    }
    client.expect_end();
    let mut client = server.connect();
    for (command, reply) in [
        ("ECHO \"it's\\x20\\n\"", "$6\r\nit's \n"),
        ("GET none", "$-1"),
        ("SET k v", "+OK"),
        ("get k", "$1\r\nv"),
        ("SET k w NX", "$-1"),
        ("SET k w XX", "+OK"),
        ("SET k x GET KEEPTTL", "$1\r\nw"),
        ("SET k y NX XX", "-ERR syntax error"),
        ("SET k", "-ERR wrong number of arguments for 'set' command"),
        ("INCR k", "-ERR value is not an integer or out of range"),
        ("INCR n", ":1"),
        ("INCRBY n 9223372036854775806", ":9223372036854775807"),
        ("INCR n", "-ERR increment or decrement would overflow"),
        (
            "DECRBY n -9223372036854775808",
            "-ERR decrement would overflow",
        ),
        ("DECR n", ":9223372036854775806"),
        ("MSET a 1 b 2 a 3", "+OK"),
        (
            "MSET a 1 b",
            "-ERR wrong number of arguments for 'mset' command",
        ),
        ("MGET a none b", "*3\r\n$1\r\n3\r\n$-1\r\n$1\r\n2"),
        ("EXISTS a a none", ":2"),
        ("DBSIZE", ":4"),
        ("DEL a a none", ":1"),
        ("DBSIZE", ":3"),
        ("FLUSHDB", "+OK"),
        ("DBSIZE", ":0"),
        ("SELECT 0", "+OK"),
        ("SELECT 16", "-ERR DB index is out of range"),
        ("HELLO 4", "-NOPROTO unsupported protocol version"),
        (
            "CONFIG GET save appendonly",
            "*4\r\n$10\r\nappendonly\r\n$2\r\nno\r\n$4\r\nsave\r\n$0\r\n",
        ),
        (
            "CONFIG NO a b",
            "-ERR unknown subcommand 'NO'. Try CONFIG HELP.",
        ),
        ("COMMAND DOCS none", "*0"),
        ("CLIENT SETNAME me", "+OK"),
        (
            "FOO 1 2",
            "-ERR unknown command 'FOO', with args beginning with: '1' '2' ",
        ),
        ("QUIT", "+OK"),
    ] {
        client.expect_reply(command, reply);
    }
    client.expect_end();
    let mut client = server.connect();
    client.say_bytes(b"*1\r\n$999999999999\r\n");
    client.expect("-ERR Protocol error: invalid bulk length\r");
    client.expect_end();
}

#[test]
fn pipelined_commands_are_answered_in_order_however_they_are_cut() {
    let server = server();
    let mut client = server.connect();
    let (mut commands, mut replies) = (Vec::new(), Vec::new());
    for number in 1..=300 {
        commands.extend(encode(&["INCR", "counter"]));
        replies.extend(format!(":{number}\r\n").as_bytes());
        commands.extend(encode(&["ECHO", &"x".repeat(number)]));
        replies.extend(format!("${number}\r\n{}\r\n", "x".repeat(number)).as_bytes());
    }
    for part in commands.chunks(37) {
        client.say_bytes(part);
    }
    client.expect_bytes(&replies);
}

#[test]
fn large_values_asked_for_at_once_wait_for_their_reader() {
    let server = server();
    let mut client = server.connect();
    const LEN: usize = 8 << 20;
    let value = vec![b'v'; LEN];
    client.say_bytes(&encode(&[&b"SET"[..], b"large", &value]));
    client.expect("+OK\r");
    // 1.5 GiB of replies where 1 GiB may wait: asked for before any of them is read.
    client.say_bytes(&encode(&["GET", "large"]).repeat(192));
    let reply = [format!("${LEN}\r\n").as_bytes(), &value, b"\r\n"].concat();
    let mut read = vec![0; reply.len()];
    for _ in 0..192 {
        client.stream.read_exact(&mut read).expect("a reply");
        assert!(read == reply, "the value is another");
    }
    client.expect_reply("PING", "+PONG");
}

#[test]
fn commands_over_several_keys_are_seen_whole_or_not_at_all() {
    const ROUNDS: usize = 2_000;
    let server = server();
    let keys: Vec<String> = (0..16).map(|number| format!("key{number}")).collect();
    let mut reader = server.connect();
    thread::scope(|scope| {
        for value in ["ones", "twos"] {
            let (mut writer, keys) = (server.connect(), &keys);
            scope.spawn(move || {
                let pairs: Vec<&str> = keys.iter().flat_map(|key| [key.as_str(), value]).collect();
                let command = encode(&[&["MSET"], &pairs[..]].concat());
                for _ in 0..ROUNDS {
                    writer.say_bytes(&command);
                    writer.expect("+OK\r");
                }
            });
        }
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let command = encode(&[&["MGET"], &names[..]].concat());
        for _ in 0..ROUNDS {
            reader.say_bytes(&command);
            reader.expect("*16\r");
            let first = reader.line();
            if first == "$-1\r" {
                for _ in 1..16 {
                    reader.expect("$-1\r");
                }
                continue;
            }
            let value = reader.line();
            for _ in 1..16 {
                reader.expect("$4\r");
                reader.expect(&*value);
            }
        }
    });
}

#[test]
fn counts_of_many_connections_add_up() {
    let server = server();
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = server.connect();
            scope.spawn(move || {
                client.say_bytes(&encode(&["INCR", "shared"]).repeat(1_000));
                for _ in 0..1_000 {
                    assert!(client.line().starts_with(':'));
                }
            });
        }
    });
    server.connect().expect_reply("GET shared", "$4\r\n4000");
}

/// What redis-server 7.0.15 answered, recorded by `.ci/redis.py --record`: commands and answers by
/// turns.
const ANSWERS: &str = include_str!("redis_answers.txt");

#[test]
fn answers_are_those_of_redis() {
    let server = server();
    let mut control = server.connect();
    let lines: Vec<&str> = ANSWERS.lines().collect();
    for [asked, answered] in lines.as_chunks::<2>().0 {
        // Of the one before nothing is left.
        control.wait_for("INFO clients", "connected_clients:1\r");
        let (protocol, commands) = asked.split_once(' ').expect("a protocol and commands");
        let mut client = server.connect();
        if protocol == "RESP3" {
            client.say_bytes(b"HELLO 3\r\nPING begin\r\n");
            while client.line() != "begin\r" {}
        }
        let commands = commands.replace('|', "\r\n");
        client.say_bytes(format!("FLUSHALL\r\n{commands}\r\nQUIT\r\n").as_bytes());
        let mut answer = Vec::new();
        client.stream.read_to_end(&mut answer).expect("an end");
        assert_eq!(answer.escape_ascii().to_string(), *answered, "{asked}");
    }
}

impl Talker<TcpStream> {
    /// Sends a command until a line of its reply, a bulk string, is this one.
    fn wait_for(&mut self, command: &str, wanted: &str) {
        let start = std::time::Instant::now();
        loop {
            self.say_bytes(format!("{command}\r\nECHO end\r\n").as_bytes());
            let lines = self.lines_until("end\r");
            if lines.iter().any(|line| line == wanted) {
                return;
            }
            assert!(
                start.elapsed() < process::DEADLINE,
                "{wanted:?} is not in {lines:?}"
            );
        }
    }
}

#[test]
fn keys_end_whether_anybody_asks_for_them_or_not() {
    let server = server();
    let mut client = server.connect();
    for number in 0..1_000 {
        client.say_bytes(format!("SET k{number} v PX 1\r\n").as_bytes());
        client.expect("+OK\r");
    }
    client.expect_reply("SET stays v EX 1000", "+OK");
    client.wait_for("GET k7", "$-1\r");
    client.wait_for("DBSIZE", ":1\r");
    client.wait_for("INFO stats", "expired_keys:1000\r");
    client.wait_for("INFO keyspace", "db0:keys=1,expires=1,avg_ttl=0\r");
}

#[test]
fn a_walk_shows_each_key_once_that_is_there_all_the_while() {
    let server = server();
    let mut client = server.connect();
    let mut other = server.connect();
    for number in 0..2_000 {
        client.expect_reply(&format!("SET stays:{number} v"), "+OK");
        client.expect_reply(&format!("SET goes:{number} v"), "+OK");
    }
    let (mut cursor, mut seen, mut calls) = ("0".to_owned(), Vec::new(), 0);
    loop {
        // The tables grow and shrink meanwhile.
        for number in 0..20 {
            other.expect_reply(&format!("SET new:{}:{number} v", calls), "+OK");
        }
        other.say_bytes(format!("DEL goes:{calls}\r\n").as_bytes());
        other.line();
        client.say_bytes(format!("SCAN {cursor} COUNT 25 MATCH stays:*\r\n").as_bytes());
        client.expect("*2\r");
        client.line();
        cursor = client.line().trim_end().to_owned();
        let len: usize = client.line()[1..].trim_end().parse().expect("a length");
        for _ in 0..len {
            client.line();
            seen.push(client.line());
        }
        calls += 1;
        if cursor == "0" {
            break;
        }
    }
    assert!(calls > 4_000 / 25, "{calls} calls");
    assert_eq!(seen.len(), 2_000);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 2_000);
}

#[test]
fn a_large_value_is_kept_once_however_many_wait_for_it() {
    const LEN: usize = 64 << 20;
    let server = server();
    let mut client = server.connect();
    client.expect_reply("PING", "+PONG");
    let before = server.resident();
    client.say_bytes(&encode(&[&b"SET"[..], b"large", &vec![b'v'; LEN]]));
    client.expect("+OK\r");
    let stored = server.resident() - before;
    assert!(stored < LEN + LEN / 4, "{stored} bytes for {LEN}");
    // Each asks for all of it and reads its length only.
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let mut reader = server.connect();
            reader.say_bytes(&encode(&["GET", "large"]));
            reader.expect(format!("${LEN}\r"));
            reader
        })
        .collect();
    let waiting = server.resident() - before;
    assert!(waiting < 2 * LEN, "{waiting} bytes for {LEN}");
    drop(readers);
    client.expect_reply("DEL large", ":1");
}

#[test]
fn lengths_that_are_only_promised_take_no_memory() {
    let server = server();
    let mut client = server.connect();
    client.expect_reply("PING", "+PONG");
    let before = server.resident();
    let promised = format!("*{ARGUMENTS_MAX}\r\n$3\r\nSET\r\n${BULK_MAX}\r\nx");
    let many: Vec<_> = (0..100)
        .map(|_| {
            let mut client = server.connect();
            client.expect_reply("PING", "+PONG");
            client.say_bytes(promised.as_bytes());
            client
        })
        .collect();
    client.wait_for("INFO clients", "connected_clients:101\r");
    let taken = server.resident().saturating_sub(before);
    assert!(taken < 16 << 20, "{taken} bytes");
    drop(many);
}

/// Were all that is there copied each time, this would take hours.
#[test]
fn a_value_grows_bit_by_bit() {
    let server = server();
    let mut client = server.connect();
    let append = encode(&["APPEND", "log", "ten bytes."]).repeat(1_000);
    for thousand in 1..=100_usize {
        client.say_bytes(&append);
        for number in 1..=1_000 {
            client.expect(format!(":{}\r", ((thousand - 1) * 1_000 + number) * 10));
        }
    }
    client.expect_reply("GETRANGE log -10 -1", "$10\r\nten bytes.");
}

#[test]
fn a_subscriber_that_does_not_read_is_dropped_and_the_others_get_all() {
    let server = server();
    let (mut lazy, mut reader) = (server.connect(), server.connect());
    for client in [&mut lazy, &mut reader] {
        client.expect_reply(
            "SUBSCRIBE news",
            "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1",
        );
    }
    let text = "x".repeat(1 << 20);
    let publish = encode(&["PUBLISH", "news", &text]);
    let message = encode(&["message", "news", &text]);
    let mut publisher = server.connect();
    let mut read = vec![0; message.len()];
    let mut reached = String::new();
    // 32 MiB may wait for it here, and some in the kernel.
    for _ in 0..200 {
        publisher.say_bytes(&publish);
        reached = publisher.line();
        reader.stream.read_exact(&mut read).expect("a message");
        assert!(read == message, "another message");
        if reached == ":1\r" {
            break;
        }
        assert_eq!(reached, ":2\r");
    }
    assert_eq!(reached, ":1\r");
    let mut rest = Vec::new();
    let end = lazy.stream.read_to_end(&mut rest);
    assert!(end.is_err() || rest.len() < 200 << 20, "it was dropped");
}

#[test]
fn who_is_killed_is_told_by_the_end() {
    let server = server();
    let (mut killer, mut victim) = (server.connect(), server.connect());
    victim.expect_reply("CLIENT SETNAME victim", "+OK");
    victim.say("CLIENT ID");
    let id = victim.line()[1..].trim_end().to_owned();
    killer.wait_for("INFO clients", "connected_clients:2\r");
    killer.expect_reply(&format!("CLIENT KILL ID {id} SKIPME yes"), ":1");
    victim.expect_end();
    killer.wait_for("INFO clients", "connected_clients:1\r");
    killer.expect_reply(&format!("CLIENT KILL ID {id}"), ":0");
    killer.say("CLIENT ID");
    let own = killer.line()[1..].trim_end().to_owned();
    killer.expect_reply(&format!("CLIENT KILL ID {own} SKIPME no"), ":1");
    killer.expect_end();
}

#[test]
fn who_speaks_resp3_is_pushed_to_between_its_replies() {
    let server = server();
    let mut client = server.connect();
    client.say("HELLO 3 SETNAME me");
    client.expect("%7\r");
    client.lines_until("*0\r");
    let subscribed = ">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1";
    client.expect_reply("SUBSCRIBE news", subscribed);
    client.expect_reply("CLIENT GETNAME", "$2\r\nme");
    server.connect().expect_reply("PUBLISH news hello", ":1");
    client.expect_bytes(b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
    client.expect_reply("GET none", "_");
    client.expect_reply("CONFIG GET save", "%1\r\n$4\r\nsave\r\n$0\r\n");
    client.expect_reply("RESET", "+RESET");
    client.expect_reply("GET none", "$-1");
}
