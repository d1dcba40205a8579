#!/bin/sh
# Makes chat.pyz. Needs Python 3.11 or newer with venv; everything else comes from the locks in requirements/.
# PYTHON=/path/to/python3 ./build.sh picks the interpreter; the file is the same with every one of them.
set -eu
cd "$(dirname "$0")"
. bundle/find-python.sh
exec "$python" bundle/build.py
