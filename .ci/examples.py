"""Starts each example as a user would, talks to it for a second, and stops it with Ctrl-C."""

import re
import signal
import socket
import subprocess
import sys
import time

EXAMPLES = sys.argv[1]


class Example:
    def __init__(self, name, *options):
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
            assert "connections" in rest, rest
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

with Example("chat_room") as example:
    ann, from_ann = example.connect()
    ann.sendall(b"ann\n")
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

for by in ([], ["--by-listener"]):
    with Example("connection_limit", "--max", "1", *by) as example:
        first, from_first = example.connect()
        first.sendall(b"hello\n")
        assert from_first.readline()
        second, from_second = example.connect()
        refusal = from_second.read()
        assert b"1" in refusal and refusal.endswith(b"\n"), refusal
