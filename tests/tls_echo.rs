//! The echo over TLS: the program in a process of its own.

#[path = "util/process.rs"]
mod process;
#[path = "util/secured.rs"]
mod secured;
#[path = "util/temp_dir.rs"]
mod temp_dir;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use greenroom::tls::rustls::pki_types::pem::PemObject;
use greenroom::tls::rustls::pki_types::{CertificateDer, ServerName};
use greenroom::tls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};

use process::{DEADLINE, Example, Talker, program};
use secured::Ca;
use temp_dir::TempDir;

type Secured = StreamOwned<ClientConnection, TcpStream>;

/// A client that trusts these certificates; an end without `close_notify` is an error to it.
fn connect(example: &Example, roots: &str) -> Talker<Secured> {
    let mut trusted = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        trusted.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect_timeout(&example.socket_addr(), DEADLINE).expect("it accepts");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    Talker {
        stream: BufReader::new(StreamOwned::new(client, stream)),
    }
}

fn speak(talker: &mut Talker<Secured>) {
    talker.say("hello");
    talker.expect("hello");
}

/// The file that the start line names.
fn file_of(example: &Example) -> PathBuf {
    let mut words = example.start_line.split(' ');
    words
        .find(|word| *word == "-CAfile")
        .expect("a file is named");
    words.next().unwrap().into()
}

#[test]
fn a_certificate_is_made_and_its_file_is_there_for_clients() {
    for signal in ["INT", "TERM"] {
        let example = Example::start("tls_echo", &["--pollers", "2"]);
        let file = file_of(&example);
        let pem = fs::read_to_string(&file).unwrap();
        assert!(pem.contains("BEGIN CERTIFICATE") && !pem.contains("KEY"));
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o022, 0, "others may not write to it");
        for _ in 0..2 {
            speak(&mut connect(&example, &pem));
        }
        let mut there = connect(&example, &pem);
        speak(&mut there);
        example.signal(signal);
        there.expect_end();
        drop(there);
        assert_eq!(example.last_line(), "stopped after 3 connections");
        assert!(!file.exists(), "its file goes with it");
    }
}

/// By the very words that it prints.
#[test]
fn the_command_that_it_prints_talks_to_it() {
    let is_there = Command::new("openssl").arg("version").output();
    if !is_there.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no openssl");
        return;
    }
    let example = Example::start("tls_echo", &[]);
    let (_, command) = example.start_line.split_once("try: ").unwrap();
    let (command, _) = command.split_once(", then").unwrap();
    let mut client = Command::new("sh")
        .args(["-c", &format!("exec {command}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "hello");
    example.signal("INT");
    assert!(client.wait().unwrap().success(), "an orderly end");
    assert_eq!(example.last_line(), "stopped after 1 connections");
}

#[test]
fn a_certificate_from_files_is_read_again_at_a_signal() {
    let (folder, ca) = (TempDir::new(), Ca::new());
    let issue = |ca: &Ca| ca.issue(&["localhost"]).write(folder.path(), "server");
    let (cert, key) = issue(&ca);
    let args = [
        "--cert",
        cert.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ];
    let example = Example::start("tls_echo", &args);
    let mut before = connect(&example, &ca.pem());
    speak(&mut before);

    // By another authority, so that who trusts that one alone sees the new one.
    let next = Ca::new();
    issue(&next);
    example.signal("HUP");
    assert_eq!(
        example.line(),
        "shows the certificate that it has read again"
    );
    let mut after = connect(&example, &next.pem());
    speak(&mut after);
    speak(&mut before);

    fs::write(&key, "no key").unwrap();
    example.signal("HUP");
    let line = example.line();
    assert!(
        line.starts_with("shows the certificate of before: tls: no private key in"),
        "{line}"
    );
    speak(&mut connect(&example, &next.pem()));
    speak(&mut before);
    example.signal("INT");
    before.expect_end();
    after.expect_end();
    drop((before, after));
    assert_eq!(example.last_line(), "stopped after 3 connections");
}

fn run(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program("tls_echo"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end before it has read all of it.
    std::thread::spawn(move || drop(stdin.write_all(&input)));
    child.wait_with_output().unwrap()
}

fn sentence(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !error.contains("Os {") && !error.contains("Custom {"),
        "{error}"
    );
    error
}

#[test]
fn it_is_its_own_client() {
    let example = Example::start("tls_echo", &[]);
    let file = file_of(&example);
    let addr = example.addr().to_owned();
    let to = ["--client", "--addr", &addr];
    let trusting = [&to[..], &["--ca", file.to_str().unwrap()]].concat();
    // More than what a socket and both sides' buffers hold, there and back.
    let input: Vec<u8> = (0..8_000_000_u32).map(|n| (n / 7) as u8).collect();
    let output = run(&trusting, &input);
    assert!(output.status.success(), "{:?}", output.stderr);
    assert!(output.stdout == input, "{} bytes came", output.stdout.len());
    // Of itself the system trusts nobody's own certificate.
    let error = sentence(&run(&to, b""));
    assert!(error.contains("certificate"), "{error}");
    // And a server that is not there is not there.
    example.signal("INT");
    example.last_line();
    let other = Ca::new().issue(&["x"]);
    let folder = TempDir::new();
    let (file, _) = other.write(folder.path(), "other");
    let gone = [&to[..], &["--ca", file.to_str().unwrap()]].concat();
    let error = sentence(&run(&gone, b""));
    assert!(error.contains("connect to"), "{error}");
}

#[test]
fn files_that_do_not_fit_are_a_clear_error() {
    let (folder, ca) = (TempDir::new(), Ca::new());
    let (cert, _) = ca.issue(&["one"]).write(folder.path(), "one");
    let (_, key) = ca.issue(&["two"]).write(folder.path(), "two");
    let of = |cert: &Path, key: &Path| {
        let args = [
            "--cert",
            cert.to_str().unwrap(),
            "--key",
            key.to_str().unwrap(),
        ];
        sentence(&run(&args, b""))
    };
    assert!(of(&cert, &key).contains("does not belong to the certificate"));
    let absent = folder.join("absent.pem");
    assert!(of(&absent, &key).contains("absent.pem"));
    // One without the other is of no use.
    let alone = run(&["--cert", cert.to_str().unwrap()], b"");
    assert_eq!(alone.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&alone.stderr).contains("--key"));
}
