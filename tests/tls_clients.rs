//! TLS with programs that others wrote: `openssl`, `curl` and Python, as clients and as servers.
//! Where one is missing its tests say so and pass.

#[path = "util/secured.rs"]
mod secured;
#[path = "util/temp_dir.rs"]
mod temp_dir;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use greenroom::tls::{self, Version};
use greenroom::{Actor, Context, Input, ListenOptions, Outcome, TlsErrorKind};

use secured::{Ca, DEADLINE, Order, connect, listen, system, wait_for_failures};
use temp_dir::TempDir;

/// Whether there is such a program; says so if there is none.
fn is_there(program: &str, version: &str) -> bool {
    let found = Command::new(program)
        .arg(version)
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: there is no {program}");
    }
    found
}

macro_rules! skip_without {
    ($program:literal, $version:literal) => {
        if !is_there($program, $version) {
            return;
        }
    };
}

/// A running program that is talked to by lines. Killed when dropped.
struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

/// How a program ended.
#[derive(Debug)]
struct End {
    is_success: bool,
    code: Option<i32>,
    /// What was not taken of its output.
    stdout: String,
    stderr: String,
}

impl Program {
    fn start(command: &mut Command) -> Program {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        thread::spawn(move || {
            // Not all of it is text: `s_client` shows what it is sent.
            for line in stdout.split(b'\n').map_while(Result::ok) {
                let _ = send.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let read_all = |mut stderr: ChildStderr| {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        };
        let stderr = child.stderr.take().unwrap();
        Program {
            stdin: child.stdin.take(),
            stderr: Some(thread::spawn(move || read_all(stderr))),
            child,
            lines,
        }
    }

    fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).expect("it reads");
    }

    /// The next line of which `wanted` makes something; those before it are passed over.
    #[track_caller]
    fn find<T>(&self, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        let mut passed = String::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => match wanted(&line) {
                    Some(found) => return found,
                    None => passed += &(line + "\n"),
                },
                Err(error) => panic!("{error}, after {passed}"),
            }
        }
    }

    /// A line that ends so: `s_client` writes what it is sent in the midst of what it says itself.
    #[track_caller]
    fn expect(&self, line: &str) {
        self.find(|said| said.ends_with(line).then_some(()));
    }

    /// Ends its input, and waits until it has ended by itself.
    #[track_caller]
    fn end(mut self) -> End {
        self.stdin = None;
        let mut stdout = String::new();
        // Its output ends when it does.
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => stdout += &(line + "\n"),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(timeout) => panic!("it does not end: {timeout}, after {stdout}"),
            }
        }
        let status = self.child.wait().unwrap();
        End {
            is_success: status.success(),
            code: status.code(),
            stdout,
            stderr: self.stderr.take().unwrap().join().unwrap(),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end; it is given nothing to read.
#[track_caller]
fn run(command: &mut Command) -> End {
    Program::start(command).end()
}

#[track_caller]
fn openssl(args: &[&str]) {
    let end = run(Command::new("openssl").args(args));
    assert!(end.is_success, "{args:?}: {end:?}");
}

/// `openssl s_client`, which takes nobody whose certificate is not by `ca` and for `localhost`.
fn s_client(addr: &str, ca: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", addr, "-verify_return_error"]);
    command.args(["-verify_hostname", "localhost", "-CAfile"]);
    command.arg(ca).args(args);
    command
}

/// An authority, its file, and a server with one certificate for `localhost`.
struct Setup {
    folder: TempDir,
    ca: Ca,
    ca_file: std::path::PathBuf,
}

impl Setup {
    fn new() -> Setup {
        let folder = TempDir::new();
        let ca = Ca::new();
        let ca_file = folder.join("ca.pem");
        fs::write(&ca_file, ca.pem()).unwrap();
        Setup {
            folder,
            ca,
            ca_file,
        }
    }

    fn server(&self) -> tls::ServerBuilder {
        let issued = self.ca.issue(&["localhost", "127.0.0.1"]);
        tls::Server::builder().identity(issued.identity())
    }
}

const VERSIONS: [(&str, Version); 2] = [("-tls1_2", Version::Tls12), ("-tls1_3", Version::Tls13)];

#[test]
fn openssl_echoes_and_each_side_closes_in_order() {
    skip_without!("openssl", "version");
    let setup = Setup::new();
    let system = system();
    let server = setup.server().alpn(["chat/1"]).build().unwrap();
    let (listener, seen) = listen(&system, &server);
    let addr = listener.local_addr().to_string();
    for (flag, version) in VERSIONS {
        // Its own end is told first ...
        let names = ["-servername", "localhost", "-alpn", "h2,chat/1"];
        let mut command = s_client(&addr, &setup.ca_file, &names);
        let mut client = Program::start(command.arg(flag));
        client.say("hello\n");
        client.find(|line| line.starts_with("ALPN protocol: chat/1").then_some(()));
        client.expect("hello");
        let (_, agreed) = seen.opened();
        assert_eq!(agreed.version, Some(version));
        assert_eq!(agreed.name.as_deref(), Some("localhost"));
        assert_eq!(agreed.protocol.as_deref(), Some("chat/1"));
        seen.input(b"hello\n");
        let end = client.end();
        assert!(end.is_success, "{end:?}");
        seen.read_closed();
        let ended = seen.closed();
        assert!(ended.is_orderly, "{ended:?}");

        // ... and then ours: an end without `close_notify` it calls unexpected.
        let mut client = Program::start(s_client(&addr, &setup.ca_file, &[]).arg(flag));
        client.say("bye\n");
        client.expect("bye");
        client.expect("closed");
        let end = client.end();
        assert!(end.is_success, "{end:?}");
        assert!(!end.stderr.contains("unexpected eof"), "{end:?}");
        seen.opened();
        seen.input(b"bye\n");
        let ended = seen.closed();
        assert!(ended.is_orderly, "{ended:?}");
    }
}

#[test]
fn openssl_is_told_what_is_not_agreed_on() {
    skip_without!("openssl", "version");
    let setup = Setup::new();
    let system = system();
    let (listener, _seen) = listen(&system, &setup.server().alpn(["chat/1"]).build().unwrap());
    let addr = listener.local_addr().to_string();
    let client = s_client(&addr, &setup.ca_file, &["-alpn", "h2"]).output();
    let said = String::from_utf8_lossy(&client.unwrap().stderr).into_owned();
    assert!(said.contains("no application protocol"), "{said}");
    wait_for_failures(&system, "incompatible", 1);

    // And tells us that it does not know who signed this.
    let others = setup.folder.join("others.pem");
    fs::write(&others, Ca::new().pem()).unwrap();
    let client = run(&mut s_client(&addr, &others, &[]));
    assert!(!client.is_success);
    assert!(client.stderr.contains("verify failed"), "{client:?}");
    wait_for_failures(&system, "alert", 1);
}

#[test]
fn openssl_shows_a_certificate_that_is_asked_for() {
    skip_without!("openssl", "version");
    let setup = Setup::new();
    let clients = Ca::new();
    let issued = clients.issue(&["one"]);
    let (chain, key) = issued.write(setup.folder.path(), "one");
    let (chain, key) = (chain.to_str().unwrap(), key.to_str().unwrap());
    let others = Ca::new().issue(&["one"]);
    let (other_chain, other_key) = others.write(setup.folder.path(), "other");
    let other = [other_chain.to_str().unwrap(), other_key.to_str().unwrap()];
    let builder = setup.server().require_client_certificates(clients.roots());
    let system = system();
    let (listener, seen) = listen(&system, &builder.build().unwrap());
    let addr = listener.local_addr().to_string();
    for ((flag, _), failures) in VERSIONS.into_iter().zip([2, 4]) {
        let args = ["-cert", chain, "-key", key, flag];
        let mut client = Program::start(&mut s_client(&addr, &setup.ca_file, &args));
        client.say("hello\n");
        client.expect("hello");
        assert_eq!(seen.opened().1.peer, Some(issued.der()));
        seen.input(b"hello\n");
        assert!(client.end().is_success);
        seen.read_closed();
        seen.closed();

        // Without one, and with one that somebody else signed. It is told by an alert, which it says
        // where it reads: in TLS 1.3 it may have ended before that.
        let without = run(&mut s_client(&addr, &setup.ca_file, &[flag]));
        let args = ["-cert", other[0], "-key", other[1], flag];
        let wrong = run(&mut s_client(&addr, &setup.ca_file, &args));
        if flag == "-tls1_2" {
            assert!(!without.is_success, "{without:?}");
            assert!(!wrong.is_success, "{wrong:?}");
        }
        wait_for_failures(&system, "certificate", failures);
    }
}

#[test]
fn openssl_resumes_its_session() {
    skip_without!("openssl", "version");
    let setup = Setup::new();
    let system = system();
    let (listener, seen) = listen(&system, &setup.server().build().unwrap());
    let addr = listener.local_addr().to_string();
    for (flag, version) in VERSIONS {
        let session = setup.folder.join(flag);
        let session = session.to_str().unwrap();
        for (option, is_resumed) in [("-sess_out", false), ("-sess_in", true)] {
            let args = [flag, option, session];
            let mut client = Program::start(&mut s_client(&addr, &setup.ca_file, &args));
            let begins = if is_resumed {
                "Reused, TLS"
            } else {
                "New, TLS"
            };
            client.say("hello\n");
            client.find(|line| line.starts_with(begins).then_some(()));
            client.expect("hello");
            let (_, agreed) = seen.opened();
            assert_eq!(
                (agreed.version, agreed.is_resumed),
                (Some(version), is_resumed)
            );
            seen.input(b"hello\n");
            assert!(client.end().is_success);
            seen.read_closed();
            seen.closed();
        }
    }
}

#[test]
fn keys_of_openssl_serve_whatever_their_kind_and_format() {
    skip_without!("openssl", "version");
    let folder = TempDir::new();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let system = system();
    for (kind, options, suites) in [
        ("RSA", &["-pkeyopt", "rsa_keygen_bits:2048"][..], "RSA"),
        ("EC", &["-pkeyopt", "ec_paramgen_curve:P-256"], "ECDSA"),
        ("EC", &["-pkeyopt", "ec_paramgen_curve:P-384"], "ECDSA"),
        ("ED25519", &[], "ECDSA"),
    ] {
        let (key, cert) = (path("key.pem"), path("cert.pem"));
        openssl(&[&["genpkey", "-algorithm", kind, "-out", &key], options].concat());
        let request = [
            "req", "-x509", "-new", "-key", &key, "-out", &cert, "-days", "2",
        ];
        let names = ["-subj", "/CN=x", "-addext", "subjectAltName=DNS:localhost"];
        let not_ca = ["-addext", "basicConstraints=critical,CA:FALSE"];
        openssl(&[&request[..], &names, &not_ca].concat());
        let mut keys = vec![key.clone()];
        // The formats from before PKCS #8: PKCS #1, SEC 1 behind its parameters.
        if kind != "ED25519" {
            let old = path("old.pem");
            openssl(&["pkey", "-in", &key, "-traditional", "-out", &old]);
            keys.push(old);
        }
        for key in keys {
            let identity = tls::Identity::from_files(&cert, &key).unwrap();
            assert_eq!(identity.names().collect::<Vec<_>>(), ["localhost"]);
            let server = tls::Server::builder().identity(identity).build().unwrap();
            let (listener, seen) = listen(&system, &server);
            let addr = listener.local_addr().to_string();
            for (flag, version) in VERSIONS {
                let mut command = s_client(&addr, Path::new(&cert), &[flag]);
                let mut client = Program::start(&mut command);
                client.say("hello\n");
                client.expect("hello");
                assert_eq!(seen.opened().1.version, Some(version), "{suites}");
                seen.input(b"hello\n");
                assert!(client.end().is_success);
                seen.read_closed();
                seen.closed();
            }
        }
        let locked = path("locked.pem");
        let encrypt = [
            "pkey", "-in", &key, "-aes256", "-passout", "pass:x", "-out", &locked,
        ];
        openssl(&encrypt);
        let refused = tls::Identity::from_files(&cert, &locked);
        assert!(matches!(
            refused,
            Err(tls::ConfigError::EncryptedKey { .. })
        ));
    }
}

#[test]
fn an_rsa_certificate_stands_beside_an_ecdsa_one() {
    skip_without!("openssl", "version");
    let setup = Setup::new();
    let key = setup.folder.join("rsa.pem");
    let bits = ["-pkeyopt", "rsa_keygen_bits:2048", "-out"];
    let generate = ["genpkey", "-algorithm", "RSA"];
    openssl(&[&generate[..], &bits, &[key.to_str().unwrap()]].concat());
    let key = rcgen::KeyPair::from_pem(&fs::read_to_string(key).unwrap()).unwrap();
    let rsa = setup.ca.sign(&["localhost"], &key);
    let system = system();
    let builder = setup.server().identity(rsa.identity());
    let (listener, seen) = listen(&system, &builder.build().unwrap());
    let addr = listener.local_addr().to_string();
    for (args, kind) in [
        (&["-tls1_3"][..], "ECDSA"),
        (
            &[
                "-tls1_3",
                "-sigalgs",
                "RSA-PSS+SHA256:RSA+SHA256:ECDSA+SHA384",
            ],
            "RSA-PSS",
        ),
        (
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
            "RSA-PSS",
        ),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
            "ECDSA",
        ),
    ] {
        let named = [args, &["-servername", "localhost"]].concat();
        let mut client = Program::start(&mut s_client(&addr, &setup.ca_file, &named));
        client.say("hello\n");
        let line = format!("Peer signature type: {kind}");
        client.expect(&line);
        client.expect("hello");
        assert!(client.end().is_success);
        seen.opened();
        seen.input(b"hello\n");
        seen.read_closed();
        seen.closed();
    }
}

/// Just enough HTTP for `curl`.
struct Page;

impl Actor for Page {
    type Message = ();

    fn readable(&mut self, input: &mut Input<'_>, ctx: &mut Context<'_, Self>) -> Outcome {
        while let Some(line) = input.line(8192)? {
            if line.is_empty() || line == b"\r" {
                let name = ctx.tls().and_then(|tls| tls.server_name());
                let body = format!("for {}", name.unwrap_or("nobody"));
                let len = body.len();
                ctx.write(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{body}"
                ));
            }
        }
        Ok(())
    }
}

#[test]
fn curl_gets_a_page() {
    skip_without!("curl", "--version");
    let setup = Setup::new();
    let system = system();
    let server = setup.server().alpn(["http/1.1"]).build().unwrap();
    let options = ListenOptions::new().tls(server);
    let listener = system.listen_with("127.0.0.1:0", options, |_peer| Page);
    let listener = listener.unwrap();
    let addr = listener.local_addr().to_string();
    let addr: SocketAddr = addr.parse().unwrap();
    let to_it = format!("localhost:{}:127.0.0.1", addr.port());
    let curl = |ca: &Path, args: &[&str]| {
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "--noproxy",
            "*",
            "--max-time",
            "60",
            "--resolve",
            &to_it,
        ]);
        command.arg("--cacert").arg(ca).args(args);
        run(&mut command)
    };
    let url = format!("https://localhost:{}/", addr.port());
    for version in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
        // Twice on one connection.
        let end = curl(&setup.ca_file, &[version, &[&url, &url]].concat());
        assert!(end.is_success, "{end:?}");
        assert_eq!(end.stdout.trim_end(), "for localhostfor localhost");
    }
    let end = curl(&setup.ca_file, &[&format!("https://{addr}/")]);
    assert_eq!(end.stdout.trim_end(), "for nobody", "{end:?}");

    let others = setup.folder.join("others.pem");
    fs::write(&others, Ca::new().pem()).unwrap();
    let end = curl(&others, &[&url]);
    // CURLE_PEER_FAILED_VERIFICATION.
    assert_eq!(end.code, Some(60), "{end:?}");
    wait_for_failures(&system, "alert", 1);
}

/// Connects and does what the rest of the script says with `s`.
const PYTHON_CLIENT: &str = "
import socket, ssl, sys
ca, port, version = sys.argv[1], int(sys.argv[2]), sys.argv[3]
context = ssl.create_default_context(cafile=ca)
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
raw = socket.create_connection(('127.0.0.1', port), timeout=60)
s = context.wrap_socket(raw, server_hostname='localhost')
def read(n):
    got = b''
    while len(got) < n:
        got += s.recv(n - len(got))
    return got
s.sendall(b'hello')
assert read(5) == b'hello'
";

const PYTHON_VERSIONS: [&str; 2] = ["TLSv1_2", "TLSv1_3"];

fn python(script: &str, args: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script]).args(args);
    command
}

#[test]
fn python_ends_in_order_and_is_told_when_we_do() {
    skip_without!("python3", "--version");
    let setup = Setup::new();
    let system = system();
    let (listener, seen) = listen(&system, &setup.server().build().unwrap());
    let addr: SocketAddr = listener.local_addr().to_string().parse().unwrap();
    let port = addr.port().to_string();
    let ca = setup.ca_file.to_str().unwrap();
    // `unwrap` sends `close_notify` and waits for the other one; behind it is nothing but the end.
    let unwraps = "raw = s.unwrap()\nassert raw.recv(1) == b''\n";
    // By default an end without `close_notify` would be taken for one with it.
    let reads_end = "s.suppress_ragged_eofs = False\ns.sendall(b'bye\\n')\nassert read(4) == b'bye\\n'\nassert s.recv(1) == b''\n";
    for version in PYTHON_VERSIONS {
        let run = |rest: &str| {
            let script = PYTHON_CLIENT.to_owned() + rest;
            let end = run(&mut python(&script, &[ca, &port, version]));
            assert!(end.is_success, "{end:?}");
            seen.opened();
            seen.input(b"hello");
        };
        run(unwraps);
        seen.read_closed();
        assert!(seen.closed().is_orderly);
        run(reads_end);
        seen.input(b"bye\n");
        assert!(seen.closed().is_orderly);
    }
}

#[test]
fn an_end_that_python_does_not_announce_is_told_as_truncated() {
    skip_without!("python3", "--version");
    let setup = Setup::new();
    let system = system();
    let (listener, seen) = listen(&system, &setup.server().build().unwrap());
    let addr: SocketAddr = listener.local_addr().to_string().parse().unwrap();
    let port = addr.port().to_string();
    let ca = setup.ca_file.to_str().unwrap();
    // What it is about to be sent is read: otherwise its close would be a reset.
    let cuts = "socket.socket(fileno=s.detach()).shutdown(socket.SHUT_WR)\n";
    for version in PYTHON_VERSIONS {
        let script = PYTHON_CLIENT.to_owned() + cuts;
        let end = run(&mut python(&script, &[ca, &port, version]));
        assert!(end.is_success, "{end:?}");
        seen.opened();
        seen.input(b"hello");
        let ended = seen.closed();
        assert_eq!(ended.tls, Some(TlsErrorKind::Truncated), "{ended:?}");
    }
}

/// Serves one connection after the other: echoes five bytes, then does what the rest of the script
/// says with `s`.
const PYTHON_SERVER: &str = "
import socket, ssl, sys
chain, key = sys.argv[1:3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(chain, key)
context.set_alpn_protocols(['chat/1'])
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
raw, _ = listener.accept()
raw.settimeout(60)
s = context.wrap_socket(raw, server_side=True)
got = b''
while len(got) < 5:
    got += s.recv(5 - len(got))
s.sendall(got)
";

#[test]
fn our_client_speaks_with_a_server_in_python() {
    skip_without!("python3", "--version");
    let setup = Setup::new();
    let issued = setup.ca.issue(&["localhost", "127.0.0.1"]);
    let (chain, key) = issued.write(setup.folder.path(), "server");
    let files = [chain.to_str().unwrap(), key.to_str().unwrap()];
    let system = system();
    // It waits for our end and answers it; ends first; cuts the stream short.
    let ends_last = "assert s.recv(1) == b''\ns.unwrap()\n";
    let ends_first = "raw = s.unwrap()\n";
    let cuts = "socket.socket(fileno=s.detach()).shutdown(socket.SHUT_WR)\nprint('cut', flush=True)\nsys.stdin.read()\n";
    for version in [Version::Tls12, Version::Tls13] {
        let client = tls::Client::builder().roots(setup.ca.roots());
        let client = client.alpn(["chat/1"]).versions([version]);
        let client = client.server_name("localhost").build().unwrap();
        for (index, rest) in [ends_last, ends_first, cuts].into_iter().enumerate() {
            let script = PYTHON_SERVER.to_owned() + rest;
            let server = Program::start(&mut python(&script, &files));
            let port = server.find(|line| line.parse::<u16>().ok());
            let seen = connect(&system, SocketAddr::from(([127, 0, 0, 1], port)), &client);
            let (addr, agreed) = seen.opened();
            assert_eq!(agreed.version, Some(version));
            assert_eq!(agreed.protocol.as_deref(), Some("chat/1"));
            assert_eq!(agreed.peer, Some(issued.der()));
            addr.send(Order::Write(b"hello".to_vec())).unwrap();
            seen.input(b"hello");
            match index {
                0 => addr.send(Order::Close).unwrap(),
                1 => seen.read_closed(),
                _ => server.expect("cut"),
            }
            let ended = seen.closed();
            let expected = (index == 2).then_some(TlsErrorKind::Truncated);
            assert_eq!(ended.tls, expected, "{ended:?}");
            let end = server.end();
            assert!(end.is_success, "{end:?}");
        }
    }
}

/// `openssl s_server` on a free port, which sends each line back turned round.
fn s_server(folder: &Path, args: &[&str]) -> (Program, SocketAddr) {
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0", "-rev", "-cert"]);
    command.arg(folder.join("server.pem")).arg("-key");
    command.arg(folder.join("server.key")).args(args);
    let server = Program::start(&mut command);
    let addr = server.find(|line| line.strip_prefix("ACCEPT ")?.parse().ok());
    (server, addr)
}

#[test]
fn our_client_speaks_with_openssls_server() {
    skip_without!("openssl", "version");
    let setup = Setup::new();
    let folder = setup.folder.path();
    setup
        .ca
        .issue(&["localhost", "127.0.0.1"])
        .write(folder, "server");
    let clients = Ca::new();
    let clients_file = setup.folder.join("clients.pem");
    fs::write(&clients_file, clients.pem()).unwrap();
    let clients_file = clients_file.to_str().unwrap();
    let system = system();
    for (flag, version) in VERSIONS {
        let asks = [
            "-Verify",
            "1",
            "-verify_return_error",
            "-CAfile",
            clients_file,
            flag,
        ];
        let (_server, addr) = s_server(folder, &asks);
        let builder = || tls::Client::builder().roots(setup.ca.roots());
        let known = builder().identity(clients.issue(&["one"]).identity());
        let known = known.build().unwrap();
        // The second time by a session of the first.
        for is_resumed in [false, true] {
            let seen = connect(&system, addr, &known);
            let (to, agreed) = seen.opened();
            assert_eq!(
                (agreed.version, agreed.is_resumed),
                (Some(version), is_resumed)
            );
            to.send(Order::Write(b"hello\n".to_vec())).unwrap();
            seen.input(b"olleh\n");
            to.send(Order::Close).unwrap();
            assert!(seen.closed().is_orderly);
        }
        // Nobody, for it; and it, for somebody who trusts others.
        let seen = connect(&system, addr, &builder().build().unwrap());
        let ended = match seen.next() {
            secured::Told::Opened(..) => seen.closed(),
            secured::Told::Closed(ended) => ended,
            other => panic!("{other:?}"),
        };
        assert_eq!(ended.tls, Some(TlsErrorKind::Alert), "{ended:?}");
        let distrusts = tls::Client::builder().roots(clients.roots());
        let seen = connect(&system, addr, &distrusts.build().unwrap());
        let ended = seen.closed();
        assert_eq!(ended.tls, Some(TlsErrorKind::Certificate), "{ended:?}");
    }
}
