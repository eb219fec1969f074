#!/usr/bin/env bash
# The program every driver runs, with psql. Connection from PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, PGSSLMODE, PGSSLROOTCERT.
# Prints "ok STEP" for each step and stops at the first that fails.
set -euo pipefail

table="psql_$$_$RANDOM"
ask() { psql -X -A -t -q -v ON_ERROR_STOP=1 "$@"; }
ok() { echo "ok $1"; }
fail() { echo "FAILED $1" >&2; exit 1; }
expect() { [ "$2" = "$3" ] || fail "$1: expected <$3>, got <$2>"; ok "$1"; }
trap 'ask -c "DROP TABLE IF EXISTS $table" >/dev/null 2>&1 || true' EXIT

# \conninfo ends with the line about TLS.
psql -X -c '\conninfo' | grep -qi 'TLS' || fail "connect: not encrypted"
ok connect
ask -c "CREATE TABLE $table (id int PRIMARY KEY, name text)"
ok create
printf '%s\n' "INSERT INTO $table VALUES (:id, :'name');" | ask -v id=1 -v name="it's a 'quoted' \$1" -f -
ok insert
expect read "$(ask -c "SELECT id, name FROM $table")" "1|it's a 'quoted' \$1"

if said=$(ask -c "INSERT INTO $table VALUES (1, 'again')" 2>&1); then fail "error: none"; fi
case $said in *'duplicate key'*) ok error ;; *) fail "error: $said" ;; esac
printf 'BEGIN; INSERT INTO %s VALUES (2, $$two$$); COMMIT;\n' "$table" | ask -f -
expect transaction "$(ask -c "SELECT name FROM $table WHERE id = 2")" "two"
expect rollback "$(printf 'BEGIN;\nINSERT INTO %s VALUES (3, $$three$$);\nROLLBACK;\nSELECT count(*) FROM %s;\n' "$table" "$table" | ask -f -)" 2

seq 10 1009 | sed 's/.*/&\tcopied &/' | ask -c "COPY $table FROM STDIN"
expect copy "$(ask -c "COPY (SELECT name FROM $table WHERE id >= 10 ORDER BY id) TO STDOUT" | md5sum)" "$(seq 10 1009 | sed 's/^/copied /' | md5sum)"

sleeper=$(mktemp)
psql -X -c "SELECT pg_sleep(60)" >"$sleeper" 2>&1 &
pid=$!
sleep 1.5
started=$SECONDS
kill -INT "$pid"
if wait "$pid"; then fail "cancel: it was not"; fi
grep -q 'canceling statement due to user request' "$sleeper" || fail "cancel: $(cat "$sleeper")"
rm -f "$sleeper"
[ $((SECONDS - started)) -lt 20 ] || fail "cancel: too late"
ok cancel

size=$((20 * 1024 * 1024))
ask -c "INSERT INTO $table SELECT 5000, repeat('x', $size)"
expect large "$(ask -c "SELECT name FROM $table WHERE id = 5000" | tr -d '\n' | wc -c)" "$size"
