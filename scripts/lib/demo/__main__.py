"""The demo: three guests with too little memory share one pool. Started by scripts/demo."""

import argparse
import json
import pathlib
import shutil
import signal
import sys
import tempfile
import time

from daemon import Daemon, DaemonError
from guest import MEMORY_MIB, Guest
from screen import Progress, as_json, table

POOL_SIZE = "1G"
DISK_SIZE = "1G"
POLL_SECONDS = 1
# Name, program, and MiB of data: full and quick.
GUESTS = [("python3", "records.py", 320, 210), ("redis", "redis_values.py", 320, 210), ("gcc", "compile.py", 320, 210)]
# Ample: a guest that needs longer hangs.
TIMEOUT_SECONDS = {"full": 900, "quick": 300}


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def check_shared_memory():
    """User-Mode Linux keeps a guest's memory in a file there, and dies by SIGBUS where it does not fit."""
    need_mib = len(GUESTS) * MEMORY_MIB
    free_mib = shutil.disk_usage("/dev/shm").free >> 20
    if free_mib < need_mib:
        raise DaemonError(
            f"/dev/shm has {free_mib} MiB free and the guests need {need_mib}; enlarge it: "
            f"mount -o remount,size=1G /dev/shm (in a container: --shm-size=1g)"
        )


def run(tmem, mode, directory):
    """Runs the guests to their end, and returns them."""
    check_shared_memory()
    (directory / "uml").mkdir()
    shutil.copytree(pathlib.Path(__file__).parent.parent.parent / "guests", directory / "guests")
    guests = [Guest(name, program, full if mode == "full" else quick) for name, program, full, quick in GUESTS]
    daemon = Daemon(tmem, directory, ["--pool-size", POOL_SIZE, "--http", "off"])
    booted = []
    try:
        daemon.wait_until_ready()
        say(f"tmem serves a pool of {POOL_SIZE}; booting {len(guests)} guests of {MEMORY_MIB} MiB")
        for guest in guests:
            daemon.add_disk(guest.name, DISK_SIZE)
            guest.boot(directory, daemon.guest_arguments(guest.name, f"{MEMORY_MIB}M"))
            booted.append(guest)
        watch(daemon, guests, time.monotonic() + TIMEOUT_SECONDS[mode])
    finally:
        # An impatient second Ctrl-C must not leave guests behind.
        on_signals(signal.SIG_IGN)
        for guest in booted:
            guest.kill()
        daemon.stop()
    return guests


def watch(daemon, guests, deadline):
    """Shows progress until every guest has ended."""
    progress = Progress()
    running = True
    while running:
        # Who has ended is asked first: the status that follows then knows the guest's last page.
        running = any([guest.is_running() for guest in guests])
        clients = {client["name"]: client for client in daemon.status()["clients"]}
        for guest in guests:
            guest.observe(clients[guest.name])
        progress.show(guests)
        if running and time.monotonic() > deadline:
            for guest in guests:
                if guest.is_running():
                    guest.detail = f"still {guest.phase} when the time was up"
            return
        time.sleep(POLL_SECONDS if running else 0)


def report(guests, mode, seconds, in_json):
    print("\n" + table(guests, MEMORY_MIB), file=sys.stderr if in_json else sys.stdout, flush=True)
    failed = [guest for guest in guests if guest.failure()]
    for guest in failed:
        print(f"\n{guest.name}: {guest.failure()}. Its last console lines:", file=sys.stderr)
        for line in guest.console:
            print(f"    {line}", file=sys.stderr)
    if in_json:
        document = {"mode": mode, "seconds": round(seconds, 1), "guests": as_json(guests, MEMORY_MIB)}
        print(json.dumps({**document, "verified": not failed}, indent=2))
    return 1 if failed else 0


def on_signals(handler):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def interrupted(number, _frame):
    raise KeyboardInterrupt(signal.Signals(number).name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tmem", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    on_signals(interrupted)
    mode = "quick" if options.quick else "full"
    started = time.monotonic()
    # Below /tmp whatever TMPDIR says: the guests find it by this path, and a kernel's command line takes no spaces.
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tmem-demo.", dir="/tmp"))
    try:
        guests = run(options.tmem, mode, directory)
    except DaemonError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; everything it started has been stopped", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return report(guests, mode, time.monotonic() - started, options.json)


sys.exit(main())
