//! The parser of the redis example: what is complete is the same with anything behind it, what is not says so
//! however little is there, and is never said to need more than it did; and a command that is taken as it comes is the
//! one that is parsed where it lies.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the numbers in commands are not parsed here")]
#[path = "../../examples/redis_server/resp.rs"]
mod resp;

use resp::{Args, COMMAND_MAX, Partial, Request, parse, unquote};

fuzz_target!(|bytes: &[u8]| {
    let mut at = 0;
    while at < bytes.len() {
        let mut args = Args::new();
        let whole = parse(&bytes[at..], &mut args);
        let len = match &whole {
            Ok(Request::Command { len }) => {
                take_as_it_comes(&bytes[at..at + len], &args);
                *len
            }
            // Too little of it is here to have been large.
            Ok(Request::Begun { len, missing }) => {
                assert!(at + len <= bytes.len() && *missing > 0);
                let mut partial = Partial::begin(&args, *missing, COMMAND_MAX);
                let _ = partial.take(&bytes[at + len..]);
                return;
            }
            Ok(Request::Quoted { line, len }) => {
                let _ = unquote(line);
                *len
            }
            Ok(Request::Incomplete { need }) => {
                assert!(*need <= COMMAND_MAX, "{need}");
                return;
            }
            Err(_) => bytes.len() - at,
        };
        assert!(len > 0 && at + len <= bytes.len(), "{len}");
        // Each beginning of it is incomplete, and no less than it needs would do; or it is the same error.
        let mut numbers = greenroom_fuzz::Numbers::new(at as u64);
        for _ in 0..8 {
            let cut = numbers.below(len);
            if cut == 0 {
                continue;
            }
            let mut fewer = Args::new();
            match parse(&bytes[at..at + cut], &mut fewer) {
                Ok(Request::Incomplete { need }) => {
                    assert!(whole.is_err() || need <= len, "{need}")
                }
                Err(error) => assert_eq!(Err(error), whole),
                Ok(found) => panic!("{found:?} of the first {cut} bytes of {len}"),
            }
        }
        let mut alone = Args::new();
        if let Ok(found) = &whole {
            assert_eq!(parse(&bytes[at..at + len], &mut alone).as_ref(), Ok(found));
            assert_eq!(alone, args);
        }
        at += len;
    }
});

/// An array in two pieces, all its arguments being missing.
fn take_as_it_comes(command: &[u8], args: &[&[u8]]) {
    let Some(begin) = command.iter().position(|&byte| byte == b'\n') else {
        return;
    };
    if command[0] != b'*' {
        return;
    }
    let command = &command[begin + 1..];
    let cut = greenroom_fuzz::Numbers::new(command.len() as u64).below(command.len() + 1);
    let mut partial = Partial::begin(&[], args.len(), COMMAND_MAX);
    let (taken, _) = partial.take(&command[..cut]).expect("it was parsed before");
    let (rest, need) = partial
        .take(&command[taken..])
        .expect("it was parsed before");
    assert_eq!((taken + rest, need), (command.len(), None));
    assert_eq!(partial.into_args(), args);
}
