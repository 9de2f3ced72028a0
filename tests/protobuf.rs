//! The example `protobuf`: what it derives is what its .proto says, and it talks to this test and to
//! Python's protobuf.

#[path = "../examples/protobuf/messages.rs"]
#[allow(unreachable_pub, dead_code)]
mod messages;
#[path = "util/process.rs"]
mod process;
#[path = "util/temp_dir.rs"]
mod temp_dir;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use messages::*;
use process::{DEADLINE, Example};
use prost::Message;
use temp_dir::TempDir;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/protobuf")
}

// ---- what is derived is what the file says ------------------------------------------------------

/// What prost's own generator makes of the file.
fn generated() -> String {
    let files = protox::compile(["telemetry.proto"], [folder()]).expect("it is a .proto");
    let requests = files.file.into_iter().map(|file| {
        let module = prost_build::Module::from_protobuf_package_name(file.package());
        (module, file)
    });
    let modules = prost_build::Config::new().generate(requests.collect());
    modules.expect("it compiles").into_values().collect()
}

/// The items of a source, without comments, spaces, imports and what is left out by hand.
fn items(source: &str) -> Vec<String> {
    let lines = source
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//") && !line.starts_with("use "));
    let text: String = lines.flat_map(str::split_whitespace).collect();
    let text = [
        ("::prost::alloc::string::String", "String"),
        ("::core::option::Option", "Option"),
        ("::prost::", ""),
        (",}", "}"),
        (",)", ")"),
    ]
    .iter()
    .fold(text, |text, (from, to)| text.replace(from, to));
    let items = text.split("#[derive(").skip(1);
    let items = items.map(|item| {
        // The names of an enum's values as texts, which this example has no use for.
        let item = item.split("implReason{").next().unwrap_or(item);
        item.to_owned()
    });
    items.collect()
}

#[test]
fn what_is_derived_is_what_the_proto_file_says() {
    let derived = fs::read_to_string(folder().join("messages.rs")).unwrap();
    let (generated, derived) = (items(&generated()), items(&derived));
    assert_eq!(generated.len(), 9);
    assert_eq!(derived, generated);
}

// ---- what it says -------------------------------------------------------------------------------

fn connect(example: &Example) -> TcpStream {
    let client = TcpStream::connect(example.socket_addr()).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.set_nodelay(true).unwrap();
    client
}

fn request(id: u64, kind: request::Kind) -> Vec<u8> {
    let kind = Some(kind);
    Request { id, kind }.encode_length_delimited_to_vec()
}

fn reading(sensor: &str, value: f64) -> request::Kind {
    let sensor = sensor.into();
    request::Kind::Reading(Reading { sensor, value })
}

fn query(sensor: &str) -> request::Kind {
    let sensor = sensor.into();
    request::Kind::Query(Query { sensor })
}

/// An answer to `id`. Those here are shorter than 128 bytes.
#[track_caller]
fn answer(client: &mut TcpStream, id: u64) -> response::Kind {
    let mut len = [0];
    client.read_exact(&mut len).unwrap();
    assert!(len[0] < 128);
    let mut bytes = vec![0; len[0].into()];
    client.read_exact(&mut bytes).unwrap();
    let response = Response::decode(&bytes[..]).unwrap();
    assert_eq!(response.id, id);
    response.kind.unwrap()
}

#[track_caller]
fn refusal(client: &mut TcpStream, id: u64) -> Reason {
    match answer(client, id) {
        response::Kind::Refusal(refusal) => refusal.reason(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn requests_are_answered_in_order_however_they_are_cut() {
    let example = Example::start("protobuf", &["--pollers", "1"]);
    let mut client = connect(&example);
    // A name that makes the length take two bytes.
    let name = "x".repeat(1000);
    let all = [
        request(1, reading(&name, 1.0)),
        request(2, reading(&name, 5.0)),
        request(3, reading("other", 9.0)),
        request(4, query(&name)),
        request(5, query("nobody")),
        Request { id: 6, kind: None }.encode_length_delimited_to_vec(),
    ]
    .concat();
    for pieces in [all.len(), 1] {
        let mut client = connect(&example);
        for piece in all.chunks(pieces) {
            client.write_all(piece).unwrap();
        }
        assert_eq!(answer(&mut client, 1), response::Kind::Taken(1));
        assert_eq!(answer(&mut client, 2), response::Kind::Taken(2));
        assert_eq!(answer(&mut client, 3), response::Kind::Taken(1));
        let summary = Summary {
            count: 2,
            least: 1.0,
            mean: 3.0,
            most: 5.0,
        };
        assert_eq!(answer(&mut client, 4), response::Kind::Summary(summary));
        assert_eq!(refusal(&mut client, 5), Reason::UnknownSensor);
        assert_eq!(refusal(&mut client, 6), Reason::UnknownRequest);
    }
    // What others report is theirs.
    client.write_all(&request(1, query("other"))).unwrap();
    assert_eq!(refusal(&mut client, 1), Reason::UnknownSensor);
}

#[test]
fn it_says_what_to_do_next_and_how_many_there_were() {
    for signal in ["INT", "TERM"] {
        let example = Example::start("protobuf", &["--pollers", "2"]);
        let next = format!("--example protobuf -- --client --addr {}", example.addr());
        assert!(example.start_line.contains(&next), "{}", example.start_line);
        let mut client = connect(&example);
        client
            .write_all(&request(1, reading("kitchen", 21.5)))
            .unwrap();
        assert_eq!(answer(&mut client, 1), response::Kind::Taken(1));
        example.signal(signal);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        assert_eq!(example.last_line(), "stopped after 1 connections");
    }
}

#[test]
fn no_more_sensors_than_may_be() {
    let example = Example::start("protobuf", &["--pollers", "1"]);
    let mut client = connect(&example);
    let mut all = Vec::new();
    for id in 0..1025 {
        all.extend(request(id, reading(&id.to_string(), 1.0)));
    }
    all.extend(request(1025, reading("7", 1.0)));
    client.write_all(&all).unwrap();
    for id in 0..1024 {
        assert_eq!(answer(&mut client, id), response::Kind::Taken(1));
    }
    assert_eq!(refusal(&mut client, 1024), Reason::TooManySensors);
    assert_eq!(answer(&mut client, 1025), response::Kind::Taken(2));
}

#[test]
fn what_is_no_message_ends_its_connection_and_no_other() {
    let example = Example::start("protobuf", &["--pollers", "1"]);
    let mut other = connect(&example);
    for bad in [
        &b"\x03\xff\xff\xff"[..],
        // One byte longer than any may be, and a length that never ends.
        b"\x81\x80\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut client = connect(&example);
        client.write_all(bad).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    other.write_all(&request(1, reading("x", 1.0))).unwrap();
    assert_eq!(answer(&mut other, 1), response::Kind::Taken(1));
}

#[test]
fn its_client_mode_talks_to_it() {
    let example = Example::start("protobuf", &["--pollers", "1"]);
    let typed =
        "report kitchen 21.5\nreport kitchen 22.5\nquery kitchen\nquery attic\nwhat\nreport x y\n";
    assert_eq!(
        example.client(typed),
        [
            "taken: the first reading",
            "taken: 2 readings",
            "2 readings from 21.5 to 22.5, 22 on average",
            "refused: UnknownSensor: nothing was reported of it",
            "say: report SENSOR VALUE, or query SENSOR",
            "the value is no number",
        ]
    );
}

/// Google's own library: it makes its messages of the compiled file, and delimits them itself.
const PYTHON: &str = r#"
import socket, sys
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.decoder import _DecodeVarint32
from google.protobuf.internal.encoder import _VarintBytes

files = descriptor_pb2.FileDescriptorSet.FromString(open(sys.argv[1], "rb").read())
pool = descriptor_pool.DescriptorPool()
for file in files.file:
    pool.Add(file)
message = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName("telemetry." + name))
Request, Response = message("Request"), message("Response")

requests = [Request(id=n) for n in range(1, 5)]
for request, value in zip(requests, (-1.5, 4.5)):
    request.reading.sensor = "wetterfrosch \u00fc" * 20
    request.reading.value = value
requests[2].query.sensor = requests[0].reading.sensor
requests[3].query.sensor = "x"
data = b"".join(_VarintBytes(r.ByteSize()) + r.SerializeToString() for r in requests)

host, port = sys.argv[2].rsplit(":", 1)
with socket.create_connection((host, int(port)), timeout=60) as peer:
    peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)
    got = b"".join(iter(lambda: peer.recv(65536), b""))
at = 0
while at < len(got):
    size, at = _DecodeVarint32(got, at)
    response = Response.FromString(got[at:at + size])
    at += size
    kind = response.WhichOneof("kind")
    value = getattr(response, kind)
    if kind == "summary":
        value = (value.count, value.least, value.mean, value.most)
    elif kind == "refusal":
        value = (value.reason, value.text)
    print(response.id, kind, value)
"#;

#[test]
fn pythons_protobuf_talks_to_it() {
    let mut import = Command::new("python3");
    let import = import.args(["-c", "import google.protobuf"]);
    let is_there = import.stderr(Stdio::null()).status();
    if !is_there.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no protobuf for python3 (pip install protobuf)");
        return;
    }
    let files = protox::compile(["telemetry.proto"], [folder()]).unwrap();
    let dir = TempDir::new();
    let file = dir.join("telemetry.desc");
    fs::write(&file, files.encode_to_vec()).unwrap();
    let example = Example::start("protobuf", &["--pollers", "1"]);
    let output = Command::new("python3")
        .args(["-c", PYTHON])
        .arg(&file)
        .arg(example.addr())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "1 taken 1",
            "2 taken 2",
            "3 summary (2, -1.5, 1.5, 4.5)",
            "4 refusal (2, 'nothing was reported of it')",
        ]
    );
}
