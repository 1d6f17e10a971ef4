#!/bin/sh
# Fetches the test suites of psycopg and asyncpg with the drivers they belong to, and what runs
# them, from package registries, into a folder of its own. Nothing outside of it changes.
#
# PyPI's packages of psycopg have no tests. Debian's source package psycopg3 has them; a source tree
# of psycopg that PSYCOPG names goes before it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
folder=$PWD
say() { printf 'fidelity: %s\n' "$*" >&2; }
version="2 ${PSYCOPG:-}"
[ "$(cat .installed 2>/dev/null)" != "$version" ] || exit 0
rm -rf asyncpg psycopg venv .installed

say 'fetching the suite of asyncpg'
python3 -m venv venv
pip() { venv/bin/pip --quiet --disable-pip-version-check "$@" >&2; }
pip install 'asyncpg==0.31.0' 'pytest>=8,<10' 'pytest-timeout>=2,<3' 'anyio>=4,<5' 'pproxy>=2.7,<3' 'dnspython>=2,<3' 'distro>=1,<2'
pip download --no-deps --no-binary asyncpg --dest sdist 'asyncpg==0.31.0'
tar xzf sdist/asyncpg-0.31.0.tar.gz
mkdir asyncpg
mv asyncpg-0.31.0/tests asyncpg/tests
rm -rf asyncpg-0.31.0

if [ -n "${PSYCOPG:-}" ]; then
    cp -a "$PSYCOPG" psycopg
else
    say 'fetching the suite of psycopg'
    "$here/source.sh" "$folder/apt" psycopg3
    mkdir psycopg
    tar xf "$(ls apt/psycopg3_*.orig.tar.* | tail -1)" -C psycopg --strip-components 1
fi
# Pure Python on the system's libpq; built in copies, so that the tree stays as it is.
pip install ./psycopg/psycopg ./psycopg/psycopg_pool
printf '%s\n' "$version" > .installed
