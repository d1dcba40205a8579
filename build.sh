#!/bin/sh
# Makes chat.pyz. Needs Python 3.11 or newer with venv; everything else comes from the locks in requirements/.
# --with-cryptography makes chat-with-cryptography.pyz instead, which checks web tokens by public keys wherever it runs,
# but runs on this platform and version of Python only.
# PYTHON=/path/to/python3 ./build.sh picks the interpreter; the file is the same with every one of them.
set -eu
cd "$(dirname "$0")"
. bundle/find-python.sh
exec "$python" bundle/build.py "$@"
