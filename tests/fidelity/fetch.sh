#!/bin/sh
# Fetches the source package of the PostgreSQL that is installed, from Debian's package registry,
# and builds what its suites need: regress.so and libpq_pipeline. Prints where it is.
# Nothing outside the given folder changes.
set -eu
say() { printf 'fidelity: %s\n' "$*" >&2; }
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
mkdir -p "$folder"
cd "$folder"
folder=$PWD

package=$(dpkg-query -W -f '${binary:Package}\n' 'postgresql-[0-9]*' 2>/dev/null |
    grep -E '^postgresql-[0-9]+$' | sort -t- -k2 -n | tail -1) || true
[ -n "$package" ] || { say "no Debian package of PostgreSQL is installed: apt-get install postgresql"; exit 1; }
version=$(dpkg-query -W -f '${source:Version}' "$package")
tree="$folder/$package-$version"
if [ -e "$tree/.built-2" ]; then echo "$tree"; exit 0; fi

say "fetching the source of $package $version"
"$here/source.sh" "$folder" "$package=$version" || {
    say "the registry has no source of $version any more; taking its newest, whose expectations may differ"
    "$here/source.sh" "$folder" "$package"
}

rm -rf "$tree" unpacked
mkdir unpacked
tar xf "$(ls "$package"_*.orig.tar.* | tail -1)" -C unpacked
mv unpacked/* "$tree"
rmdir unpacked
cd "$tree"
say "building what the suites need (two minutes)"
{
    ./configure -q --without-readline --without-zlib --without-icu CFLAGS=-O1
    make -s -C src/backend generated-headers
    make -s -C src/test/regress regress.so refint.so autoinc.so
    make -s -C src/interfaces/libpq
    make -s -C src/test/modules/libpq_pipeline
} > build.log 2>&1 || { say "the build failed; see $tree/build.log"; exit 1; }
touch .built-2
echo "$tree"
