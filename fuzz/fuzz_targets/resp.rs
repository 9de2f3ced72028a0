//! The parser of the redis example: what is complete is the same with anything behind it, what is not says so
//! however little is there, and is never said to need more than it did.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the numbers in commands are not parsed here")]
#[path = "../../examples/redis_server/resp.rs"]
mod resp;

use resp::{Args, COMMAND_MAX, Request, parse, unquote};

fuzz_target!(|bytes: &[u8]| {
    let mut at = 0;
    while at < bytes.len() {
        let mut args = Args::new();
        let whole = parse(&bytes[at..], &mut args);
        let len = match &whole {
            Ok(Request::Command { len }) => *len,
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
