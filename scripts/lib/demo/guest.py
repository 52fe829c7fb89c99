"""One User-Mode Linux guest: a real kernel in a process, that swaps on a vhost-user disk and runs one program."""

import collections
import os
import signal
import subprocess
import threading
import time

MEMORY_MIB = 192
CONSOLE_LINES = 15
PAGE_BYTES = 4096
FEW_PAGES = 256


class Guest:
    def __init__(self, name, program, data_mib):
        self.name = name
        self.program = program
        self.data_mib = data_mib
        self.phase = "booting"
        self.detail = ""
        self.claims_verified = False
        self.exit_status = None
        self.rounds = 0
        self.wrong_pages = 0
        self.swapped_out_pages = 0
        self.swapped_in_pages = 0
        self.peak_stored_pages = 0
        self.ratio = None
        self.client = None
        self.seconds = None
        self.console = collections.deque(maxlen=CONSOLE_LINES)

    def boot(self, directory, arguments):
        """Starts the guest. `directory` holds the guests' programs; its path has no spaces."""
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [
                "linux.uml", *arguments, "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro",
                f"init={directory}/guests/init.sh", f"TMEM_PROGRAM={self.program}", f"TMEM_DATA_MIB={self.data_mib}",
                "con=null", "con0=null,fd:1", "quiet", "panic=-1",
                f"uml_dir={directory}/uml", f"umid={self.name}",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )
        self.reader = threading.Thread(target=self.read_console, daemon=True)
        self.reader.start()

    def read_console(self):
        for line in self.process.stdout:
            line = line.decode(errors="replace").strip()
            if not line:
                continue
            self.console.append(line)
            word, _, rest = line.partition(" ")
            if word == "@phase":
                self.phase = rest
            elif word == "@verified":
                self.claims_verified, self.detail = True, rest
            elif word == "@failed":
                self.detail = rest
            elif word == "@round":
                self.rounds, self.wrong_pages = map(int, rest.split())
            elif word == "@swap":
                self.swapped_out_pages, self.swapped_in_pages = map(int, rest.split())
            elif word == "@exit":
                self.exit_status = int(rest)
                self.phase = "ended"

    def observe(self, client):
        """Takes note of what the pool holds for this guest: an entry of `clients` in the daemon's status."""
        self.client = client
        # The first few pages are the swap area's header and the like: their ratio says nothing yet.
        if client["stored_pages"] > max(self.peak_stored_pages, FEW_PAGES) and client["used_bytes"] > 0:
            self.ratio = client["stored_pages"] * PAGE_BYTES / client["used_bytes"]
        self.peak_stored_pages = max(self.peak_stored_pages, client["stored_pages"], client.get("peak_stored_pages", 0))

    def is_running(self):
        # WNOWAIT: the process stays a zombie, so that nobody else gets its id before kill() has used it.
        if self.seconds is None and os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            self.kill()
        return self.seconds is None

    def kill(self):
        """Ends the guest and the helper processes that its kernel leaves behind, all of them in its process group."""
        if self.seconds is None:
            self.seconds = time.monotonic() - self.started
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.reader.join(5)

    def failure(self):
        """Why the guest did not verify its result; None if it did."""
        if self.exit_status is None:
            return self.detail or f"died while {self.phase}"
        if self.exit_status != 0 or not self.claims_verified:
            return self.detail or f"its program ended with {self.exit_status}"
        if self.swapped_out_pages == 0 or self.peak_stored_pages == 0:
            return "it never swapped, so nothing was shown"
        if self.client["checksum_errors"] or self.client["refused_puts"]:
            return f"{self.client['checksum_errors']} checksum errors, {self.client['refused_puts']} refused puts"
        return None
