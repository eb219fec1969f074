# What integration/demo, integration/test, integration/regress and .ci/run share: saying what happens, running steps that can be interrupted, and
# installing what is missing. It must never install what is there, nor touch anything but packages and target/.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
drivers=${PGWEIR_DRIVERS:-$root/target/drivers}
step_pid=

say() { printf '==> %4ds  %s\n' "$SECONDS" "$*"; }
die() { printf 'integration: %s\n' "$*" >&2; exit 1; }

# A signal ends the step that runs, whole process group, and then the script.
interrupted() {
    trap '' INT TERM HUP
    if [ -n "$step_pid" ]; then
        kill -TERM -- "-$step_pid" 2>/dev/null || true
        for _ in $(seq 50); do
            kill -0 -- "-$step_pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL -- "-$step_pid" 2>/dev/null || true
    fi
    printf '\n==> stopped by SIG%s\n' "$1" >&2
    exit $((128 + $(kill -l "$1")))
}
trap 'interrupted INT' INT
trap 'interrupted TERM' TERM
trap 'interrupted HUP' HUP

# Runs a command in a process group of its own, says how long it took, and ends the script when it fails.
step() {
    local what=$1 from=$SECONDS status
    shift
    say "$what"
    # With job control a background job gets a group of its own, and does not ignore SIGINT.
    set -m
    setpriv --pdeathsig TERM -- "$@" </dev/null &
    step_pid=$!
    set +m
    if wait "$step_pid"; then status=0; else status=$?; fi
    step_pid=
    [ "$status" = 0 ] || die "failed after $((SECONDS - from)) s (status $status): $what"
    say "done in $((SECONDS - from)) s: $what"
}

# Runs a command as root. In the foreground, because sudo may ask for a password and a package manager must not be killed halfway:
# a signal takes effect when it is done.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Where the server's programs are, found as integration/src/postgres.rs does.
postgres_bin() {
    local bin
    bin=${PG_BIN:-$(find /usr/lib/postgresql/*/bin -name initdb 2>/dev/null | sort -V | tail -n 1 | xargs -r dirname)}
    bin=${bin:-$(pg_config --bindir 2>/dev/null)}
    [ -n "$bin" ] && [ -x "$bin/initdb" ] && echo "$bin"
}
postgres_major() { "$(postgres_bin)/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/'; }

# has_postgres: a server of version 15 or newer.
has_postgres() { postgres_bin >/dev/null && [ "$(postgres_major)" -ge 15 ]; }

has() { command -v "$1" >/dev/null 2>&1; }

# The library bindgen loads, and a compiler of any version that brings clang's own headers.
has_clang() { has clang || compgen -G '/usr/lib/llvm-*/bin/clang' >/dev/null; }
has_libclang() { find /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu -name 'libclang*.so*' 2>/dev/null | grep -q .; }

# Indexes that only the planner sees, for the server that is tested.
has_hypopg() { find "/usr/share/postgresql/$(postgres_major)/extension" -name hypopg.control 2>/dev/null | grep -q .; }

# Answers for names of hosts in place of the system's, in tests.
has_nss_wrapper() { compgen -G '/usr/lib/*-linux-gnu/libnss_wrapper.so' >/dev/null; }

# The Python that drivers and Patroni run with: the distribution's where there is one, because Patroni runs as the servers' account,
# which may not reach one in somebody's home.
venv_python() { if [ -x /usr/bin/python3 ]; then echo /usr/bin/python3; else echo python3; fi; }

# Adds a package to $missing unless the test succeeds: need PACKAGE COMMAND…
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

# Adds what hangs on the version of the server, if the tests are to run with the distribution's.
need_hypopg() {
    [ "$1" = drivers ] || return 0
    [ ! -d "/usr/share/postgresql/$(postgres_major)" ] || need "postgresql-$(postgres_major)-hypopg" has_hypopg
}

# Installs what building and running need; with "drivers" also what the tests need beyond that, with "suites" what
# integration/regress needs.
install_missing() {
    missing=()
    has cargo || die "no Rust toolchain: cargo is not in PATH"
    need postgresql has_postgres
    need postgresql-client has psql
    need postgresql-client has pgbench
    need redis-server has redis-server
    need gcc has cc
    need libc6-dev test -e /usr/include/stdio.h
    need make has make
    need clang has_clang
    need libclang-dev has_libclang
    need util-linux has setpriv
    if [ "${1:-}" = drivers ]; then
        need python3-venv "$(venv_python)" -c 'import venv, ensurepip'
        need strace has strace
        need nodejs has node
        # nodesource's nodejs has npm inside and refuses Debian's.
        has npm || missing+=(npm)
        need ruby has ruby
        need chromium has chromium
        need chromium-driver has chromedriver
        need prometheus has prometheus
        need libnss-wrapper has_nss_wrapper
        need python3-aiosmtpd /usr/bin/python3 -c 'import aiosmtpd'
        need ruby-pg ruby -e 'require "pg"'
        need ruby-sequel ruby -e 'require "sequel"'
    fi
    if [ "${1:-}" = suites ]; then
        need python3 has python3
        need dpkg-dev has dpkg-source
        need perl has perl
        # From 17 on the source has no generated parsers; a server not installed yet may be as new.
        has_postgres && [ "$(postgres_major)" -lt 17 ] || { need bison has bison; need flex has flex; }
    fi
    # Which version of PostgreSQL the distribution has shows when it is there.
    local needs_hypopg=${1:-}
    ! has_postgres || need_hypopg "$needs_hypopg"
    if [ ${#missing[@]} = 0 ]; then
        say "every package needed is installed"
        return
    fi
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    say "installing ${missing[*]}"
    has apt-get || die "please install by hand, there is no apt-get here: ${missing[*]}"
    [ "$(id -u)" = 0 ] || has sudo || die "neither root nor sudo: please install by hand: ${missing[*]}"
    install_quietly || die "apt-get could not install: ${missing[*]}"
    has_postgres || die "the distribution's PostgreSQL is older than 15; please install a newer one"
    missing=()
    need_hypopg "$needs_hypopg"
    [ ${#missing[@]} = 0 ] || install_quietly || die "apt-get could not install: ${missing[*]}"
}

# Installs $missing. A policy-rc.d that says no keeps the packages from starting servers of their own on the default ports.
install_quietly() {
    as_root env DEBIAN_FRONTEND=noninteractive sh -c '
        policy=/usr/sbin/policy-rc.d
        if [ ! -e $policy ]; then
            trap "rm -f $policy" EXIT
            printf "#!/bin/sh\nexit 101\n" >$policy
            chmod 755 $policy
        fi
        apt-get update -qq || echo "the package lists could not be renewed; trying with those at hand" >&2
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null' apt "${missing[@]}"
}

# Installs the pinned drivers into target/drivers, once for each version of the lists.
install_drivers() {
    local lists=$root/integration/drivers stamp=$drivers/stamp wanted
    wanted=$(cat "$lists/requirements.txt" "$lists/package.json" | sha256sum)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        say "the drivers are installed in ${drivers#"$root/"}"
        return
    fi
    rm -rf "$drivers"
    mkdir -p "$drivers/node"
    cp "$lists/package.json" "$drivers/node/"
    step "a Python environment with psycopg, asyncpg and Patroni" bash -c \
        '"$3" -m venv "$1/venv" && "$1/venv/bin/python" -m pip install -q --disable-pip-version-check -r "$2/requirements.txt"' \
        _ "$drivers" "$lists" "$(venv_python)"
    # Also a second PostgreSQL, of a version that the distribution may not have (integration/src/postgres.rs, newer_bin).
    step "node-postgres and a newer PostgreSQL" npm install --prefix "$drivers/node" --no-fund --no-audit --loglevel=error
    echo "$wanted" >"$stamp"
}
