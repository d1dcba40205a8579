#!/bin/sh
# Writes the locks (the .txt files) from their .in files: ./requirements/lock.sh, or with --upgrade for newer releases.
# pip-compile, not a universal resolver: a lock with markers would differ from builder to builder.
set -eu
cd "$(dirname "$0")"
. ../bundle/find-python.sh
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$python" -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check pip-tools
for name in runtime platform build dev ../benchmarks/requirements; do
    echo "lock.sh: $name"
    "$tools/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options "$@" \
        --output-file "$name.txt" "$name.in"
done
