"""What happens in the demo, from the first node to the last page."""

import pathlib
import re
import shutil
import sys
import time

from daemon import DaemonError
from guest import MEMORY_MIB, Guest
from network import Host, make_switch
from node import Etcd, Node
from progress import ProgressLine

COPIES = 2
# Of each node. What the guest swaps out takes many times as much.
POOL_SIZE = "8M"
LEND = "512M"
DISK_SIZE = "2G"
DATA_MIB = {"full": 512, "quick": 256}
# Ample: what needs longer hangs.
STEP_SECONDS = {"full": 600, "quick": 150}
POLL_SECONDS = 0.5
# How far the guest is with its first round when a node is killed.
KILL_PERCENT = 40
GUEST = "guest"


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


class GuestEnded(Exception):
    """The guest has ended before it should."""


class Story:
    def __init__(self, options):
        self.tmem = options.tmem
        self.mode = "quick" if options.quick else "full"
        self.directory = pathlib.Path(options.directory)
        self.names = [f"node{number + 1}" for number in range(options.nodes)]
        # With a node more than copies need, the guest goes on writing while one is dead.
        self.has_spare = len(self.names) - 1 > COPIES
        self.guest = Guest(GUEST, "pages.py", DATA_MIB[self.mode])
        # Pages that came from peers while a node was dead.
        self.read_meanwhile = 0
        self.progress = ProgressLine()
        self.started = time.monotonic()

    def tell(self):
        """Returns the exit code."""
        self.check_shared_memory()
        self.start_nodes()
        self.boot_guest()
        try:
            self.lose_a_node()
            self.have_it_back()
            self.wait("the guest to end", lambda: not self.guest.is_running())
        except GuestEnded:
            self.progress.end()
        finally:
            self.guest.kill()
        return self.report()

    def check_shared_memory(self):
        """User-Mode Linux keeps a guest's memory in a file there, and dies by SIGBUS where it does not fit."""
        free_mib = shutil.disk_usage("/dev/shm").free >> 20
        if free_mib < MEMORY_MIB:
            raise DaemonError(
                f"/dev/shm has {free_mib} MiB free and the guest needs {MEMORY_MIB}; enlarge it: "
                f"mount -o remount,size=1G /dev/shm (in a container: --shm-size=1g)"
            )

    def start_nodes(self):
        make_switch()
        say(f"{len(self.names)} nodes at a switch of their own, each with a pool of {POOL_SIZE}, and etcd on another host, which says who is there")
        etcd = Etcd(Host(len(self.names) + 1), self.directory)
        etcd.wait_until_ready()
        self.nodes = []
        for number, name in enumerate(self.names):
            first = self.nodes[0] if self.nodes else None
            host = Host(number + 1)
            self.nodes.append(Node(self.tmem, self.directory, name, host, etcd, first, POOL_SIZE, LEND, COPIES))
        for node in self.nodes:
            node.wait_until_ready()
        self.borrower, self.victim = self.nodes[0], self.nodes[-1]
        self.wait("the nodes to find each other", lambda: all(self.lends(peer) for peer in self.peers()))
        self.show_cluster(self.borrower, "before any page is swapped")

    def boot_guest(self):
        (self.directory / "uml").mkdir()
        self.programs = self.directory / "guests"
        shutil.copytree(pathlib.Path(__file__).parent.parent.parent / "guests", self.programs)
        self.borrower.add_disk(GUEST, DISK_SIZE)
        say(f"a guest of {MEMORY_MIB} MiB on {self.borrower.name} fills {self.guest.data_mib} MiB, and compares it over and over")
        arguments = self.borrower.guest_arguments(GUEST, f"{MEMORY_MIB}M")
        if self.has_spare:
            arguments.append("TMEM_CHANGES=always")
        self.guest.boot(self.directory, arguments)

    def lose_a_node(self):
        self.wait("the guest to compare", self.is_half_way)
        self.show_cluster(self.borrower, "with all nodes there")
        say(f"kill -9 of all processes of tmem on {self.victim.name}")
        self.victim.kill()
        before = self.client()
        rounds = self.guest.rounds
        self.wait("its loss to be noticed", lambda: self.peer(self.victim)["state"] == "away")
        self.show_cluster(self.borrower, f"after {self.victim.name} was killed")
        if self.has_spare:
            say("the others have room for all copies: they are made anew there, and the guest goes on writing")
            self.wait_for_copies("the copies to be made anew")
        else:
            state = self.status["tiers"][0]["state"]
            say(f"one peer is fewer than {COPIES} copies need: the tier is {state}, and what is there comes from the copy that is left")
        self.wait("the guest to compare all", lambda: self.guest.rounds > rounds)
        after = self.client()
        self.read_meanwhile = after["tier_gets"] - before["tier_gets"]
        refused = after["refused_puts"] - before["refused_puts"]
        say(
            f"{self.guest.wrong_pages} pages are wrong after round {self.guest.rounds}; "
            f"since the kill {self.read_meanwhile} came from the peers, and {refused} were refused"
        )

    def have_it_back(self):
        say(f"{self.victim.name} is started again, with nothing of what it had")
        self.victim.start()
        self.victim.wait_until_ready()
        if self.has_spare:
            self.wait("it to be back", lambda: self.lends(self.peer(self.victim)))
        else:
            self.wait_for_copies("it to be back, and all to have their copies")
            self.show_cluster(self.victim, "which lends again")
        self.show_cluster(self.borrower, f"with {self.victim.name} back")
        say("the guest changes a quarter of its data, and compares all a last time")
        (self.programs / "is-back").touch()

    def wait_for_copies(self, what):
        began = time.monotonic()
        self.wait(what, self.is_whole)
        borrowing = self.borrowing()
        mib = borrowing["repaired_bytes"] / 2**20
        say(f"{borrowing['repaired_copies']} copies were made anew, {mib:.0f} MiB: after {time.monotonic() - began:.0f} s nothing lacks one")

    def is_half_way(self):
        """Whether the guest is far enough with its first round, and has pages at the peers."""
        percent = re.fullmatch(r"comparing, round 1, (\d+)%", self.guest.phase)
        return bool(percent) and int(percent[1]) >= KILL_PERCENT and self.borrowing()["extents"] > 0

    def is_whole(self):
        borrowing = self.borrowing()
        return borrowing["is_complete"] and borrowing["wanting_extents"] == 0

    def lends(self, peer):
        return peer["state"] == "connected" and peer["free_bytes"] > 0

    def borrowing(self):
        return self.status["cluster"]["borrowing"]

    def peers(self):
        """The other nodes, as the borrower sees them; those that it does not know yet are away."""
        known = {peer["name"]: peer for peer in self.borrowing()["peers"]}
        return [known.get(node.name, {"state": "away", "free_bytes": 0}) for node in self.nodes[1:]]

    def peer(self, node):
        return self.peers()[self.nodes.index(node) - 1]

    def client(self):
        self.status = self.borrower.status()
        return next((client for client in self.status["clients"] if client["name"] == GUEST), None)

    def wait(self, what, is_so):
        """Until something is so, and shows how things are."""
        deadline = time.monotonic() + STEP_SECONDS[self.mode]
        while True:
            client = self.client()
            self.progress.show(self.guest.phase if client else what, self.standing(client))
            if is_so():
                return self.progress.end()
            if client and not self.guest.is_running():
                raise GuestEnded
            if time.monotonic() > deadline:
                raise DaemonError(f"waited {STEP_SECONDS[self.mode]} s for {what}; the guest is {self.guest.phase}")
            time.sleep(POLL_SECONDS)

    def standing(self, client):
        borrowing = self.borrowing()
        there = sum(peer["state"] == "connected" for peer in self.peers())
        text = f"{there} of {len(self.nodes) - 1} peers there"
        if client:
            text += f"; {client['written_back_pages']} pages out, {client['tier_gets']} in; {borrowing['extents']} extents"
            if borrowing["wanting_extents"]:
                text += f", {borrowing['wanting_extents']} lack a copy"
        return text

    def show_cluster(self, node, when):
        say(f"tmem cluster status on {node.name}, {when}:")
        print(node.cluster_status(), flush=True)

    def report(self):
        client = self.client()
        borrowing = self.borrowing()
        self.show_cluster(self.borrower, "at the end")
        guest = self.guest
        lost = guest.wrong_pages + client["tier_errors"] + client["checksum_errors"]
        why = self.failure(client, borrowing)
        if why:
            print(f"cluster-demo: {why}. The guest's last console lines:", file=sys.stderr)
            for line in guest.console:
                print(f"    {line}", file=sys.stderr)
            print(f"The last words of the daemon on {self.borrower.name}:\n{self.borrower.log()}", file=sys.stderr)
        else:
            say(f"the guest verified {guest.detail}; its kernel swapped {guest.swapped_out_pages} pages out and {guest.swapped_in_pages} in")
        say(f"what went to peers' memory, came from it, and is lost (wrong, or not to be had), in {time.monotonic() - self.started:.0f} s:")
        print(
            f"cluster-demo: {client['written_back_pages']} pages out, {client['tier_gets']} in, {lost} lost: "
            f"{'NOT verified' if why else 'verified'}",
            flush=True,
        )
        return 1 if why else 0

    def failure(self, client, borrowing):
        """Why this is not verified; `None` if it is."""
        guest = self.guest
        if guest.exit_status is None:
            return guest.detail or f"the guest died while {guest.phase}"
        if guest.exit_status != 0 or not guest.claims_verified:
            return guest.detail or f"the guest's program ended with {guest.exit_status}"
        counts = {
            "pages that the guest found wrong": guest.wrong_pages,
            "gets that peers could not serve": client["tier_errors"],
            "checksum errors": client["checksum_errors"],
            "extents that nobody has any more": borrowing["lost_extents"],
        }
        wrong = [f"{count} {name}" for name, count in counts.items() if count]
        if wrong:
            return ", ".join(wrong)
        if not (client["written_back_pages"] and client["tier_gets"] and self.read_meanwhile and borrowing["repaired_copies"]):
            return "nothing went to peers, came from them while one was dead, or was repaired: so nothing was shown"
        return None
