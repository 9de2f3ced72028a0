"""Python's redis with the redis_server example, as its users use it: in RESP2 and RESP3, with and without hiredis."""

import asyncio
import sys
import threading
import time

import redis
import redis.asyncio

URL = sys.argv[1]


def check(r, protocol):
    r.flushall()
    assert r.ping() and r.echo('hello') == b'hello'
    assert r.set('k', 'v') is True and r.get('k') == b'v' and r.get('none') is None
    assert r.set('k', 'w', nx=True) is None and r.set('k', 'w', xx=True, get=True) == b'v'
    assert r.set('e', 1, ex=100) and 99 <= r.ttl('e') <= 100 and r.persist('e') and r.ttl('e') == -1 and r.ttl('none') == -2
    assert r.expire('e', 50, nx=True) and not r.expire('e', 60, nx=True) and r.getex('e', persist=True) == b'1'
    assert r.incr('n') == 1 and r.incrby('n', 5) == 6 and r.decr('n', 2) == 4 and r.incrbyfloat('f', 10.5) == 10.5
    assert r.mset({'a': 1, 'b': 2}) and r.mget('a', 'b', 'none') == [b'1', b'2', None]
    assert r.append('k', 'x') == 2 and r.strlen('k') == 2 and r.getrange('k', 0, 0) == b'w' and r.setrange('k', 1, 'yz') == 3
    assert r.exists('a', 'b', 'none') == 2 and r.delete('a', 'b') == 2 and r.unlink('none') == 0 and r.type('k') == b'string'
    assert r.rename('k', 'l') and r.randomkey() in (b'l', b'e', b'n', b'f') and r.dbsize() == 4
    assert sorted(r.keys('[en]')) == [b'e', b'n'] and r.getdel('l') == b'wyz'
    large = b'\r\n\0' * 1_000_000
    assert r.set('large', large) and r.get('large') == large
    for wrong, what in [(lambda: r.incr('large'), 'not an integer'), (lambda: r.execute_command('NOPE', 1), 'unknown command'),
                        (lambda: r.execute_command('GET'), 'wrong number of arguments')]:
        try:
            wrong()
            raise AssertionError(what)
        except redis.ResponseError as error:
            assert what in str(error), error

    r.mset({f'scan:{number}': number for number in range(1000)})
    assert len(set(r.scan_iter('scan:*', count=37))) == 1000

    with r.pipeline(transaction=False) as pipe:
        for number in range(10_000):
            pipe.set(f'p{number}', number)
        assert all(pipe.execute())
    with r.pipeline() as pipe:
        pipe.incr('t').incr('t').get('t').execute_command('INCR', 'large')
        assert pipe.execute(raise_on_error=False)[:3] == [1, 2, b'2']

    # Several threads count up by WATCH and MULTI.
    def count_up():
        for _ in range(50):
            r.transaction(lambda pipe: (lambda now: (pipe.multi(), pipe.set('counter', now + 1)))(int(pipe.get('counter') or 0)), 'counter')
    threads = [threading.Thread(target=count_up) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert r.get('counter') == b'200', r.get('counter')

    # A lock is taken by SET NX PX, and given back by WATCH, as long as there are no scripts.
    lock = r.lock('lock', timeout=10)
    assert lock.acquire(blocking=False) and not r.lock('lock', timeout=10).acquire(blocking=False) and lock.owned()
    def release(pipe):
        assert pipe.get('lock') == lock.local.token
        pipe.multi()
        pipe.delete('lock')
    assert r.transaction(release, 'lock') == [1] and r.lock('lock', timeout=10).acquire(blocking=False)

    with r.pubsub() as pubsub:
        pubsub.subscribe('news', 'other')
        pubsub.psubscribe('n*')
        got = [pubsub.get_message(timeout=10) for _ in range(3)]
        assert [(m['type'], m['data']) for m in got] == [('subscribe', 1), ('subscribe', 2), ('psubscribe', 3)], got
        assert r.publish('news', 'hello') == 2 and r.pubsub_numsub('news', 'x') == [(b'news', 1), (b'x', 0)] and r.pubsub_numpat() == 1
        got = sorted((m['type'], m['data']) for m in (pubsub.get_message(timeout=10) for _ in range(2)))
        assert got == [('message', b'hello'), ('pmessage', b'hello')], got
        pubsub.ping()
        assert pubsub.get_message(timeout=10)['type'] == 'pong'
        pubsub.unsubscribe()
        pubsub.punsubscribe()
        assert [pubsub.get_message(timeout=10)['type'] for _ in range(3)] == ['unsubscribe', 'unsubscribe', 'punsubscribe']

    r.client_setname('me')
    assert r.client_getname() in ('me', b'me') and any(client['name'] == 'me' for client in r.client_list())
    assert r.client_info()['db'] in ('0', 0) and r.client_id() > 0
    info = r.info()
    assert info['redis_version'].startswith('7.') and info['db0']['keys'] == r.dbsize() and info['role'] == 'master', info
    assert r.config_get('app*') == {'appendonly': 'no'} and r.config_set('appendonly', 'no') and r.config_resetstat()
    assert r.command_count() == len(r.command()) and r.time()[0] > 1e9
    r.set('gone', 1, px=1)
    until = time.monotonic() + 30
    while r.dbsize() != r.dbsize() or r.get('gone') is not None:
        assert time.monotonic() < until
    with redis.Redis.from_url(URL, db=3, protocol=protocol) as other:
        other.set('k', 'in 3')
        assert r.get('k') is None and r.move('n', 3) and other.get('n') == b'4' and other.flushdb() and r.dbsize() > 0


async def check_async(protocol):
    async with redis.asyncio.from_url(URL, protocol=protocol) as r:
        await asyncio.gather(*(r.set(f"async{number}", number) for number in range(50)))
        assert [int(value) for value in await asyncio.gather(*(r.get(f'async{number}') for number in range(50)))] == list(range(50))
        async with r.pubsub() as pubsub:
            await pubsub.subscribe('ticks')
            assert (await pubsub.get_message(timeout=10))['type'] == 'subscribe'
            for number in range(100):
                await r.publish('ticks', number)
            got = [int((await pubsub.get_message(timeout=10))['data']) for _ in range(100)]
            assert got == list(range(100)), got


for protocol in (2, 3):
    with redis.Redis.from_url(URL, protocol=protocol) as client:
        check(client, protocol)
    asyncio.run(check_async(protocol))
    print(f'redis_clients: redis-py {redis.__version__}, RESP{protocol}: all of it works')
