"""Sends the same bytes to two servers that speak RESP, and compares what they answer, byte by byte: in RESP2 and in RESP3."""

import random
import socket
import sys
import threading

OURS, REAL = sys.argv[1:3]  # Or: --record, REAL and a file.

# Each on a connection of its own, one behind the other in one write. `PING end` tells that a connection goes on.
CASES = [
    rb'PING|ping|PING hello|PING a b|ECHO|ECHO a|ECHO a b|echo ""|QUIT',
    rb'GET|GET a b|GET none|SET|SET a|SET k v|GET k|gEt k|SET k "" |GET k|DEL k|DEL|DEL none none|GET k',
    rb'SET k v NX|SET k w NX|SET k w XX|SET none w XX|GET none|SET k x GET|SET k y NX GET|SET k z XX GET|GET k',
    rb'SET k v NX XX|SET k v foo|SET k v KEEPTTL|SET k v get keepttl|SET k v GET GET|SET n v GET NX|SET k v XX NX|SET k v KEEPTTL KEEPTTL',
    rb'SET k v EX 100|TTL k|SET k v EX 0|SET k v EX -1|SET k v EX a|SET k v EX|SET k v EX 9223372036854775807|SET k v PX 9223372036854775807',
    rb'SET k v PX 100000|TTL k|SET k w KEEPTTL|TTL k|GET k|SET k x|TTL k|SET k v EX 10 PX 10|SET k v EX 10 EX 100|TTL k|SET k v EX 1 KEEPTTL',
    rb'SET k v EXAT 33177117420|EXPIRETIME k|PEXPIRETIME k|SET k v PXAT 33177117420499|EXPIRETIME k|SET k v PXAT 33177117420500|EXPIRETIME k',
    rb'SET k v EXAT 0|SET k v PXAT -5|SET k v EXAT 9223372036854775|SET k v EXAT 9223372036854776|SET k v KEEPTTL EX 10|SET k v PERSIST|GET k',
    rb'SET k v NX EX 100|TTL k|SET k v NX EX 200|TTL k|SET k v XX EX 300 GET|TTL k|SET k v GET EX 0|GET k|SET k v ex 100 nx get',
    rb'SETEX k 100 v|TTL k|SETEX k 0 v|SETEX k -1 v|SETEX k a v|SETEX k 1|PSETEX k 100000 v|TTL k|PSETEX k 0 v|PSETEX k x v|SETEX k 9223372036854775807 v',
    rb'SETNX k v|SETNX k w|GET k|SETNX k|GETSET k x|GETSET k y|GETSET none z|GETSET|GETDEL k|GETDEL k|GETDEL|GETSET k v|EXPIRE k 100|GETSET k w|TTL k',
    rb'GETEX k|SET k v|GETEX k|TTL k|GETEX k EX 100|TTL k|GETEX k PERSIST|TTL k|GETEX k EX 0|GETEX k EX a|GETEX k EX|GETEX k foo|GETEX k NX|GETEX',
    rb'SET k v|GETEX k EX 10 PERSIST|GETEX k PERSIST EX 10|GETEX k KEEPTTL|GETEX k GET|GETEX k PXAT 33177117420000|PEXPIRETIME k|GETEX k EXAT 1|GET k|GETEX none EX a',
    rb'SET n 5|INCR n|DECR n|INCRBY n 10|DECRBY n 3|INCRBY n -20|INCR new|DECR new2|INCR|INCRBY n|INCRBY n 1 2',
    rb'SET n 9223372036854775807|INCR n|INCRBY n 1|DECR n|DECRBY n -1|DECRBY n -2|GET n',
    rb'SET n -9223372036854775808|DECR n|INCR n|DECRBY n -9223372036854775808|INCRBY n 9223372036854775808',
    rb'SET n 01|INCR n|SET n " 1"|INCR n|SET n ""|INCR n|SET n -0|INCR n|SET n +1|INCR n|SET n 0x1|INCR n|SET n 1.5|INCR n',
    rb'INCRBY n x|INCRBY n ""|INCRBY n 01|DECRBY n x|SET n 0|INCR n|SET n -1|INCR n|INCRBY n 18446744073709551616|EXPIRE n 100|INCR n|TTL n',
    rb'SET f 10.50|INCRBYFLOAT f 0.1|INCRBYFLOAT f -5|SET f 5.0e3|INCRBYFLOAT f 2.0e2|INCRBYFLOAT f|INCRBYFLOAT f x|INCRBYFLOAT f ""|INCRBYFLOAT f " 1"',
    rb'INCRBYFLOAT f 0|INCRBYFLOAT f 3|INCRBYFLOAT f -3|INCRBYFLOAT f inf|INCRBYFLOAT f -inf|INCRBYFLOAT f nan|SET f abc|INCRBYFLOAT f 1|SET f 0.1|INCRBYFLOAT f 0.2',
    rb'INCRBYFLOAT f 1e-5|INCRBYFLOAT f 1e-17|INCRBYFLOAT f 1e-19|INCRBYFLOAT f 1.|INCRBYFLOAT f .5|INCRBYFLOAT f +2|INCRBYFLOAT f 1e|INCRBYFLOAT f 1e+1|INCRBYFLOAT f -0',
    rb'APPEND k a|APPEND k b|GET k|APPEND k ""|APPEND k|STRLEN k|STRLEN none|STRLEN|STRLEN a b|APPEND k c d|EXPIRE k 100|APPEND k x|TTL k|APPEND e ""|EXISTS e',
    rb'SET k "Hello World"|GETRANGE k 0 4|GETRANGE k -5 -1|GETRANGE k 0 -1|GETRANGE k 5 3|GETRANGE k 100 200|GETRANGE k -100 2|GETRANGE k -3 -5|GETRANGE none 0 -1',
    rb'SET k abc|GETRANGE k a 1|GETRANGE k 0 b|GETRANGE k 0|SUBSTR k 0 1|GETRANGE k 0 0|GETRANGE k -1 -1|GETRANGE k 3 3|GETRANGE k -9 -8|GETRANGE k 0 9223372036854775807|SET e ""|GETRANGE e 0 -1|GETRANGE e -1 0',
    rb'SET k abc|GETRANGE k -9223372036854775808 9223372036854775807|GETRANGE k 1 -1|GETRANGE k 2 -2|GETRANGE k -2 1|GETRANGE k 0 -3|GETRANGE k 0 -4|GETRANGE k 0 -5',
    rb'SET k Hello|SETRANGE k 1 ipp|GET k|SETRANGE k 10 x|GET k|SETRANGE none 0 ""|EXISTS none|SETRANGE none 3 a|GET none|SETRANGE k -1 a|SETRANGE k a b|SETRANGE k 0 ""',
    rb'SETRANGE k 536870911 ab|SETRANGE k 536870912 a|SETRANGE k 9223372036854775807 a|SETRANGE k 1|SET k abc EX 100|SETRANGE k 0 z|TTL k|SETRANGE k 99999999999 ""',
    rb'MSET a 1 b 2|MGET a b c|MSET a 1 b|MSET a|MSET|MGET|MSET a 1 a 2|MGET a a|EXISTS a a b c|EXISTS|DBSIZE|DBSIZE x',
    rb'MSETNX a 1 b 2|MSETNX b 1 c 2|MGET a b c|MSETNX a|MSETNX a 1 b|MSETNX|TOUCH a b c|TOUCH|UNLINK a b c|UNLINK|MSETNX a 1 a 2|GET a',
    rb'SET k v|TYPE k|TYPE none|TYPE|RENAME k l|GET k|GET l|RENAME none x|RENAME l l|RENAME none none|RENAME a|RENAMENX l m|SET n v|RENAMENX m n|RENAMENX m m|RENAMENX none x|RENAMENX none none',
    rb'SET k v EX 100|RENAME k l|TTL l|SET m v|RENAME m l|TTL l|COPY l c|GET c|COPY l c|COPY l c REPLACE|COPY l l|COPY none c|COPY l c DB 1|COPY l c DB 99|COPY l c DB a|COPY l c foo|COPY l c DB|COPY l|COPY l l DB 1',
    rb'SET k v EX 100|COPY k l|TTL l|MOVE k 1|MOVE k 1|SELECT 1|GET k|TTL k|MOVE k 1|MOVE k 16|MOVE k a|MOVE k -1|MOVE none 2|MOVE k|SELECT 0|SET k w|SELECT 1|MOVE k 0',
    rb'SET a 0|SELECT 3|GET a|SET a 3|DBSIZE|SELECT 0|GET a|FLUSHDB|SELECT 3|GET a|SWAPDB 0 3|GET a|SELECT 0|GET a|SWAPDB 0 16|SWAPDB a 0|SWAPDB 0 a|SWAPDB 0|SWAPDB 1 1',
    rb'SET k v|EXPIRE k 100|TTL k|EXPIRE k 200 NX|TTL k|EXPIRE k 200 XX|TTL k|EXPIRE k 100 GT|TTL k|EXPIRE k 300 GT|TTL k|EXPIRE k 400 LT|TTL k|EXPIRE k 100 LT|TTL k',
    rb'SET k v|EXPIRE k 100 GT|EXPIRE k 100 XX|EXPIRE k 100 LT|TTL k|SET k v|EXPIRE k 100 NX|EXPIRE k 100 NX XX|EXPIRE k 100 GT LT|EXPIRE k 100 NX GT|EXPIRE k 100 foo|EXPIRE k 50 XX GT|EXPIRE k 200 XX GT|TTL k',
    rb'SET k v|EXPIRE k a|EXPIRE k 1.5|EXPIRE k|EXPIRE none 100|EXPIRE none a|EXPIRE k 9223372036854775807|EXPIRE k -9223372036854775808|PEXPIRE k 9223372036854775807|EXPIREAT k 9223372036854775|EXPIREAT k 9223372036854776',
    rb'SET k v|EXPIRE k 0|GET k|SET k v|EXPIRE k -1|EXISTS k|SET k v|EXPIREAT k 1|GET k|SET k v|PEXPIREAT k 33177117420000|PEXPIRETIME k|EXPIREAT k 33177117421|EXPIRETIME k|PERSIST k|PERSIST k|TTL k|PERSIST none|PERSIST',
    rb'TTL none|PTTL none|EXPIRETIME none|PEXPIRETIME none|SET k v|TTL k|PTTL k|EXPIRETIME k|PEXPIRETIME k|TTL|PTTL a b|EXPIRETIME|PEXPIRE k 100500|PEXPIREAT k a|EXPIREAT k',
    rb'KEYS *|SET a 1|KEYS *|KEYS b|KEYS|KEYS a b|SCAN 0|SCAN 0 COUNT 100|SCAN 0 MATCH b|SCAN 0 MATCH a COUNT 10|SCAN a|SCAN 0 COUNT 0|SCAN 0 COUNT a|SCAN 0 foo|SCAN 0 COUNT|SCAN 0 MATCH|SCAN|SCAN -a|SCAN ""',
    rb'SET a 1|SCAN 0 TYPE string|SCAN 0 TYPE list|SCAN 0 TYPE foo|SCAN 0 COUNT -1|SCAN 1x|SCAN 99999999999999999999|SCAN " 0"|RANDOMKEY|DEL a|RANDOMKEY|RANDOMKEY x|SCAN 0 COUNT 5 COUNT 6 MATCH * MATCH a',
    rb'SET k v|FLUSHDB|DBSIZE|FLUSHDB sync|FLUSHDB ASYNC|FLUSHDB foo|FLUSHALL|FLUSHDB sync x|flushall Async',
    rb'SELECT 0|SELECT x|SELECT -1|SELECT 16|SELECT 15|SELECT|SELECT ""|SELECT 99999999999|SELECT 99999999999999999999|HELLO 4|HELLO x|HELLO 2 foo|HELLO 1|HELLO 3 AUTH|HELLO 3 AUTH a b|HELLO 3 SETNAME|HELLO 3 SETNAME "a b"|HELLO 2 AUTH default',
    rb'AUTH|AUTH a|AUTH default x|AUTH other x|AUTH a b c|TIME x|RESET x|RESET|MULTI|RESET|EXEC|QUIT',
    rb'CONFIG|CONFIG GET|CONFIG GET save|CONFIG GET appendonly|CONFIG GET foo|CONFIG foo|config get save none|CONFIG GET appendonl[xy]|CONFIG SET|CONFIG SET a|CONFIG SET foo bar|CONFIG SET save|CONFIG SET save "" appendonly|CONFIG SET maxmemory 0|CONFIG SET databases 3|CONFIG RESETSTAT|CONFIG RESETSTAT x|CONFIG REWRITE',
    rb'CLIENT|CLIENT foo|CLIENT SETNAME a|CLIENT GETNAME|CLIENT SETNAME|CLIENT SETNAME "a b"|CLIENT SETNAME ""|CLIENT GETNAME|CLIENT GETNAME x|CLIENT ID x|CLIENT NO-EVICT on|CLIENT NO-EVICT x|CLIENT NO-EVICT|CLIENT REPLY x|CLIENT REPLY|CLIENT GETREDIR|CLIENT UNPAUSE',
    rb'CLIENT KILL|CLIENT KILL 1.2.3.4:5|CLIENT KILL ID 0|CLIENT KILL ID a|CLIENT KILL ID 99999999|CLIENT KILL TYPE foo|CLIENT KILL ADDR 1.2.3.4:5|CLIENT KILL foo bar|CLIENT KILL SKIPME maybe|CLIENT KILL USER nobody|CLIENT LIST TYPE foo|CLIENT LIST ID x|CLIENT LIST foo|CLIENT LIST TYPE master|CLIENT KILL TYPE replica|CLIENT LIST ID 99999999',
    rb'CLIENT REPLY SKIP|SET k v|GET k|CLIENT REPLY OFF|GET k|GET none|CLIENT REPLY SKIP|PING|CLIENT REPLY ON|GET k|CLIENT REPLY SKIP|CLIENT REPLY ON|PING end',
    rb'COMMAND foo|COMMAND COUNT x|COMMAND INFO foo|COMMAND DOCS foo|COMMAND GETKEYS GET a|COMMAND GETKEYS MSET a 1 b 2|COMMAND GETKEYS PING|COMMAND GETKEYS foo a|COMMAND GETKEYS GET|COMMAND GETKEYS|COMMAND GETKEYS RENAME a b|COMMAND LIST x',
    rb'FOO|FOO a b|foo a|GETX k|set\n|"a b" c|QUITx|QUIT a b|PING end',
    b'FOO ' + b'a' * 200 + b' b|' + b'F' * 200 + b' a|FOO ' + b'b ' * 100 + b'|FOO "a\\r\\nb" "c\\x00d"|FOO "\\xff"',
    b'FOO ' + b'a' * 126 + b' bcd|FOO ' + b'a' * 125 + b' bcd|FOO ' + b'a' * 124 + b' bcd|CONFIG ' + b'f' * 200,
    rb'''ECHO "a\x41\n\q\"b"|ECHO 'a\'b\n'|ECHO a"b c"|  PING  |	ECHO	a|ECHO ' "'|ECHO "'"|ECHO "\xZZ\x4"''',
    rb'MULTI|SET k v|GET k|INCR k|GET none|EXEC|GET k|EXEC|DISCARD|MULTI|MULTI|WATCH k|EXEC|MULTI|DISCARD|MULTI|SET|EXEC|MULTI|FOO a|GET k|EXEC|MULTI|EXEC',
    rb'MULTI|EXEC x|EXEC|MULTI|PING|DISCARD x|EXEC|WATCH|WATCH k|UNWATCH|UNWATCH x|WATCH k|SET k w|MULTI|GET k|EXEC|GET k|WATCH k l|SET l w|UNWATCH|MULTI|GET k|EXEC',
    rb'WATCH k|SET k v|MULTI|FOO|EXEC|WATCH k|DEL none|MULTI|PING|EXEC|WATCH none|DEL none|MULTI|PING|EXEC|SET k v|WATCH k|EXPIRE k 100|MULTI|PING|EXEC|WATCH k|FLUSHALL|MULTI|PING|EXEC|WATCH k|FLUSHALL|MULTI|PING|EXEC',
    rb'MULTI|SELECT 1|SET a one|SELECT 0|GET a|EXEC|SELECT 1|GET a|WATCH a|SELECT 0|SET a zero|MULTI|PING|EXEC|MULTI|SELECT 99|ECHO x|CLIENT SETNAME q|CLIENT GETNAME|FLUSHDB|DBSIZE|KEYS *|EXEC|MULTI|CONFIG foo|EXEC|MULTI|QUIT',
    rb'MULTI|HELLO 9|UNWATCH|MSET a 1 b|RENAME none x|SETEX k 0 v|EXPIRE k a|APPEND k x|STRLEN k|SETRANGE k 2 yy|GET k|GETDEL k|SCAN 0|RANDOMKEY|COPY a b|OBJECT ENCODING none|EXEC|PING end',
    rb'WATCH a|MULTI|SET a 1|EXEC|WATCH a|SWAPDB 0 1|MULTI|PING|EXEC|SWAPDB 0 1|WATCH a|RENAME a b|MULTI|PING|EXEC|WATCH b|GET b|TTL b|PERSIST b|MULTI|PING|EXEC|WATCH b|APPEND b x|MULTI|PING|EXEC|WATCH c|COPY b c|MULTI|PING|EXEC',
    rb'SUBSCRIBE a|SUBSCRIBE a b|PSUBSCRIBE p*|UNSUBSCRIBE none|UNSUBSCRIBE a|PUNSUBSCRIBE p*|UNSUBSCRIBE|UNSUBSCRIBE|PUNSUBSCRIBE|PING|UNSUBSCRIBE x y|SUBSCRIBE|PSUBSCRIBE|PUBLISH a|PUBLISH none m|PING end',
    rb'SUBSCRIBE a|PING|PING x|PING x y|QUIT',
    rb'SUBSCRIBE a|GET k|SET|FOO|CLIENT GETNAME|CLIENT foo|PUBLISH|CONFIG GET save|MULTI|UNSUBSCRIBE|GET k',
    rb'SUBSCRIBE a|RESET|GET k|PSUBSCRIBE *|RESET|PUBSUB NUMPAT|PUBSUB CHANNELS|PUBSUB|PUBSUB foo|PUBSUB NUMSUB|PUBSUB NUMSUB a b|PUBSUB CHANNELS a b|PUBSUB NUMPAT x|PUBSUB CHANNELS x*|CLIENT REPLY OFF|SUBSCRIBE a|PING|CLIENT REPLY ON',
    rb'MULTI|SUBSCRIBE a|PING|UNSUBSCRIBE a|PUBLISH none x|EXEC|GET k',
    rb'SET n 1|OBJECT ENCODING n|SET n a|OBJECT ENCODING n|SET n aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa|OBJECT ENCODING n|SET n aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa|OBJECT ENCODING n|OBJECT ENCODING none|OBJECT ENCODING|OBJECT foo|OBJECT',
]
# Bytes as they are.
RAW = [
    *(b'ECHO ' + quoted + b'\r\nPING end\r\n' for quoted in (b'"a"b', b'"', b"'", b'a"b', b'"\\', b"'\\'", b'"a"\t"b"')),
    b'\r\n\n  \r\nPING end\r\n',
    b'*0\r\n*-1\r\n*-5\r\nPING end\r\n',
    *(b'*' + bad + b'\r\nPING end\r\n' for bad in (b'a', b'', b'01', b'+1', b'1 ', b'9999999999', b'99999999999999999999', b'-')),
    *(b'*1\r\n' + bad + b'\r\nPING end\r\n' for bad in (b'+x', b'PING', b'', b'$', b'$-1', b'$01', b'$x', b'$999999999999')),
    *(b'*1\r\n$%d\r\nPING end\r\n' % bad for bad in (-1, 536870913, 2 ** 63)),
    b'*2\r\n$4\r\nECHO\r\n$5\r\na\0\r\nb\r\nPING end\r\n',
    b'*1\r\n$0\r\n\r\n*2\r\n$0\r\n\r\n$1\r\na\r\nPING end\r\n',
]


def array(*args):
    return b'*%d\r\n' % len(args) + b''.join(b'$%d\r\n%s\r\n' % (len(arg), arg) for arg in args)


# Patterns beside what they may mean, each with each.
PATTERNS = rb'* ** a* *a *a* ? ?? a?c [abc] [a-c]* [^a]* [c-a] \* \a [\]] [a [] a\\ a[b-]c h[^e]llo *b*b* [a-]'.split()
NAMES = rb'a b abc a* * ] [ - aa aab abab hello hallo a\\ \\ a-c abc]'.split()
RAW += [b''.join(array(b'SET', name, b'1') for name in names) + b''.join(array(b'KEYS', pattern) for pattern in PATTERNS)
        for names in [[name] for name in NAMES]]
# Larger than one read, larger than is parsed in place.
LARGE = random.Random(7).randbytes(300_000)
RAW += [
    array(b'SET', b'large', LARGE) + array(b'GET', b'large') + array(b'APPEND', b'large', b'x') + array(b'STRLEN', b'large'),
    array(b'SET', b'large', LARGE, b'NX', b'GET') + array(b'GETRANGE', b'large', b'1000', b'99999') + array(b'SETRANGE', b'large', b'5', LARGE),
    array(b'MSET', *(b'%d' % number for number in range(40_000))) + array(b'MGET', *(b'%d' % number for number in range(40_000))),
    array(b'MULTI') + array(b'SET', b'large', LARGE) + array(b'GET', b'large') + array(b'EXEC'),
    array(b'DEL', *[b'k' * 20] * 50_000) + array(b'EXISTS', b'a', LARGE, b'b') + array(b'ECHO', LARGE) + array(b'FOO', LARGE),
]


def send(client, bytes_sent):
    try:
        client.sendall(bytes_sent)
    except OSError:
        pass  # It closed before it had read all.


def wait_until_alone(path):
    """Of who has just closed nothing is left."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(path)
        answer = b''
        while b'connected_clients:1\r' not in answer:
            client.sendall(b'INFO clients\r\n')
            answer = client.recv(1 << 16)


def ask(path, sent, is_resp3):
    """All that comes until the server closes, by a word of ours at the end at the latest."""
    wait_until_alone(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(path)
        begin = b'HELLO 3\r\nPING begin\r\n' if is_resp3 else b''
        # By another hand: a server need not read on while its answers wait.
        threading.Thread(target=send, args=(client, begin + sent + b'QUIT\r\n'), daemon=True).start()
        received = b''
        try:
            while part := client.recv(1 << 16):
                received += part
        except TimeoutError:
            sys.exit(f'no end from {path}: {received[-300:]!r} to {sent[:1000]!r}')
        # The greeting says who it is.
        return received.partition(b'begin\r\n')[2] if is_resp3 else received


def made_up(rng):
    """A hundred commands of few keys, so that they have to do with one another."""
    key = lambda: rng.choice([b'a', b'b', b'c', b'd'])
    number = lambda: rng.choice([b'0', b'1', b'-7', b'100', b'3', b'9223372036854775807', b'-9223372036854775808', b'x', b''])
    word = lambda: rng.choice([key(), number(), b'1.5', b'-0.25', b'x' * rng.randrange(3000), rng.randbytes(5)])
    later = lambda: b'%d' % rng.randrange(20_000_000_000, 20_000_000_009)
    small = lambda: b'%d' % rng.randrange(-5, 40)
    some = lambda what, most=3: [what() for _ in range(rng.randrange(1, most + 1))]
    only = lambda: rng.choices([b'NX', b'XX', b'GT', b'LT', b'nx', b'foo'], k=rng.choice([0, 1, 1, 2]))
    ttl = lambda: rng.choice([[b'EXAT', later()], [b'PXAT', later() + b'123'], [b'KEEPTTL'], [b'EX'], [b'EXAT', b'x'], [b'PERSIST']])
    options = lambda: sum((rng.choice([[b'NX'], [b'XX'], [b'GET'], ttl(), [b'foo']]) for _ in range(rng.randrange(3))), [])
    calls = [
        lambda: [b'GET', key()], lambda: [b'SET', key(), word()], lambda: [b'SET', key(), word(), *options()], lambda: [b'DEL', *some(key)],
        lambda: [b'INCR', key()], lambda: [b'DECR', key()], lambda: [b'INCRBY', key(), number()], lambda: [b'DECRBY', key(), number()],
        lambda: [b'MGET', *some(key)], lambda: [b'MSET', *some(word, 6)], lambda: [b'MSETNX', *some(word, 4)], lambda: [b'EXISTS', *some(key)],
        lambda: [b'APPEND', key(), word()], lambda: [b'STRLEN', key()], lambda: [b'GETRANGE', key(), small(), small()],
        lambda: [b'SETRANGE', key(), small(), word()], lambda: [b'GETSET', key(), word()], lambda: [b'GETDEL', key()],
        lambda: [b'GETEX', key(), *rng.choice([[], ttl()])], lambda: [b'SETNX', key(), word()], lambda: [b'TYPE', key()],
        lambda: [b'RENAME', key(), key()], lambda: [b'RENAMENX', key(), key()], lambda: [b'COPY', key(), key(), *rng.choice([[], [b'REPLACE'], [b'DB', b'1']])],
        lambda: [b'EXPIREAT', key(), rng.choice([later(), later(), b'1', b'x']), *only()], lambda: [b'PEXPIREAT', key(), later() + b'500', *only()],
        lambda: [b'PERSIST', key()], lambda: [b'EXPIRETIME', key()], lambda: [b'PEXPIRETIME', key()], lambda: [b'DBSIZE'], lambda: [b'ECHO', word()],
        lambda: [b'SELECT', rng.choice([b'0', b'1', b'0', b'77'])], lambda: [b'MULTI'], lambda: [b'EXEC'], lambda: [b'EXEC'], lambda: [b'DISCARD'],
        lambda: [b'WATCH', *some(key)], lambda: [b'UNWATCH'], lambda: [b'NOPE', *some(word)], lambda: [b'PING'], lambda: [b'MOVE', key(), b'1'],
        lambda: [rng.choice([b'GET', b'SET', b'MGET', b'EXPIRE', b'INCRBY', b'RENAME', b'MULTI', b'EXEC', b'CLIENT', b'CONFIG']), *some(word, 4)][:rng.randrange(1, 3)],
        lambda: [b'UNLINK', key()], lambda: [b'SWAPDB', b'0', b'1'] if rng.random() < .2 else [b'TOUCH', key()], lambda: [b'FLUSHDB'] if rng.random() < .1 else [b'GET', key()],
    ]
    return b''.join(array(*rng.choice(calls)()) for _ in range(100))


def escape(bytes_given):
    """As Rust's `escape_ascii` does."""
    names = {9: r'\t', 10: r'\n', 13: r'\r', 34: r'\"', 39: r"\'", 92: r'\\'}
    return ''.join(names.get(byte) or (chr(byte) if 32 <= byte < 127 else f'\\x{byte:02x}') for byte in bytes_given)


def record(path, file):
    """What the real one answers to the cases that are plain text, for tests/redis_server.rs: commands and answer by turns."""
    with open(file, 'w', encoding='ascii') as out:
        for case in CASES:
            # Not what says who the server is.
            if b'\\' in case or b'\n' in case or not case.isascii() or b'536870911' in case:
                continue
            for is_resp3 in (False, True):
                sent = b'FLUSHALL\r\n' + b''.join(line + b'\r\n' for line in case.split(b'|'))
                print(f'RESP{2 + is_resp3} {case.decode()}\n{escape(ask(path, sent, is_resp3))}', file=out)


def beside_the_table():
    """What COMMAND INFO says of each command, but for hints and places of keys that have no number: alike to the real one's."""
    def info(path, names):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(array(b'COMMAND', b'INFO', *names) + b'QUIT\r\n')
            stream = client.makefile('rb')
            return read(stream)

    def read(stream):
        line = stream.readline().rstrip()
        match line[:1]:
            case b'*':
                return None if line == b'*-1' else [read(stream) for _ in range(int(line[1:]))]
            case b'$':
                return None if line == b'$-1' else stream.read(int(line[1:]) + 2)[:-2]
        return line

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(OURS)
        client.sendall(b'COMMAND LIST\r\n')
        names = read(client.makefile('rb'))
    for name, ours, real in zip(names, info(OURS, names), info(REAL, names)):
        later = {b'client|setinfo', b'client|no-touch'}
        known = {sub[0]: sub for sub in real[9]}
        pairs = [(ours, real)] + [(sub, known[sub[0]]) for sub in ours[9] if sub[0] not in later]
        for one, other in pairs:
            shown = [(row[0], row[1], sorted(row[2]), row[3:6], sorted(row[6])) for row in (one, other)]
            if shown[0] != shown[1]:
                sys.exit(f'COMMAND INFO\nours {shown[0]}\nreal {shown[1]}')
    print(f'redis.py: {len(names)} commands are described alike')


if __name__ == '__main__':
    if sys.argv[1] == '--record':
        record(*sys.argv[2:])
        sys.exit()
    sent = [b''.join(line + b'\r\n' for line in case.split(b'|')) for case in CASES] + RAW
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 32)
    rng = random.Random(seed)
    sent += [made_up(rng) for _ in range(200)]
    failed = 0
    for bytes_sent in sent:
        for is_resp3 in (False, True):
            ours, real = (ask(path, b'FLUSHALL\r\n' + bytes_sent, is_resp3) for path in (OURS, REAL))
            if ours != real:
                at = next((at for at, pair in enumerate(zip(ours, real)) if pair[0] != pair[1]), min(len(ours), len(real)))
                print(f'seed {seed}, RESP{2 + is_resp3}: sent {bytes_sent[:1500] if len(bytes_sent) < 100_000 else bytes_sent[:100]!r}\nfrom byte {at}\nours {ours[at:at + 200]!r}\n'
                      f'real {real[at:at + 200]!r}\nafter {real[max(0, at - 100):at]!r}\n')
                failed += 1
    if failed:
        sys.exit(f'{failed} conversations differ')
    print(f'redis.py: {len(sent)} conversations are the same with both, in RESP2 and in RESP3')
    beside_the_table()
