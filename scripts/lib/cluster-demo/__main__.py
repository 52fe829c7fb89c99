"""The cluster demo. Started by scripts/cluster-demo.

It runs in namespaces of its own: this process makes them, starts itself in them, passes signals on, and removes the directory. However either of the two
ends, the kernel ends everything that runs in the namespaces, and takes the network and the files with them.
"""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OWN = pathlib.Path(__file__).parent
# Daemons and guests are those of the other demo.
sys.path[:0] = [str(OWN), str(OWN.parent / "demo")]


def outside(arguments):
    """Runs the demo in namespaces, and returns its exit code."""
    # Below /tmp whatever TMPDIR says: the guest finds it by this path, and a kernel's command line takes no spaces.
    directory = tempfile.mkdtemp(prefix="tmem-cluster-demo.", dir="/tmp")
    command = [
        "setpriv", "--pdeathsig", "KILL",
        "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
        sys.executable, "-B", str(OWN), "--directory", directory, *arguments,
    ]
    # Until the other process is there, a signal waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        # In a session of its own, so that Ctrl-C comes to it once, and from here.
        with_signals = lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=with_signals)
        for number in SIGNALS:
            signal.signal(number, lambda _number, _frame: os.killpg(process.pid, signal.SIGTERM))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        code = process.wait()
        return code if code >= 0 else 128 - code
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def inside(options):
    """The demo itself, in its namespaces. Returns the exit code."""
    from daemon import DaemonError
    from story import Story

    def interrupted(number, _frame):
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in SIGNALS:
        signal.signal(number, interrupted)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", options.directory], check=True)
        return Story(options).tell()
    except (DaemonError, subprocess.CalledProcessError) as error:
        print(f"cluster-demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncluster-demo: interrupted; everything it started ends with it", file=sys.stderr)
        return 130


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tmem", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--directory")
    options = parser.parse_args()
    return inside(options) if options.directory else outside(sys.argv[1:])


sys.exit(main())
