#!/bin/sh
# Downloads a source package, as Debian's `apt-get source` does: source.sh FOLDER PACKAGE[=VERSION].
# The index is one of its own, so that the system's lists stay as they are.
set -eu
mkdir -p "$1"
cd "$1"
folder=$PWD
mkdir -p index/parts index/lists/partial index/cache/archives/partial
for file in /etc/apt/sources.list.d/*.sources; do
    [ -e "$file" ] && grep -qi debian "$file" && sed 's/^Types: deb$/Types: deb-src/' "$file" > "index/parts/$(basename "$file")"
done
: > index/sources.list
[ ! -e /etc/apt/sources.list ] || sed -n 's/^deb /deb-src /p' /etc/apt/sources.list > index/sources.list
get() {
    apt-get -q -o Dir::Etc::SourceList="$folder/index/sources.list" -o Dir::Etc::SourceParts="$folder/index/parts" \
        -o Dir::State::Lists="$folder/index/lists" -o Dir::Cache="$folder/index/cache" \
        -o APT::Sandbox::User=root "$@" >&2
}
get update
get source --download-only "$2"
