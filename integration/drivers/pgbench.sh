#!/usr/bin/env bash
# pgbench in every protocol mode, reconnecting, and with 200 clients. Connection as for the other drivers.
# Prints "ok STEP" for each step and stops at the first that fails; its tables have fixed names, so give it a database of its own.
set -euo pipefail

seconds=${PGWEIR_LONG:+60}
seconds=${seconds:-2}
bench() {
    local step=$1 said
    shift
    if ! said=$(pgbench -n "$@" 2>&1); then
        printf 'FAILED %s\n%s\n' "$step" "$said" >&2
        exit 1
    fi
    # "number of failed transactions" exists from version 15 on; an aborted client ends pgbench with an error above.
    if ! grep -q 'number of failed transactions: 0 ' <<<"$said" || grep -qi 'abort\|error' <<<"$said"; then
        printf 'FAILED %s\n%s\n' "$step" "$said" >&2
        exit 1
    fi
    echo "ok $step $(sed -n 's/^tps = \([0-9.]*\).*/\1 tps/p' <<<"$said")"
}

pgbench -i -q -s 1 2>/dev/null
echo "ok init"
# pgbench prepares synchronously: a thread that waits for the answer does not go on with its other clients. Were those to hold every
# server in a transaction, pgbench would wait for itself. So prepared transactions of several statements get no more clients than servers.
for mode in simple extended prepared; do
    clients=8
    [ "$mode" != prepared ] || clients=4
    bench "$mode" -M "$mode" -c "$clients" -j 2 -T "$seconds"
    bench "$mode-reads" -M "$mode" -c 8 -j 2 -T "$seconds" -b select-only
done
bench reconnect -C -c 4 -j 2 -T "$seconds" -b select-only
# Far more clients than servers.
for mode in simple extended prepared; do
    bench "crowd-$mode" -M "$mode" -c 200 -j 2 -t 10 -b select-only
done
bench crowd-writes -M extended -c 200 -j 2 -t 3
# Every transaction of TPC-B adds the same amount to three balances.
sums="SELECT count(*) FROM (SELECT sum(abalance) FROM pgbench_accounts UNION SELECT sum(tbalance) FROM pgbench_tellers
      UNION SELECT sum(bbalance) FROM pgbench_branches UNION SELECT sum(delta) FROM pgbench_history) balances"
[ "$(psql -X -A -t -c "$sums")" = 1 ] || { echo "FAILED balances" >&2; exit 1; }
echo "ok balances"
