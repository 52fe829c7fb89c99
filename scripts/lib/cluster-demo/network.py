"""Hosts of the demo's own: network namespaces with an address each, at one switch."""

import subprocess

from daemon import DaemonError

# Of the block for benchmarks (RFC 2544): nobody's network, and only the demo's namespaces have it.
ADDRESS = "198.18.0.{}"


class Host:
    """Number `number` at the switch, which is a bridge in this process's own network namespace."""

    def __init__(self, number):
        self.address = ADDRESS.format(number)
        # The process that holds the namespace.
        self.holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo up; exec sleep infinity"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
        )
        if self.holder.stdout.readline() != b"up\n":
            raise DaemonError("cannot make a network namespace; in a container that takes the capability CAP_SYS_ADMIN")
        self.place = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"]
        port = f"port{number}"
        ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(self.holder.pid))
        ip("link", "set", port, "master", "switch", "up")
        ip("link", "set", "lo", "up", place=self.place)
        ip("addr", "add", f"{self.address}/24", "dev", "eth0", place=self.place)
        ip("link", "set", "eth0", "up", place=self.place)


def make_switch():
    ip("link", "add", "switch", "type", "bridge")
    ip("link", "set", "switch", "up")


def ip(*arguments, place=()):
    done = subprocess.run([*place, "ip", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise DaemonError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
