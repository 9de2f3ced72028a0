//! Addresses that nobody can listen at: each ends in an error that says what was wrong.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use greenroom::*;

mod util;

fn system() -> System {
    System::builder().pollers(1).build().unwrap()
}

/// The error of listening there, which has to name it.
#[track_caller]
fn refused(system: &System, endpoint: &str) -> std::io::Error {
    let error = system
        .listen(endpoint, |_| util::Silent)
        .expect_err("nobody can listen there");
    let named = endpoint.trim_start_matches("unix:");
    assert!(error.to_string().contains(named), "{endpoint}: {error}");
    error
}

#[test]
fn an_address_that_does_not_parse_is_refused_with_the_forms_that_do() {
    let system = system();
    let texts = [
        "",
        ":",
        "9000",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:port",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "[::1:9000",
        "::1",
        "http://127.0.0.1:9000",
        "unix:",
    ];
    for text in texts {
        let error = refused(&system, text);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}: {error}");
        assert!(error.to_string().contains("unix:/run/x.sock"), "{error}");
    }
}

#[test]
fn an_address_of_another_machine_is_refused() {
    // Of TEST-NET-1 (RFC 5737), which no machine has.
    let error = refused(&system(), "192.0.2.1:9000");
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "{error}");
}

#[test]
fn a_port_in_use_is_refused_and_the_first_listener_goes_on() {
    let system = system();
    let first = system.listen("127.0.0.1:0", |_| util::Silent).unwrap();
    let addr = first.local_addr().to_string();
    assert_eq!(refused(&system, &addr).kind(), ErrorKind::AddrInUse);
    std::net::TcpStream::connect(&*addr).expect("it still listens");
}

#[test]
fn a_path_that_is_too_long_is_refused_with_the_limit() {
    let path = format!("unix:/tmp/{}", "x".repeat(200));
    let error = refused(&system(), &path);
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("107"), "{error}");
}

#[test]
fn a_path_in_no_directory_is_refused() {
    let dir = util::TempDir::new();
    let path = format!("unix:{}/no/such.sock", dir.path().display());
    assert_eq!(refused(&system(), &path).kind(), ErrorKind::NotFound);
}

#[test]
fn a_path_where_a_server_lives_is_refused_and_that_server_goes_on() {
    let dir = util::TempDir::new();
    let path = dir.path().join("live.sock");
    let live = UnixListener::bind(&path).unwrap();
    let error = refused(&system(), &format!("unix:{}", path.display()));
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    let _client = UnixStream::connect(&path).expect("its file is still there");
    // The look whether anybody lives there may have left a connect of its own.
    live.set_nonblocking(true).unwrap();
    assert!(live.accept().is_ok());
}

#[test]
fn a_path_of_a_live_socket_of_another_type_is_refused() {
    let dir = util::TempDir::new();
    let path = dir.path().join("datagrams.sock");
    let _live = UnixDatagram::bind(&path).unwrap();
    let error = refused(&system(), &format!("unix:{}", path.display()));
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    assert!(path.exists());
}

#[test]
fn what_a_dead_server_left_is_replaced() {
    let dir = util::TempDir::new();
    let path = dir.path().join("dead.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let system = system();
    system.listen(path.as_path(), |_| util::Silent).unwrap();
    UnixStream::connect(&path).expect("somebody lives there again");
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let dir = util::TempDir::new();
    let path = dir.path().join("notes.txt");
    fs::write(&path, "mine").unwrap();
    let error = refused(&system(), &format!("unix:{}", path.display()));
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}
