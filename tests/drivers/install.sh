#!/bin/sh
# Installs the drivers that the scripts beside it use, from their package registries, into a folder
# of its own. Nothing outside of it changes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
folder=$PWD
version=2
[ "$(cat .installed 2>/dev/null)" != "$version" ] || exit 0
say() { printf 'fidelity: %s\n' "$*" >&2; }

say 'installing drivers: psycopg, asyncpg, SQLAlchemy'
rm -rf python node java
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check \
    'psycopg[binary]==3.3.4' 'asyncpg==0.31.0' 'sqlalchemy>=2.0,<2.1' >&2

say 'installing drivers: node-postgres'
mkdir -p node
printf '{"private": true}\n' > node/package.json
(cd node && npm install --silent --no-audit --no-fund pg@8.23.0 pg-cursor@2 pg-query-stream@4 pg-copy-streams@7) >&2

say 'installing drivers: pgjdbc'
mkdir -p java
(cd java && apt-get download -q -o APT::Sandbox::User=root libpostgresql-jdbc-java && dpkg-deb -x ./*.deb .) >&2

say 'building drivers: tokio-postgres, sqlx (two minutes)'
CARGO_TARGET_DIR="$folder/rust" cargo build --quiet --manifest-path "$here/rust/Cargo.toml" >&2
printf '%s\n' "$version" > .installed
