#!/bin/sh
# Makes chat.pyz. Needs Python 3.11 or newer with venv; everything else comes from the locks in requirements/.
# PYTHON=/path/to/python3 ./build.sh picks the interpreter; the file is the same with every one of them.
set -eu
cd "$(dirname "$0")"
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP

for python in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        exec "$python" bundle/build.py
    fi
done
echo "build.sh needs Python 3.11 or newer with its venv module (on Debian: apt-get install python3-venv)" >&2
exit 2
