# What scripts ask of the Rust toolchain. Sourced; needs say.sh.

PATH=$PATH:$HOME/.cargo/bin
command -v cargo >/dev/null || die "cargo is missing; install a Rust toolchain first, see https://rustup.rs"

# Where cargo puts what it builds here.
target_directory() {
    cargo metadata --format-version 1 --no-deps --locked |
        /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'
}

# What is built for, when it has to be named: sanitizers must not get into build scripts.
host_triple() {
    rustc -vV | sed -n 's/^host: //p'
}
