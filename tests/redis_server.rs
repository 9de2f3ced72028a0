//! The Redis server: its parser by properties, and the program in a process of its own, over TCP.

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
    ARGUMENTS_MAX, Args, BULK_MAX, COMMAND_MAX, INLINE_MAX, ProtocolError, Request, integer, parse,
    unquote,
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
                assert!(need > 0 && need <= COMMAND_MAX);
                break;
            }
        }
    }
    Ok((commands, at))
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
    let mut three = format!("*3\r\n${BULK_MAX}\r\n").into_bytes();
    three.resize(three.len() + BULK_MAX, b'x');
    three.extend(format!("\r\n${BULK_MAX}\r\n").as_bytes());
    assert_eq!(
        parse(&three, &mut Args::new()),
        Err(ProtocolError::CommandTooLong)
    );
}

/// The beginning of a command is parsed again when more of it has come; not with every byte.
#[test]
fn a_command_of_many_arguments_is_not_parsed_again_and_again() {
    let command = encode(&vec!["key"; 100_000]);
    let (mut len, mut parses) = (1, 0);
    loop {
        parses += 1;
        assert!(parses < 100, "parsed again at byte {len}");
        match parse(&command[..len], &mut Args::new()) {
            Ok(Request::Incomplete { need }) => len = need.max(len + 1),
            other => {
                assert_eq!(other, Ok(Request::Command { len: command.len() }));
                break;
            }
        }
    }
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
        ("SET k y EX 10", "-ERR keys of this server do not expire"),
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
        ("SELECT 1", "-ERR DB index is out of range"),
        ("HELLO 3", "-NOPROTO unsupported protocol version"),
        (
            "CONFIG GET save appendonly",
            "*4\r\n$10\r\nappendonly\r\n$2\r\nno\r\n$4\r\nsave\r\n$0\r\n",
        ),
        (
            "CONFIG SET a b",
            "-ERR unknown subcommand 'SET'. Try CONFIG HELP.",
        ),
        ("COMMAND DOCS", "*0"),
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
    let value = vec![b'v'; BULK_MAX];
    client.say_bytes(&encode(&[&b"SET"[..], b"large", &value]));
    client.expect("+OK\r");
    // 256 MiB of replies where 64 MiB may wait: asked for before any of them is read.
    client.say_bytes(&encode(&["GET", "large"]).repeat(32));
    let reply = [format!("${BULK_MAX}\r\n").as_bytes(), &value, b"\r\n"].concat();
    let mut read = vec![0; reply.len()];
    for _ in 0..32 {
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
