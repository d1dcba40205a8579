#!/bin/sh
# Builds chat.pyz and proves it: style, types, every test, branch coverage. What it needs it installs here.
#
#   ./test.sh                               everything, as CI does
#   ./test.sh --quick                       style, types and the unit tests, with fewer examples
#   ./test.sh tests/pyz/test_pyz.py -k home     only these tests: all arguments go to pytest
#
# Python 3.11 or newer is needed. Chromium, Firefox and WebKitGTK (for the page), Node.js (for wscat and axe), nginx, Caddy, HAProxy, Apache, hitch,
# stunnel, Redis, systemd and Prometheus (to judge unit files and alerts, not to run), tmux and faketime are installed where apt-get may be used; where they
# can't be had, their tests are skipped and said so, but fail where CI=true.
set -eu
cd "$(dirname "$0")"
. bundle/find-python.sh
unset PYTHONDONTWRITEBYTECODE # else each worker compiles all tests anew, in every run

say() { echo "test.sh: $*"; }

optional() { # optional WHAT IS MISSING
    if [ "${CI:-}" = true ]; then
        say "$* is missing, and CI tests everything" >&2
        exit 1
    fi
    say "SKIPPED: $* is missing, so its tests don't run"
}

installed() { command -v "$1" >/dev/null 2>&1; }

found() { installed "$1" || [ -x "/usr/sbin/$1" ]; }

debian() { # debian PACKAGE...: true if they are there afterwards
    [ "$(id -u)" = 0 ] && installed apt-get || return 1
    say "installing $* by apt-get"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@"; } >.build/apt.log 2>&1 ||
        { cat .build/apt.log >&2 && return 1; }
}

node_tool() { # node_tool NAME FILE: what tests/NAME locks, into .build/NAME; FILE of it must be there then
    cmp -s "tests/$1/package-lock.json" ".build/$1/made-from" && [ -e ".build/$1/$2" ] && return 0
    say "installing $1"
    rm -rf ".build/$1" && mkdir ".build/$1"
    cp "tests/$1/package.json" "tests/$1/package-lock.json" ".build/$1"
    npm ci --prefix ".build/$1" --ignore-scripts --no-audit --no-fund --silent &&
        cp "tests/$1/package-lock.json" ".build/$1/made-from"
}

mkdir -p .build

# The tools, by hash

lock="$("$python" -VV; cat requirements/dev.txt)"
if ! .venv/bin/python -c '' 2>/dev/null || [ "$lock" != "$(cat .venv/made-from 2>/dev/null)" ]; then
    say "installing the test tools into .venv"
    "$python" -m venv --clear .venv
    PIP_CONSTRAINT=/dev/null PIP_USER=0 .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --no-input --require-hashes --no-deps --only-binary=:all: -r requirements/dev.txt >.build/pip.log 2>&1 ||
        { cat .build/pip.log >&2 && exit 1; }
    echo "$lock" >.venv/made-from
fi

install() { # install: what the tests need beside the tools
    # A browser, and the terminal client

    CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
    if [ -z "$CHROMIUM" ]; then
        debian chromium && CHROMIUM=$(command -v chromium) || optional "Chromium"
    fi
    export CHROMIUM

    if ! installed npm; then
        debian nodejs npm || true
    fi
    export WSCAT="$PWD/.build/wscat/node_modules/.bin/wscat"

    if installed npm; then
        node_tool wscat node_modules/.bin/wscat || optional "wscat"
        node_tool axe node_modules/axe-core/axe.min.js || optional "axe"
    else
        optional "npm (for wscat and axe)"
    fi

    # Two more browsers (docs/browsers.md) and a screen that nobody sees; proxies to stand behind (docs/security.md,
    # docs/operations.md), Redis as a store (Valkey comes with the test tools; Debian's package of Sentinel has no program that this one lacks), and what
    # judges the unit files (docs/chatroom.service) and the rules of alerts (docs/operations.md)

    wanted="firefox-esr:firefox-esr WebKitWebDriver:webkit2gtk-driver Xvfb:xvfb nginx:nginx caddy:caddy haproxy:haproxy apache2:apache2-bin hitch:hitch stunnel4:stunnel4 redis-server:redis-server systemd-analyze:systemd promtool:prometheus"
    packages=
    for pair in $wanted; do
        found "${pair%:*}" || packages="$packages ${pair#*:}"
    done
    [ -z "$packages" ] || debian $packages || true
    for pair in $wanted; do
        found "${pair%:*}" || optional "${pair%:*}"
    done

    # A clock that is set wrong (tests/support/clock.py)

    installed faketime || debian faketime || optional "faketime"

    # A terminal for the pictures in docs/terminal.md

    installed tmux || debian tmux || optional "tmux"

    # A C compiler, for a disk that fails when told to (tests/support/disk.c)

    installed cc || debian gcc libc6-dev || optional "a C compiler"
}

quick=
if [ "${1:-}" = --quick ]; then
    quick=true
    shift
else
    install
    ./build.sh
    [ $# = 0 ] || exec .venv/bin/python -m pytest "$@"
fi

status=0
check() { # check WHAT COMMAND...: all of them run, so that one failure doesn't hide the next
    say "$1"
    shift
    "$@" || { status=1 && say "FAILED: $*"; }
}

check style .venv/bin/ruff check --quiet .
check format .venv/bin/ruff format --quiet --check .
check types .venv/bin/mypy --no-error-summary
if [ -n "$quick" ]; then
    export CHAT_SEEDS=6
    check tests .venv/bin/python -m pytest -q -n 2 --dist loadfile --hypothesis-profile quick tests/unit "$@"
else
    .venv/bin/coverage erase
    # conftest.py says in which order the files come. A third worker on two cores made it slower, and tests late.
    check tests .venv/bin/coverage run -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
    check coverage .venv/bin/coverage report
fi
[ $status = 0 ] && say "all passed"
exit $status
