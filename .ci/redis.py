"""Sends the same bytes to two servers that speak RESP2, and compares what they answer, byte by byte."""

import random
import socket
import sys

OURS, REAL = sys.argv[1:]

# Each on a connection of its own, one behind the other in one write. `PING end` tells that a connection goes on.
CASES = [
    rb'PING|ping|PING hello|PING a b|ECHO|ECHO a|ECHO a b|echo ""|QUIT',
    rb'GET|GET a b|GET none|SET|SET a|SET k v|GET k|gEt k|SET k "" |GET k|DEL k|DEL|DEL none none|GET k',
    rb'SET k v NX|SET k w NX|SET k w XX|SET none w XX|GET none|SET k x GET|SET k y NX GET|SET k z XX GET|GET k',
    rb'SET k v NX XX|SET k v foo|SET k v KEEPTTL|SET k v get keepttl|SET k v GET GET|SET n v GET NX',
    rb'SET n 5|INCR n|DECR n|INCRBY n 10|DECRBY n 3|INCRBY n -20|INCR new|DECR new2|INCR|INCRBY n|INCRBY n 1 2',
    rb'SET n 9223372036854775807|INCR n|INCRBY n 1|DECR n|DECRBY n -1|DECRBY n -2|GET n',
    rb'SET n -9223372036854775808|DECR n|INCR n|DECRBY n -9223372036854775808|INCRBY n 9223372036854775808',
    rb'SET n 01|INCR n|SET n " 1"|INCR n|SET n ""|INCR n|SET n -0|INCR n|SET n +1|INCR n|SET n 0x1|INCR n|SET n 1.5|INCR n',
    rb'INCRBY n x|INCRBY n ""|INCRBY n 01|DECRBY n x|SET n 0|INCR n|SET n -1|INCR n|INCRBY n 18446744073709551616',
    rb'MSET a 1 b 2|MGET a b c|MSET a 1 b|MSET a|MSET|MGET|MSET a 1 a 2|MGET a a|EXISTS a a b c|EXISTS|DBSIZE|DBSIZE x',
    rb'SET k v|FLUSHDB|DBSIZE|FLUSHDB sync|FLUSHDB ASYNC|FLUSHDB foo|FLUSHALL|FLUSHDB sync x|flushall Async',
    rb'SELECT 0|SELECT x|SELECT -1|SELECT 16|SELECT|SELECT ""|HELLO 4|HELLO x|HELLO 2 foo|HELLO 1',
    rb'CONFIG|CONFIG GET|CONFIG GET save|CONFIG GET appendonly|CONFIG GET foo|CONFIG foo|config get save none',
    rb'CLIENT|CLIENT foo|CLIENT SETNAME a|CLIENT SETNAME|COMMAND foo',
    rb'FOO|FOO a b|foo a|GETX k|set\n|"a b" c|QUITx|QUIT a b|PING end',
    b'FOO ' + b'a' * 200 + b' b|' + b'F' * 200 + b' a|FOO ' + b'b ' * 100 + b'|FOO "a\\r\\nb" "c\\x00d"|FOO "\\xff"',
    b'FOO ' + b'a' * 126 + b' bcd|FOO ' + b'a' * 125 + b' bcd|FOO ' + b'a' * 124 + b' bcd|CONFIG ' + b'f' * 200,
    rb'''ECHO "a\x41\n\q\"b"|ECHO 'a\'b\n'|ECHO a"b c"|  PING  |	ECHO	a|ECHO ' "'|ECHO "'"|ECHO "\xZZ\x4"''',
]
# Bytes as they are.
RAW = [
    *(b'ECHO ' + quoted + b'\r\nPING end\r\n' for quoted in (b'"a"b', b'"', b"'", b'a"b', b'"\\', b"'\\'", b'"a"\t"b"')),
    b'\r\n\n  \r\nPING end\r\n',
    b'*0\r\n*-1\r\n*-5\r\nPING end\r\n',
    *(b'*' + bad + b'\r\nPING end\r\n' for bad in (b'a', b'', b'01', b'+1', b'1 ', b'9999999999', b'99999999999999999999', b'-')),
    *(b'*1\r\n' + bad + b'\r\nPING end\r\n' for bad in (b'+x', b'PING', b'', b'$', b'$-1', b'$01', b'$x', b'$999999999999')),
    b'*2\r\n$4\r\nECHO\r\n$5\r\na\0\r\nb\r\nPING end\r\n',
    b'*1\r\n$0\r\n\r\n*2\r\n$0\r\n\r\n$1\r\na\r\nPING end\r\n',
]


def ask(path, sent):
    """All that comes until the server closes, or has answered the last `PING end`."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(path)
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        received = b''
        while part := client.recv(1 << 16):
            received += part
        return received


def array(*args):
    return b'*%d\r\n' % len(args) + b''.join(b'$%d\r\n%s\r\n' % (len(arg), arg) for arg in args)


def made_up(rng):
    """A hundred commands of few keys, so that they have to do with one another."""
    word = lambda: rng.choice([b'a', b'b', b'c', b'1', b'-7', b'', b'x' * rng.randrange(3000), rng.randbytes(5)])
    names = [b'GET', b'SET', b'DEL', b'INCR', b'DECR', b'INCRBY', b'DECRBY', b'MGET', b'MSET', b'EXISTS', b'ECHO', b'PING',
             b'DBSIZE', b'NOPE', b'FLUSHDB']
    weights = [8, 8, 2, 4, 4, 4, 4, 4, 4, 2, 2, 1, 2, 1, 0.2]
    return b''.join(array(rng.choices(names, weights)[0], *(word() for _ in range(rng.randrange(5)))) for _ in range(100))


sent = [b''.join(line + b'\r\n' for line in case.split(b'|')) for case in CASES] + RAW
seed = random.randrange(1 << 32)
rng = random.Random(seed)
sent += [made_up(rng) for _ in range(200)]
for bytes_sent in sent:
    ours, real = (ask(path, b'FLUSHALL\r\n' + bytes_sent) for path in (OURS, REAL))
    if ours != real:
        at = next((at for at, pair in enumerate(zip(ours, real)) if pair[0] != pair[1]), min(len(ours), len(real)))
        print(f'seed {seed}: sent {bytes_sent[:2000]!r}\nfrom byte {at}\nours {ours[at:at + 200]!r}\nreal {real[at:at + 200]!r}\n'
              f'after {real[max(0, at - 100):at]!r}')
        sys.exit(1)
print(f'redis.py: {len(sent)} conversations are the same with both')
