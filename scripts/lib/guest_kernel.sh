# Fetches the 6.12 kernel for QEMU guests without installing it. Sourced; needs say.sh and packages.sh.

# The package whose only dependency is the newest cloud kernel of the suite.
KERNEL_META=linux-image-cloud-amd64
KERNEL_SERIES=6.12

# Drivers that guests load: of their disk, of ublk, of their balloon, and of NBD and a network to have it over, with what those need.
KERNEL_MODULES=(drivers/block/virtio_blk drivers/block/ublk_drv drivers/block/nbd drivers/net/virtio_net drivers/net/net_failover net/core/failover)
KERNEL_MODULES+=(drivers/virtio/virtio_balloon)

# fetch_guest_kernel DIR: leaves DIR/vmlinuz and DIR/NAME.ko of each module. Does nothing where all are.
fetch_guest_kernel() {
    local dir=$1 package work module missing=
    for module in "${KERNEL_MODULES[@]}"; do
        [ -s "$dir/${module##*/}.ko" ] || missing=yes
    done
    [ -s "$dir/vmlinuz" ] || missing=yes
    [ -n "$missing" ] || return 0
    add_backports
    package=$(newest_kernel)
    if [ -z "$package" ]; then
        apt_update
        package=$(newest_kernel)
    fi
    [ -n "$package" ] || die "apt knows no $KERNEL_SERIES kernel in bookworm-backports; see: apt-cache policy $KERNEL_META"
    say "fetching $package"
    mkdir -p "$dir"
    work=$(mktemp -d "$dir/fetch.XXXXXX")
    # apt-get may download as the user _apt, who must not be asked to write to a home directory.
    (
        cd "$work" &&
            apt-get download -qq -o APT::Sandbox::User=root -o Acquire::Retries=3 "$package" >&2 &&
            dpkg-deb -x ./*.deb tree
    ) || { rm -rf "$work"; die "could not fetch $package; see apt-get's message above"; }
    # Each appears under its name when it is whole.
    for module in "${KERNEL_MODULES[@]}"; do
        xz -dc "$work"/tree/lib/modules/*/kernel/"$module.ko.xz" > "$work/${module##*/}.ko" || missing=$module
    done
    cp "$work"/tree/boot/vmlinuz-* "$work/vmlinuz" || missing=vmlinuz
    [ "$missing" = yes ] || { rm -rf "$work"; die "$package has no $missing, which was expected"; }
    mv "$work"/*.ko "$work/vmlinuz" "$dir/"
    rm -rf "$work"
}

newest_kernel() {
    apt-cache depends -t bookworm-backports $KERNEL_META 2>/dev/null |
        awk -v start="linux-image-$KERNEL_SERIES" '$1 == "Depends:" && index($2, start) == 1 { print $2; exit }'
}
