# Installs Debian packages that are missing. Sourced; needs say.sh.
# Calls apt-get only when something is missing, so a machine that has everything needs neither root nor network.

# A C compiler for the C libraries that cargo builds, and what the demo's guests run: kmod loads their disk driver.
DEMO_PACKAGES=(user-mode-linux redis-server python3 gcc libc6-dev util-linux kmod mawk ca-certificates)
# What etcd's client is made of when it is built: protoc, and the types that it knows.
DEMO_PACKAGES+=(protobuf-compiler libprotobuf-dev)
# Networks, mounts (loop devices of the tests, too), and what clusters find each other with.
CLUSTER_DEMO_PACKAGES=(iproute2 etcd-server mount)
# What the tests need besides: a second kind of guest, its initramfs, a file system and its checker.
TEST_PACKAGES=(busybox-static e2fsprogs fio xz-utils)
# A machine that it runs, as a User-mode Linux guest.
TEST_PACKAGES+=(systemd)
# NBD clients of all kinds, a rival for the benchmark, and certificates.
TEST_PACKAGES+=(libnbd-bin python3-libnbd nbd-client nbdkit openssl)
# The agent that guests run, which says what their balloon does not.
TEST_PACKAGES+=(qemu-guest-agent)
# Servers that pages go to: Redis of the demo, and Valkey, from bookworm-backports.
VALKEY_PACKAGE=valkey-server
# A browser that looks at the dashboard.
TEST_PACKAGES+=(chromium)
# libFuzzer is in C++.
FUZZ_PACKAGES=(g++ gcc libc6-dev python3 ca-certificates)
# From bookworm-backports: older QEMU corrupts the state of guests with a 6.12 kernel.
QEMU_PACKAGE=qemu-system-x86
QEMU_TOOLS_PACKAGE=qemu-utils
QEMU_VERSION=1:10.0

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

has_package() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

has_version() {
    local version
    version=$(dpkg-query -W -f '${Version}' "$1" 2>/dev/null) && [ -n "$version" ] && dpkg --compare-versions "$version" ge "$2"
}

# For messages before anything is changed.
need_apt() {
    command -v apt-get >/dev/null || die "missing: $*; this script installs them on Debian 12 only, install them by hand here"
    [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null ||
        die "missing: $*; run this as root, or install sudo, or install them: apt-get install $*"
}

apt_update() {
    local try
    for try in 1 2 3; do
        # A broken source of somebody else's makes apt-get complain; whether ours works shows at the installation.
        as_root apt-get update -qq -o Acquire::Retries=3 >&2 && return
        say "apt-get update complains (try $try of 3)"
        sleep $((try * 2))
    done
    say "going on with what apt-get update could fetch"
}

# Debian starts a service when its package is installed. None of ours shall run: a policy that says so stands there
# during the installation, and is taken away after it. A policy that is there already stays.
POLICY=/usr/sbin/policy-rc.d
policy_is_ours=

forbid_services() {
    if [ ! -e $POLICY ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $POLICY >/dev/null
        as_root chmod 755 $POLICY
        policy_is_ours=yes
    fi
}

allow_services() {
    if [ -n "$policy_is_ours" ]; then
        as_root rm -f $POLICY
        policy_is_ours=
    fi
}

# apt_install PACKAGE-OR-OPTION...
apt_install() {
    # A shell of its own: its EXIT trap runs however this ends, and the caller's traps stay as they are.
    (
        trap allow_services EXIT
        forbid_services
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" >&2
    ) || die "apt-get could not install: $*; see its message above"
}

# install_missing PACKAGE...
install_missing() {
    local package missing=()
    for package in "$@"; do
        has_package "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    need_apt "${missing[@]}"
    say "installing ${missing[*]}"
    apt_update
    apt_install "${missing[@]}"
}

# The mirror that apt took Debian 12 itself from: its lists say so, in whichever format its sources are written, and
# do not mistake somebody else's repository for it. Needs an apt-get update before.
debian_mirror() {
    apt-cache policy 2>/dev/null | awk '
        $3 == "bookworm/main" { uri = $2 }
        $1 == "release" && /o=Debian,/ && /n=bookworm,/ && /c=main/ && uri != "" && !found { print uri; found = 1 }'
}

# Adds the bookworm-backports suite of that mirror, unless apt has one.
add_backports() {
    grep -rqsE '^[^#]*bookworm-backports' /etc/apt/sources.list /etc/apt/sources.list.d && return
    local mirror
    need_apt "an apt source for bookworm-backports"
    apt_update
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || die "apt has no Debian mirror for bookworm; add one to /etc/apt/sources.list.d first"
    say "adding $mirror bookworm-backports to apt's sources"
    {
        printf 'Types: deb\nURIs: %s\nSuites: bookworm-backports\nComponents: main\n' "$mirror"
        printf 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n'
    } | as_root tee /etc/apt/sources.list.d/tmem-backports.sources >/dev/null
    apt_update
}

install_demo_packages() {
    install_missing "${DEMO_PACKAGES[@]}"
}

install_cluster_demo_packages() {
    install_missing "${DEMO_PACKAGES[@]}" "${CLUSTER_DEMO_PACKAGES[@]}"
}

install_fuzz_packages() {
    install_missing "${FUZZ_PACKAGES[@]}"
}

install_test_packages() {
    install_missing "${DEMO_PACKAGES[@]}" "${CLUSTER_DEMO_PACKAGES[@]}" "${TEST_PACKAGES[@]}" "${FUZZ_PACKAGES[@]}"
    if ! has_version $QEMU_PACKAGE $QEMU_VERSION; then
        need_apt "$QEMU_PACKAGE"
        add_backports
        say "installing $QEMU_PACKAGE from bookworm-backports"
        apt_install -t bookworm-backports $QEMU_PACKAGE
    fi
    if ! has_package $VALKEY_PACKAGE; then
        need_apt "$VALKEY_PACKAGE"
        add_backports
        say "installing $VALKEY_PACKAGE from bookworm-backports"
        apt_install -t bookworm-backports $VALKEY_PACKAGE
    fi
    # Of the same version: extended headers of NBD came with 9.0.
    if ! has_version $QEMU_TOOLS_PACKAGE $QEMU_VERSION; then
        need_apt "$QEMU_TOOLS_PACKAGE"
        add_backports
        say "installing $QEMU_TOOLS_PACKAGE from bookworm-backports"
        apt_install -t bookworm-backports $QEMU_TOOLS_PACKAGE
    fi
}
