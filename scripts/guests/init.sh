#!/bin/sh
# First process of a demo guest. The guest's root is the host's file system, read-only, so the programs of the
# host run in it. It swaps on the disk labelled `tmem`, which was born formatted, and runs one program.
#
# From the kernel command line: TMEM_PROGRAM (a file beside this one), TMEM_DATA_MIB.
# Lines that start with @ are for the host: @phase, @verified, @failed from the program; @swap and @exit from here.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TMPDIR=/run PYTHONDONTWRITEBYTECODE=1

power_off() {
    echo "@exit $1"
    echo o > /proc/sysrq-trigger
    sleep 60
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o size=100% tmpfs /run
cd /run

insmod "/usr/lib/uml/modules/$(uname -r)/kernel/drivers/block/virtio_blk.ko" || power_off 1
swapon --discard LABEL=tmem || power_off 1
awk '/^MemTotal/ { print "@memory", $2 * 1024 }' /proc/meminfo

/usr/bin/python3 "$(dirname "$0")/$TMEM_PROGRAM" "$TMEM_DATA_MIB"
status=$?
awk '/^pswpout/ { out = $2 } /^pswpin/ { in_ = $2 } END { print "@swap", out, in_ }' /proc/vmstat
power_off $status
