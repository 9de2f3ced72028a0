"""What .ci/autobahn needs besides the suite: its specification, a client called for each case, the verdict."""

import http.client
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import time

WANTED = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
AGENT = "greenroom"


def spec(side, url, folder):
    made = {
        "outdir": folder,
        "cases": os.environ.get("CASES", "").split() or WANTED["cases"],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    if side == "server":
        made["servers"] = [{"agent": AGENT, "url": url}]
    else:
        made["url"] = url
    print(json.dumps(made))


def port():
    """One that is free now, as the suite takes no port 0; none that the kernel gives to somebody's connect meanwhile."""
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("", random.randrange(20000, 30000)))
            except OSError:
                continue
            print(probe.getsockname()[1])
            return


def case_count(host):
    """The suite's server says how many cases there are in one frame of text, short and unmasked."""
    until = time.monotonic() + 30
    while True:
        try:
            server = socket.create_connection(host, timeout=30)
            break
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    with server, server.makefile("rb") as reader:
        server.sendall(
            b"GET /getCaseCount HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
            % (host[0].encode(), host[1])
        )
        assert reader.readline().startswith(b"HTTP/1.1 101"), "the suite's server refuses"
        http.client.parse_headers(reader)
        kind, length = reader.read(2)
        assert kind == 0x81 and length < 126, (kind, length)
        return int(reader.read(length))


def drive(url, *command):
    host, port = url.removeprefix("ws://").split(":")
    count = case_count((host, int(port)))
    for number in range(1, count + 1):
        # How the client ends is its own affair: many cases end in an error of the protocol.
        said = subprocess.run([*command, f"{url}/runCase?case={number}&agent={AGENT}"], timeout=120, capture_output=True)
        if said.returncode not in (0, 1):
            print(said.stderr.decode(errors="replace")[-2000:])
            sys.exit(f"autobahn: the client ended with {said.returncode} in case {number} of {count}")
    subprocess.run([*command, f"{url}/updateReports?agent={AGENT}"], timeout=120, check=True, capture_output=True)


def check(side, path):
    verdicts = json.loads(pathlib.Path(path).read_text())[AGENT]
    bad = []
    for case, verdict in verdicts.items():
        behavior, close = verdict["behavior"], verdict["behaviorClose"]
        allowed = {"OK", "INFORMATIONAL"} | ({"NON-STRICT"} if case in WANTED["non_strict"] else set())
        if behavior not in allowed or close not in {"OK", "INFORMATIONAL"}:
            bad.append((case, behavior, close))
    kinds = [verdict["behavior"] for verdict in verdicts.values()]
    summary = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    print(f"autobahn, {side}: {len(verdicts)} cases: {summary}")
    for case, behavior, close in sorted(bad, key=lambda found: [int(part) for part in found[0].split(".")]):
        print(f"autobahn, {side}: case {case}: {behavior}, closing {close}")
    if not os.environ.get("CASES") and len(verdicts) != WANTED["count"]:
        sys.exit(f"autobahn, {side}: {WANTED['count']} cases were to be run")
    if bad or not verdicts:
        sys.exit(1)


{"spec": spec, "port": port, "drive": drive, "check": check}[sys.argv[1]](*sys.argv[2:])
