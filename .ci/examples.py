"""Starts each example as a user would, talks to it for a second, and stops it with Ctrl-C."""

import re
import signal
import socket
import subprocess
import sys
import time

EXAMPLES = sys.argv[1]


class Example:
    def __init__(self, name, *options, ends_with="connections"):
        self.ends_with = ends_with
        command = [f"{EXAMPLES}/{name}", "--addr", "127.0.0.1:0", "--pollers", "2", *options]
        self.name = name
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.line = self.process.stdout.readline()
        self.port = int(re.search(r"listening on 127\.0\.0\.1:(\d+)", self.line).group(1))

    def connect(self):
        client = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        return client, client.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGINT)
        try:
            rest, _ = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if kind is None:
            assert self.process.returncode == 0, f"{self.name} ended with {self.process.returncode}"
            assert self.ends_with in rest, rest
            print(f"{self.name}: {self.line.strip()}; {rest.strip()}")


def read_until(reader, text):
    for line in reader:
        if text in line:
            return line
    raise AssertionError(f"the server closed before saying {text!r}")


with Example("echo") as example:
    until = time.monotonic() + 1
    client, reader = example.connect()
    while time.monotonic() < until:
        client.sendall(b"hello\n")
        assert reader.readline() == b"hello\n"

# Any number of lines a second: by default a client is dropped that says as many as are said here.
with Example("chat_room", "--http", "127.0.0.1:0", "--rate", "0") as example:
    ann, from_ann = example.connect()
    ann.sendall(b"ann\n/who\n")
    # She is in the room: else bob might be there first, and nobody would tell her of him.
    read_until(from_ann, b" in ")
    bob, from_bob = example.connect()
    bob.sendall(b"bob\n")
    read_until(from_ann, b"bob")
    until = time.monotonic() + 1
    said = 0
    while time.monotonic() < until:
        said += 1
        ann.sendall(b"line %d\n" % said)
        assert b"ann" in read_until(from_bob, b"line %d" % said)
    bob.sendall(b"/quit\n")
    read_until(from_ann, b"bob")

with Example("push", "--every", "100") as example:
    client, reader = example.connect()
    lines = [reader.readline() for _ in range(5)]
    numbers = [int(re.search(rb"\d+", line).group()) for line in lines]
    assert numbers == list(range(numbers[0], numbers[0] + 5)), lines

with Example("push", "--every", "0") as example:
    (ann, from_ann), (bob, from_bob) = example.connect(), example.connect()
    # A line reaches those who have been let in by then: each says one until it has had its own.
    for client, reader, line in ((ann, from_ann, b"ann\n"), (bob, from_bob, b"bob\n")):
        client.sendall(line)
        assert line in iter(reader.readline, b""), "closed without the line"
    read_until(from_ann, b"bob")
    for number in range(100):
        ann.sendall(b"line %d\n" % number)
    for reader in (from_ann, from_bob):
        assert [reader.readline() for _ in range(100)] == [b"line %d\n" % n for n in range(100)]

with Example("http_plaintext") as example:
    until = time.monotonic() + 1
    client, reader = example.connect()
    while time.monotonic() < until:
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" * 16)
        for _ in range(16):
            assert reader.readline() == b"HTTP/1.1 200 OK\r\n"
            read_until(reader, b"Content-Length: 13")
            assert reader.read(15) == b"\r\nHello, World!"

with Example("udp_echo", ends_with="datagrams") as example:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(20)
    client.connect(("127.0.0.1", example.port))
    for number in range(100):
        client.send(b"datagram %d" % number)
        assert client.recv(100) == b"datagram %d" % number

with Example("reuseport", "--balance", "round-robin") as example:
    readers = [example.connect()[1] for _ in range(2)]
    assert len({reader.readline() for reader in readers}) == 2

with Example("length_prefixed") as example:
    client, reader = example.connect()
    client.sendall(b"\0\0\0\x08\x05upperhi")
    assert reader.read(7) == b"\0\0\0\x03\0HI"

with Example("file_server", "--dir", ".") as example:
    client, reader = example.connect()
    client.sendall(b"GET /Cargo.toml HTTP/1.0\r\n\r\n")
    assert b"200 OK" in reader.readline()
    with open("Cargo.toml", "rb") as file:
        assert reader.read().endswith(file.read())

with Example("redis_server") as example:
    until = time.monotonic() + 1
    client, reader = example.connect()
    count = 0
    while time.monotonic() < until:
        client.sendall(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\nGET n\n")
        count += 1
        digits = b"%d" % count
        assert reader.read(len(digits) + 3) == b":%s\r\n" % digits
        assert reader.readline() == b"$%d\r\n" % len(digits)
        assert reader.readline() == digits + b"\r\n"

for by in ([], ["--by-listener"]):
    with Example("connection_limit", "--max", "1", *by) as example:
        first, from_first = example.connect()
        first.sendall(b"hello\n")
        assert from_first.readline()
        second, from_second = example.connect()
        refusal = from_second.read()
        assert b"1" in refusal and refusal.endswith(b"\n"), refusal
