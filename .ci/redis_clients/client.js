// node's ioredis with the redis_server example, as its users use it, and node-redis for RESP3.
//
//     NODE_PATH=.../node_modules node client.js PORT

const assert = require('assert');
const Redis = require('ioredis');

const port = Number(process.argv[2]);
const once = (emitter, event) => new Promise((resolve) => emitter.once(event, (...args) => resolve(args)));

async function ioredis() {
    const r = new Redis({ port, connectionName: 'tester' });
    await r.flushall();
    assert.equal(await r.set('k', 'v', 'EX', 100, 'NX'), 'OK');
    assert.equal(await r.set('k', 'v', 'NX'), null);
    assert.equal(await r.get('k'), 'v');
    assert.ok((await r.ttl('k')) > 90);
    assert.deepEqual(await r.mget('k', 'none'), ['v', null]);
    assert.equal(await r.client('GETNAME'), 'tester');
    await assert.rejects(r.incr('k'), /not an integer/);
    await assert.rejects(r.call('NOPE'), /unknown command/);
    const large = Buffer.alloc(3_000_000, 'x\r\n');
    await r.set('large', large);
    assert.ok(large.equals(await r.getBuffer('large')));

    const pipeline = r.pipeline();
    for (let number = 0; number < 5000; number++) pipeline.set(`p${number}`, number).get(`p${number}`);
    const results = await pipeline.exec();
    assert.equal(results.length, 10000);
    assert.ok(results.every(([error, value], at) => !error && (at % 2 ? value === String((at - 1) / 2) : value === 'OK')));
    assert.deepEqual(await r.multi().incr('n').incr('n').get('n').exec(), [[null, 1], [null, 2], [null, '2']]);
    await assert.rejects(r.multi().set('k').exec(), /EXECABORT/);
    await r.watch('n');
    await r.duplicate().incr('n');
    assert.equal(await r.multi().get('n').exec(), null);
    const seen = new Set();
    for await (const keys of r.scanStream({ match: 'p*', count: 100 })) keys.forEach((key) => seen.add(key));
    assert.equal(seen.size, 5000);

    const sub = new Redis({ port });
    assert.equal(await sub.subscribe('news'), 1);
    assert.equal(await sub.psubscribe('n?ws'), 2);
    let message = once(sub, 'message');
    let pmessage = once(sub, 'pmessage');
    assert.equal(await r.publish('news', 'hello'), 2);
    assert.deepEqual(await message, ['news', 'hello']);
    assert.deepEqual(await pmessage, ['n?ws', 'news', 'hello']);
    assert.equal(await sub.ping(), 'PONG');

    // It comes back by itself, with its subscriptions and its database.
    const other = new Redis({ port, db: 2 });
    await other.set('in', '2');
    for (const client of [sub, other]) {
        const id = client === sub ? (await r.client('LIST', 'TYPE', 'pubsub')).match(/^id=(\d+)/)[1] : await client.client('ID');
        const ready = once(client, 'ready');
        await r.client('KILL', 'ID', id);
        await ready;
    }
    assert.equal(await other.get('in'), '2');
    while ((await r.publish('news', 'again')) < 2);
    message = once(sub, 'message');
    await r.publish('news', 'and again');
    assert.equal((await message)[0], 'news');
    assert.equal(await sub.unsubscribe('news'), 1);
    assert.equal(await sub.punsubscribe(), 0);
    assert.equal(await sub.get('k'), 'v');
    for (const client of [r, sub, other]) assert.equal(await client.quit(), 'OK');
    console.log(`redis_clients: ioredis ${require('ioredis/package.json').version}: all of it works`);
}

async function nodeRedis(RESP) {
    const { createClient } = require('redis');
    const r = await createClient({ url: `redis://127.0.0.1:${port}`, RESP }).connect();
    assert.equal(await r.set('k', 'v', { EX: 100 }), 'OK');
    assert.deepEqual(await Promise.all([r.get('k'), r.get('none'), r.incr('m'), r.strLen('k')]), ['v', null, 1, 1]);
    assert.deepEqual(await r.multi().set('a', '1').incr('a').get('a').exec(), ['OK', 2, '2']);
    const config = await r.configGet('app*');
    assert.equal(config.appendonly, 'no');
    const sub = await r.duplicate().connect();
    const got = new Promise((resolve) => sub.subscribe('news', resolve).then(() => r.publish('news', 'hello')));
    assert.equal(await got, 'hello');
    if (RESP === 3) assert.equal(await sub.get('k'), 'v');
    await r.del('m');
    await Promise.all([r.close(), sub.close()]);
    console.log(`redis_clients: node-redis ${require('redis/package.json').version}, RESP${RESP}: all of it works`);
}

(async () => {
    await ioredis();
    try {
        require.resolve('redis');
    } catch {
        return;
    }
    await nodeRedis(2);
    await nodeRedis(3);
})().then(() => process.exit(0), (error) => {
    console.error(error);
    process.exit(1);
});
