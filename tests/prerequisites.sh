#!/bin/sh
# Looks for everything that a build and the tests need. Installs what is missing where it may (as
# root, or with a sudo that does not ask), and otherwise prints exactly what to install.
set -u
cd "$(dirname "$0")/.."

say() { printf 'prerequisites: %s\n' "$*" >&2; }

packages=
need() { packages="$packages $*"; }

some() { # whether any of the files that the patterns name exists
    for file in "$@"; do [ -e "$file" ] && return 0; done
    return 1
}

has_server() {
    [ -n "${CHAPERONE_TEST_PGBIN:-}" ] && [ -x "$CHAPERONE_TEST_PGBIN/initdb" ] && return 0
    command -v initdb >/dev/null 2>&1 || some /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb
}

# Not libclang-cpp, which LLVM brings without it and which bindgen cannot use.
has_libclang() {
    some ${LIBCLANG_PATH:+"$LIBCLANG_PATH"/libclang.so*} /usr/lib/llvm-*/lib/libclang.so* \
        /usr/lib/llvm-*/lib/libclang-[0-9]*.so* /usr/lib/*-linux-gnu/libclang-[0-9]*.so* \
        /usr/lib/*-linux-gnu/libclang.so* /usr/lib64/libclang.so* /usr/lib/libclang.so* \
        /usr/local/lib/libclang.* /opt/homebrew/opt/llvm/lib/libclang.*
}

command -v cc >/dev/null 2>&1 || need build-essential pkg-config
has_libclang || need libclang-dev
has_server || need postgresql postgresql-contrib
command -v psql >/dev/null 2>&1 || need postgresql-client
for want in "$@"; do # a program, or program=package
    command -v "${want%%=*}" >/dev/null 2>&1 || need "${want#*=}"
done

as_root=none
if [ "$(id -u)" = 0 ]; then as_root=
elif sudo -n true >/dev/null 2>&1; then as_root='sudo -n'
fi

if [ -n "$packages" ]; then
    if [ "$as_root" = none ] || ! command -v apt-get >/dev/null 2>&1; then
        say "missing; please install and try again (names as in Debian):"
        say "    apt-get install$packages"
        exit 1
    fi
    say "installing$packages"
    get="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends"
    $get update || say "apt-get update failed; trying with the lists that are there"
    quiet=/etc/postgresql-common/createcluster.d/chaperone-demo.conf
    case "$packages" in *"postgresql "*)
        # Debian would set up and start a server of its own; only the programs are wanted.
        $get install postgresql-common &&
            $as_root mkdir -p "${quiet%/*}" &&
            echo 'create_main_cluster = false' | $as_root tee "$quiet" >/dev/null
    esac
    # shellcheck disable=SC2086 # a list of words
    $get install $packages
    status=$?
    $as_root rm -f "$quiet"
    if [ $status -ne 0 ]; then
        say "apt-get failed; please install by hand:$packages"
        exit 1
    fi
fi

if ! command -v cargo >/dev/null 2>&1; then
    say "cargo not found; install Rust with rustup (https://rustup.rs), then try again"
    exit 1
fi
# With rustup, the first call installs the toolchain that rust-toolchain.toml names.
if ! cargo --version >/dev/null; then
    say "the toolchain of rust-toolchain.toml is not usable; try: rustup toolchain install"
    exit 1
fi
# Policies are built for the first; tests build components for the other.
for wasm in wasm32-unknown-unknown wasm32-wasip2; do
    [ -d "$(rustc --print target-libdir --target $wasm 2>/dev/null)" ] && continue
    if command -v rustup >/dev/null 2>&1; then
        say "adding the compilation target $wasm"
        rustup target add $wasm || { say "please run: rustup target add $wasm"; exit 1; }
    else
        say "this Rust cannot compile to $wasm; install Rust with rustup (https://rustup.rs)"
        exit 1
    fi
done
