"""What runs on the hosts: etcd on one, a tmem daemon on each of the others."""

import contextlib
import os
import signal
import subprocess
import time

from daemon import Daemon, DaemonError

PORT = 7790
ETCD_PORT = 2379
START_SECONDS = 30

CONFIGURATION = """\
pool-size = "{pool}"
# What is lent leaves the host twice as much as this.
reserve = "128M"
http = "off"

[cluster]
listen = "{address}:{port}"
directory = "{directory}/cluster"
etcd = ["{etcd}"]
copies = {copies}
lend = "{lend}"
"""


class Etcd:
    """The server that knows who is in the cluster."""

    def __init__(self, host, directory):
        self.url = f"http://{host.address}:{ETCD_PORT}"
        self.knock = [*host.place, "bash", "-c", f"exec 3<>/dev/tcp/{host.address}/{ETCD_PORT}"]
        self.log_path = directory / "etcd.log"
        peers = f"http://{host.address}:{ETCD_PORT + 1}"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [
                    *host.place, "etcd", "--name", "demo", "--data-dir", str(directory / "etcd"),
                    "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                    "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
                    "--initial-cluster", f"demo={peers}", "--logger", "zap",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )

    def wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(self.knock, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                words = self.log_path.read_text(errors="replace")[-2000:].strip()
                raise DaemonError(f"etcd is not ready; its last words:\n{words}")
            time.sleep(0.1)


class Node(Daemon):
    """A tmem daemon on a host of its own."""

    def __init__(self, binary, directory, name, host, etcd, first, pool, lend, copies):
        """`first` is the node where the cluster was made, which invites this one; `None`: this is it."""
        self.name = name
        self.binary = binary
        directory = directory / name
        directory.mkdir()
        self.directory = directory
        identity = str(directory / "cluster")
        if first is None:
            self.run("cluster", "init", "--name", name, "--dir", identity)
        else:
            invitation = str(directory / "invitation")
            first.run("cluster", "invite", name, "--output", invitation, "--dir", str(first.directory / "cluster"))
            self.run("cluster", "join", invitation, "--dir", identity)
        configuration = directory / "tmem.toml"
        configuration.write_text(CONFIGURATION.format(
            pool=pool, address=host.address, port=PORT, directory=directory, etcd=etcd.url, copies=copies, lend=lend
        ))
        super().__init__(binary, directory, ["--config", str(configuration)], host.place)

    def kill(self):
        """kill -9 of all of its processes: the keeper, the worker, and the one that stands by."""
        status = self.status()
        pids = [status["pid"], status["worker_pid"], status["spare_pid"]]
        for pid in filter(None, pids):
            # One may have ended because another one did.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def cluster_status(self):
        """What `tmem cluster status` prints."""
        return self.run("cluster", "status")
