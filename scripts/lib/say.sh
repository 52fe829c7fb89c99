# What scripts tell their user. Sourced. Everything goes to stderr: stdout is for results.

say() {
    printf '==> %s\n' "$*" >&2
}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}
