"""User-mode Linux guests for the benchmark scripts: a real kernel as a process, on the host's own file system."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

GUESTS_CPU = max(os.sched_getaffinity(0))

INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TMPDIR=/run
modules=/usr/lib/uml/modules/$(uname -r)/kernel
# The kernel itself has mounted /dev. What programs write goes to /run, which is in the guest's memory.
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t tmpfs run /run || echo "GUEST FAILED: mount"
cd /run
need() { "$@" || { echo "GUEST FAILED: $*"; sleep 60; }; }
COMMANDS
echo "GUEST DONE"
echo o > /proc/sysrq-trigger
sleep 60
"""

SWAP = """
need insmod $modules/drivers/block/virtio_blk.ko
need mkswap -q /dev/vda && need swapon /dev/vda
"""


def prepare():
    if not shutil.which("linux.uml"):
        sys.exit("linux.uml is missing: apt-get install user-mode-linux")


def guest(socket, memory_mib, commands):
    """A guest that swaps to the disk at `socket` and runs shell commands: yields an iterator over what it prints."""
    return boot([socket], memory_mib, SWAP + commands)


@contextlib.contextmanager
def boot(sockets, memory_mib, commands, longest_s=3600):
    """A guest that has the disks at `sockets` and runs shell commands: yields an iterator over what it prints. It is
    killed after `longest_s` seconds."""
    with tempfile.TemporaryDirectory(prefix="tmem-guest-") as folder:
        init = pathlib.Path(folder, "init")
        init.write_text(INIT.replace("COMMANDS", commands))
        init.chmod(0o755)
        process = subprocess.Popen([
            "linux.uml", f"mem={memory_mib}M", f"uml_dir={folder}", "con=null", "con0=fd:0,fd:1", "quiet", "panic=-1",
            "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}",
            *[f"virtio_uml.device={socket}:2" for socket in sockets],
        ], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace",
            process_group=0, preexec_fn=on_one_cpu)  # fmt: skip
        # Each process inside the guest is one of the host's, and outlives a kernel that is killed alone.
        def kill():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        watchdog = threading.Timer(longest_s, kill)
        watchdog.start()
        try:
            yield lines(process)
        finally:
            watchdog.cancel()
            kill()
            process.wait()


def keep_a_cpu():
    """Leaves the guests' CPU to them, for this script and all that it starts from now on, as who assigns virtual CPUs to real ones does."""
    others = os.sched_getaffinity(0) - {GUESTS_CPU}
    if others:
        os.sched_setaffinity(0, others)


def on_one_cpu():
    """Its kernel and its programs are processes of the host that take turns. On two CPUs each turn wakes one that has gone idle, which made
    a program that swaps five times as slow."""
    os.sched_setaffinity(0, {GUESTS_CPU})


def lines(process):
    tail = []
    for line in process.stdout:
        line = line.rstrip()
        tail = [*tail[-20:], line]
        if line.startswith("GUEST FAILED"):
            raise RuntimeError("the guest did not come up:\n" + "\n".join(tail))
        if line == "GUEST DONE":
            return
        yield line
    raise RuntimeError("the guest ended before it was done:\n" + "\n".join(tail))
