#!/bin/sh
# To import trio 0.35.0 is to run a program: on Linux it looks for the library of threads by ctypes.util.find_library, at
# once, which runs `/sbin/ldconfig -p` and reads its output (where there is none, it tries gcc, objdump and ld). It is for
# the names that threads have in `ps`. So each start of a program on trio forks while it imports; a signal
# to its process group meets ldconfig, too; and whoever looks at where a process waits sees it in a pipe's read that isn't
# its own (a test of ours did). A sandbox that lets nothing be executed logs a denial at each start.
#
# Seen (Linux with glibc): ['/sbin/ldconfig -p']
set -eu
[ "$(uname)" = Linux ] && [ -x /sbin/ldconfig ] || { echo "this is about Linux with /sbin/ldconfig" >&2 && exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check trio==0.35.0
cat >look.py <<'PY'
import sys

started = []


def note(event, arguments):
    if event == "subprocess.Popen":
        started.append(" ".join(arguments[1]))


sys.addaudithook(note)
import trio  # noqa: E402, F401

print(started)
PY
found=$(venv/bin/python look.py)
echo "$found"
[ "$found" = "['/sbin/ldconfig -p']" ]
