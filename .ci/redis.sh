#!/usr/bin/env bash
# The redis_server example beside the real one, in the folder of examples given: redis-cli and redis-benchmark
# have to work with it, and a list of commands has to be answered alike by both.
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
trap 'kill $ours_pid $real_pid; wait; rm -rf "$folder"' EXIT
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
mget a none b
incr a
set greeting again nx
del a b greeting
dbsize
nonsense 1 2
END
}
difference=$(diff <(session "$ours") <(session "$real")) || { echo "redis-cli: $difference"; exit 1; }
[[ $(session "$ours" | head -1) == OK ]]
echo 'redis-cli: the same session with both'

python3 redis.py "$ours" "$real"

for pipeline in 1 16; do
    said=$(redis-benchmark -s "$ours" -n 2000 -q -t ping,set,get,incr,mset -P $pipeline 2>&1 | tr '\r' '\n')
    if [[ $(grep -c 'requests per second' <<<"$said") != 6 ]] || grep -i error <<<"$said"; then
        echo "redis-benchmark -P $pipeline: $said"
        exit 1
    fi
done
echo 'redis-benchmark: ping, set, get, incr, mset'
kill -0 $ours_pid
