"""The examples of protocols, spoken to by programs that others wrote. See .ci/clients."""

import http.client
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

EXAMPLES, CACHE = sys.argv[1], pathlib.Path(sys.argv[2])
HERE = pathlib.Path(__file__).parent
WITHIN = 30


class Example:
    """An example on a port of its own, ended by Ctrl-C."""

    def __init__(self, name, *options):
        self.name = name
        command = [f"{EXAMPLES}/{name}", "--addr", "127.0.0.1:0", "--pollers", "2", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.line = self.process.stdout.readline()
        self.addr, self.port = re.search(r"listening on (127\.0\.0\.1:(\d+))", self.line).groups()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGINT)
        try:
            rest, _ = self.process.communicate(timeout=WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if kind is None:
            assert self.process.returncode == 0, f"{self.name} ended with {self.process.returncode}"
            assert "connections" in rest, rest


def is_there(what, path):
    """Whether this can be had; says so where it cannot."""
    if path is not None and (os.path.exists(path) or shutil.which(path)):
        return True
    print(f"{what}: skipped, it is not there")
    return False


def run(command, **more):
    done = subprocess.run(command, capture_output=True, timeout=120, **more)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout!r}\n{done.stderr.decode()}"
    return done.stdout


def talk(command, say, until):
    """Says something to a program, and waits until it has shown the answer."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        give_up = threading.Timer(WITHIN, process.kill)
        give_up.start()
        process.stdin.write(say)
        process.stdin.flush()
        shown = b""
        while until not in shown:
            more = process.stdout.read1(65536)
            assert more, f"{command}: no {until!r} in {shown!r}"
            shown += more
        give_up.cancel()
        process.kill()


def said_to_try(line):
    """The command in an example's start line."""
    return shlex.split(re.search(r"try: (.*?)(?:, then .*)?$", line.strip()).group(1))


# ---- TLS ----------------------------------------------------------------------------------------


def tls_echo():
    with Example("tls_echo") as example:
        command = said_to_try(example.line)
        assert command[:2] == ["openssl", "s_client"], command
        certificate = command[command.index("-CAfile") + 1]
        if is_there("tls_echo with openssl", "openssl"):
            for version in [], ["-tls1_3"], ["-tls1_2"]:
                # A certificate that it cannot verify ends it.
                talk([*command, *version], b"hello\n", b"hello\n")
            print("tls_echo: openssl s_client, as the start line says, and with each version")
        if is_there("tls_echo with curl", "curl"):
            # An echo shows curl its own request, behind no status line at all.
            command = ["curl", "-sS", "--noproxy", "*", "--http0.9", "--cacert", certificate, "--max-time", "2"]
            url = f"https://localhost:{example.port}/"
            command += ["--resolve", f"localhost:{example.port}:127.0.0.1", url]
            done = subprocess.run(command, capture_output=True, timeout=WITHIN)
            # 28: the time is over, as the echo does not close.
            assert done.returncode == 28 and done.stdout.startswith(b"GET / HTTP/1.1\r\n"), done
            command = ["curl", "-sS", "--noproxy", "*", f"https://{example.addr}/"]
            done = subprocess.run(command, capture_output=True, timeout=WITHIN)
            assert done.returncode == 60, f"a certificate that nobody signed: {done}"
            print("tls_echo: curl, that trusts it and that does not")

        context = ssl.create_default_context(cafile=certificate)
        large = os.urandom(3 << 20)
        with socket.create_connection(("127.0.0.1", int(example.port)), timeout=WITHIN) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as client:
                client.sendall(b"hello")
                assert client.recv(5) == b"hello"
                client.setblocking(False)
                sent, got = 0, bytearray()
                deadline = time.monotonic() + WITHIN
                while len(got) < len(large):
                    assert time.monotonic() < deadline, f"{sent} sent, {len(got)} back"
                    try:
                        sent += client.send(large[sent : sent + 65536]) if sent < len(large) else 0
                    except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                        pass
                    try:
                        got += client.recv(1 << 20)
                    except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                        time.sleep(0.001)
                assert got == large
                client.settimeout(WITHIN)
                # An error if the server does not say that it closes.
                client.unwrap()
        print("tls_echo: Python's ssl, 3 MiB there and back, an orderly end")


# ---- WebSocket ----------------------------------------------------------------------------------

PYTHON_WEBSOCKET = """
import asyncio, sys, websockets

async def main(url):
    async with websockets.connect(url, max_size=None) as socket:
        await socket.send("hello, w\\u00f6rld")
        assert await socket.recv() == "hello, w\\u00f6rld"
        await socket.send(bytes(range(256)) * 8192)
        assert await socket.recv() == bytes(range(256)) * 8192
        await socket.send(["in ", "several ", "frames"])
        assert await socket.recv() == "in several frames"
        await (await socket.ping(b"there?"))
        for number in range(1000):
            await socket.send(str(number))
        for number in range(1000):
            assert await socket.recv() == str(number)
        await socket.close(1000, "done")
        assert socket.close_code == 1000, socket.close_code
    many = [await websockets.connect(url) for _ in range(50)]
    for socket in many:
        await socket.send("to each")
    for socket in many:
        assert await socket.recv() == "to each"
        await socket.close()

asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
"""

NODE_WEBSOCKET = """
const WebSocket = require("ws");
const assert = require("assert");
const socket = new WebSocket(process.argv[2]);
const said = ["hello", Buffer.alloc(300000, 7), "w\\u00f6rld"];
let at = 0;
setTimeout(() => { console.error("nothing for 60 s"); process.exit(1); }, 60000).unref();
socket.on("open", () => said.forEach(message => socket.send(message)));
socket.on("message", (data, isBinary) => {
  assert.strictEqual(isBinary, Buffer.isBuffer(said[at]));
  assert.deepStrictEqual(data, Buffer.from(said[at]));
  at += 1;
  if (at === said.length) socket.ping("there?");
});
socket.on("pong", data => { assert.strictEqual(String(data), "there?"); socket.close(1000, "done"); });
socket.on("close", code => { assert.strictEqual(code, 1000); assert.strictEqual(at, 3); });
"""


def websocket_echo():
    with Example("websocket_echo") as example:
        url = f"ws://{example.addr}/any/path?and=query"
        python = CACHE / "python/bin/python"
        if is_there("websocket_echo with Python's websockets", CACHE / "python/installed"):
            command = said_to_try(example.line)
            assert command[:3] == ["python3", "-m", "websockets"], command
            talk([str(python), *command[1:]], b"hello\n", b"< hello")
            run([str(python), "-c", PYTHON_WEBSOCKET, url])
            print("websocket_echo: Python's websockets, as the start line says, and by a program")
        if is_there("websocket_echo with node's ws", CACHE / "node/node_modules/ws"):
            run(["node", "-", url], input=NODE_WEBSOCKET.encode(), cwd=CACHE / "node")
            print("websocket_echo: node's ws")
        # It is a client, too.
        if is_there("websocket_echo as a client of Python's websockets", CACHE / "python/installed"):
            server = (
                "import asyncio, websockets\n"
                "async def greet(socket):\n"
                "    await socket.send('hello'); assert await socket.recv() == 'hello'; await socket.close()\n"
                "    over.set_result(None)\n"
                "async def main():\n"
                "    global over\n"
                "    over = asyncio.get_running_loop().create_future()\n"
                "    async with websockets.serve(greet, '127.0.0.1', 0) as server:\n"
                "        print(server.sockets[0].getsockname()[1], flush=True)\n"
                "        await asyncio.wait_for(over, 60)\n"
                "asyncio.run(main())\n"
            )
            with subprocess.Popen([str(python), "-c", server], stdout=subprocess.PIPE, text=True) as process:
                port = int(process.stdout.readline())
                shown = run([f"{EXAMPLES}/websocket_echo", "--connect", f"ws://127.0.0.1:{port}/"])
                assert shown == b"hello\n", shown
                assert process.wait(WITHIN) == 0
            print("websocket_echo: as a client of Python's websockets")


# ---- HTTP ---------------------------------------------------------------------------------------


def http_hello():
    with Example("http_hello") as example:
        url = f"http://{example.addr}"
        if is_there("http_hello with curl", "curl"):
            curl = ["curl", "-sS", "--noproxy", "*", "--max-time", str(WITHIN)]
            page = run([*curl, "-i", f"{url}/"])
            assert page.startswith(b"HTTP/1.1 200 OK\r\n") and b"<h1>Hello</h1>" in page, page
            assert b"\r\nDate: " in page and b"\r\nContent-Type: text/html" in page, page
            assert run([*curl, f"{url}/health"]) == b"ok\n"
            assert b"greenroom_accepted_total" in run([*curl, f"{url}/metrics"])
            head = run([*curl, "-I", f"{url}/"])
            assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"<h1>" not in head, head
            with tempfile.NamedTemporaryFile() as file:
                # More than a MiB: curl says Expect: 100-continue.
                file.write(os.urandom(3_000_000))
                file.flush()
                assert run([*curl, "-T", file.name, f"{url}/upload"]).startswith(b"3000000 bytes in ")
                chunked = [*curl, "-H", "Transfer-Encoding: chunked", "-T", file.name, f"{url}/upload"]
                assert run(chunked).startswith(b"3000000 bytes in ")
            # Several on one connection.
            shown = run([*curl, "-w", "%{num_connects} ", f"{url}/health", f"{url}/health", f"{url}/health"])
            assert shown == b"ok\n1 ok\n0 ok\n0 ", shown
            status = ["-o", "/dev/null", "-w", "%{http_code}"]
            assert run([*curl, *status, f"{url}/nowhere"]) == b"404"
            assert run([*curl, *status, "-X", "DELETE", f"{url}/"]) == b"405"
            assert run([*curl, *status, "-H", "X: " + "y" * 20000, f"{url}/"]) == b"431"
            assert run([*curl, *status, "--http1.0", f"{url}/health"]) == b"200"
            print("http_hello: curl, pages, uploads with Expect and in chunks, one connection for three, refusals")

        client = http.client.HTTPConnection("127.0.0.1", int(example.port), timeout=WITHIN)
        for number in range(100):
            client.request("GET", "/health")
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (200, b"ok\n")
        chunked = {"Transfer-Encoding": "chunked"}
        client.request("POST", "/upload", iter([b"x" * 1000] * 20), chunked, encode_chunked=True)
        answer = client.getresponse()
        assert answer.status == 200 and answer.read().startswith(b"20000 bytes in ")
        client.request("HEAD", "/")
        answer = client.getresponse()
        assert answer.status == 200 and answer.read() == b"" and int(answer.headers["Content-Length"]) > 0
        client.request("GET", "/", headers={"Connection": "close"})
        answer = client.getresponse()
        assert b"<h1>Hello</h1>" in answer.read() and answer.will_close
        client.close()
        print("http_hello: Python's http.client, a hundred requests on a connection, chunks, HEAD, close")

        with socket.create_connection(("127.0.0.1", int(example.port)), timeout=WITHIN) as raw:
            raw.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" * 3 + b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
            answers = b"".join(iter(lambda: raw.recv(65536), b""))
        assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [b"200"] * 3 + [b"400"], answers
        print("http_hello: raw bytes, three requests and a bad one in one piece: 200 three times, 400, closed")


# ---- protobuf -----------------------------------------------------------------------------------

PROTOBUF = """
import socket, sys
sys.path.insert(0, sys.argv[1])
import telemetry_pb2 as telemetry
from google.protobuf.internal.decoder import _DecodeVarint32
from google.protobuf.internal.encoder import _VarintBytes

client = socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=30)
reader = client.makefile("rb")

def say(request):
    bytes = request.SerializeToString()
    client.sendall(_VarintBytes(len(bytes)) + bytes)

def read():
    length = b""
    while not length or length[-1] & 0x80:
        length += reader.read(1)
    return telemetry.Response.FromString(reader.read(_DecodeVarint32(length, 0)[0]))

for number, value in enumerate([21.5, 22.5, 25.0]):
    say(telemetry.Request(id=number, reading=telemetry.Reading(sensor="kitchen", value=value)))
say(telemetry.Request(id=7, query=telemetry.Query(sensor="kitchen")))
say(telemetry.Request(id=8, query=telemetry.Query(sensor="x" * 300)))
say(telemetry.Request(id=9))
assert [(a.id, a.taken) for a in (read(), read(), read())] == [(0, 1), (1, 2), (2, 3)]
summary = read()
assert summary == telemetry.Response(id=7, summary=telemetry.Summary(count=3, least=21.5, mean=23.0, most=25.0)), summary
refusal = read()
assert refusal.id == 8 and refusal.refusal.reason == telemetry.REASON_UNKNOWN_SENSOR, refusal
assert read().refusal.reason == telemetry.REASON_UNKNOWN_REQUEST
client.close()
"""


def protobuf():
    if not is_there("protobuf with Python's", CACHE / "python/installed"):
        return
    python = str(CACHE / "python/bin/python")
    with tempfile.TemporaryDirectory() as folder, Example("protobuf") as example:
        source = HERE.parent / "examples/protobuf"
        run([python, "-m", "grpc_tools.protoc", f"-I{source}", f"--python_out={folder}", "telemetry.proto"])
        run([python, "-c", PROTOBUF, folder, example.port])
        print("protobuf: Python's, by what protoc makes of the .proto")


for check in tls_echo, websocket_echo, http_hello, protobuf:
    check()
