# Fetches the 6.12 kernel for QEMU guests without installing it. Sourced; needs say.sh and packages.sh.

# The package whose only dependency is the newest cloud kernel of the suite.
KERNEL_META=linux-image-cloud-amd64
KERNEL_SERIES=6.12

# fetch_guest_kernel DIR: leaves DIR/vmlinuz and DIR/virtio_blk.ko. Does nothing where both are.
fetch_guest_kernel() {
    local dir=$1 package work
    [ -s "$dir/vmlinuz" ] && [ -s "$dir/virtio_blk.ko" ] && return
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
    # The driver first: a folder that has both is taken for complete.
    xz -dc "$work"/tree/lib/modules/*/kernel/drivers/block/virtio_blk.ko.xz > "$work/virtio_blk.ko" &&
        cp "$work"/tree/boot/vmlinuz-* "$work/vmlinuz" &&
        mv "$work/virtio_blk.ko" "$work/vmlinuz" "$dir/" || { rm -rf "$work"; die "$package has not the files that were expected"; }
    rm -rf "$work"
}

newest_kernel() {
    apt-cache depends -t bookworm-backports $KERNEL_META 2>/dev/null |
        awk -v start="linux-image-$KERNEL_SERIES" '$1 == "Depends:" && index($2, start) == 1 { print $2; exit }'
}
