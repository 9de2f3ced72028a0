#!/usr/bin/env bash
# The redis_server example beside the real one, in the folder of examples given: redis-cli and redis-benchmark
# have to work with it, a list of commands has to be answered alike by both, and Python's redis and node's ioredis
# have to find all that their users use. These two are installed into a folder for the occasion, or found in
# $REDIS_CLIENTS (venv/ and node_modules/ in it).
set -euo pipefail
cd "$(dirname "$0")"
examples=$1

for program in redis-server redis-cli redis-benchmark; do
    if ! command -v "$program" >/dev/null; then
        echo "skipped: there is no $program (Debian: apt install redis-server redis-tools)"
        exit 0
    fi
done

folder=$(mktemp -d)
ours=$folder/ours.sock
real=$folder/real.sock
"$examples/redis_server" --addr "unix:$ours" --pollers 2 >"$folder/log" &
ours_pid=$!
redis-server --port 0 --unixsocket "$real" --save '' --appendonly no --loglevel warning >"$folder/real.log" &
real_pid=$!
tcp_pid=
trap 'kill $ours_pid $real_pid $tcp_pid 2>/dev/null; wait; rm -rf "$folder"' EXIT
for socket in "$ours" "$real"; do
    for _ in $(seq 200); do
        [[ -S $socket ]] && break
        sleep 0.05
    done
    [[ -S $socket ]] || { echo "nobody listens on $socket"; exit 1; }
done

session() {
    redis-cli -s "$1" <<'END'
set greeting "hello, world"
get greeting
mset a 1 b 2
set e 1 ex 100
ttl e
mget a none b
incr a
set greeting again nx
del a b greeting e
dbsize
nonsense 1 2
END
}
difference=$(diff <(session "$ours") <(session "$real")) || { echo "redis-cli: $difference"; exit 1; }
[[ $(session "$ours" | head -1) == OK ]]
echo 'redis-cli: the same session with both'

said=$(printf 'MULTI\nSET k 1\nINCR k\nEXEC\n' | redis-cli -s "$ours" | tr '\n' ' ')
[[ $said == 'OK QUEUED QUEUED OK 2 ' ]] || { echo "redis-cli: $said"; exit 1; }
# In subscribe mode redis-cli shows what comes until it is ended.
redis-cli -3 -s "$ours" subscribe news >"$folder/news" &
subscriber=$!
for _ in $(seq 200); do
    [[ $(redis-cli -s "$ours" publish news hello) == 1 ]] && break
    sleep 0.05
done
for _ in $(seq 200); do
    grep -q hello "$folder/news" && break
    sleep 0.05
done
kill $subscriber
grep -q hello "$folder/news" || { echo 'redis-cli: nothing came to a subscriber'; exit 1; }
[[ $(redis-cli -s "$ours" --scan --pattern 'none*' | wc -l) == 0 ]]
[[ $(redis-cli -s "$ours" -n 5 set only here) == OK && $(redis-cli -s "$ours" info keyspace) == *db5:keys=1* ]]
echo 'redis-cli: transactions, subscriptions, databases'

python3 redis.py "$ours" "$real"

"$examples/redis_server" --addr 127.0.0.1:0 --pollers 2 >"$folder/tcp" &
tcp_pid=$!
for _ in $(seq 200); do
    grep -q listening "$folder/tcp" && break
    sleep 0.05
done
port=$(sed -n 's/^listening on 127.0.0.1:\([0-9]*\);.*/\1/p' "$folder/tcp")
clients=${REDIS_CLIENTS:-$folder}
if [[ -x $clients/venv/bin/python ]] || { python3 -m venv "$clients/venv" && "$clients/venv/bin/pip" -q install redis; } >"$folder/pip" 2>&1; then
    "$clients/venv/bin/python" redis_clients/client.py "redis://127.0.0.1:$port"
else
    echo "skipped: Python's redis cannot be installed: $(tail -1 "$folder/pip")"
fi
if [[ -d $clients/node_modules/ioredis ]] || npm --prefix "$clients" install --no-fund --no-audit ioredis redis >"$folder/npm" 2>&1; then
    NODE_PATH=$clients/node_modules node redis_clients/client.js "$port"
else
    echo "skipped: node's ioredis cannot be installed: $(tail -1 "$folder/npm")"
fi
kill $tcp_pid

for pipeline in 1 16; do
    said=$(redis-benchmark -s "$ours" -n 2000 -q -t ping,set,get,incr,mset -P $pipeline 2>&1 | tr '\r' '\n')
    if [[ $(grep -c 'requests per second' <<<"$said") != 6 ]] || grep -i error <<<"$said"; then
        echo "redis-benchmark -P $pipeline: $said"
        exit 1
    fi
done
echo 'redis-benchmark: ping, set, get, incr, mset'
kill -0 $ours_pid
