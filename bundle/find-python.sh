# Sets $python to an interpreter that can build and test, or ends the script that sources this.
# $PYTHON, where it is set, is asked first.

unset PYTHONPATH PYTHONHOME PYTHONSTARTUP
python=
for name in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    echo "${0##*/} needs Python 3.11 or newer with its venv module (on Debian: apt-get install python3-venv)" >&2
    exit 2
fi
