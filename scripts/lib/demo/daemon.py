"""The tmem daemon: started in a directory of its own, asked for its status, stopped."""

import json
import pathlib
import subprocess
import time

START_SECONDS = 15
COMMAND_SECONDS = 30


class DaemonError(Exception):
    """The daemon did not do what was asked; the text says what it said."""


class Daemon:
    def __init__(self, binary, directory, serve, place=()):
        """Starts it. `serve` is what `tmem serve` is told, `place` a command in whose surroundings it runs."""
        self.binary = binary
        self.directory = pathlib.Path(directory)
        self.log_path = self.directory / "daemon.log"
        self.serve = [*place, *self.command("serve", *serve)]
        self.start()

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.serve, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def command(self, *arguments):
        return [self.binary, "--runtime-dir", str(self.directory / "tmem"), *arguments]

    def run(self, *arguments):
        """Runs a tmem command against the daemon and returns what it printed."""
        done = subprocess.run(
            self.command(*arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
        if done.returncode != 0:
            raise DaemonError(f"tmem {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.status()
            except DaemonError as error:
                if self.process.poll() is not None:
                    raise
                if time.monotonic() > deadline:
                    raise DaemonError(f"tmem serve is not ready after {START_SECONDS} s: {error}") from error
            time.sleep(0.1)

    def add_disk(self, name, size):
        """Makes a disk."""
        self.run("disk", "add", name, "--size", size, "--vhost-user", str(self.directory / f"{name}.sock"))

    def guest_arguments(self, name, memory):
        """What a User-Mode Linux guest with so much memory needs on its command line to have this disk."""
        return self.run("guest-config", name, "--vmm", "uml", "--memory", memory, "--args-only").splitlines()

    def status(self):
        if self.process.poll() is not None:
            raise DaemonError(f"tmem serve ended with {self.process.returncode}; its last words:\n{self.log()}")
        return json.loads(self.run("status", "--json"))

    def log(self):
        return self.log_path.read_text(errors="replace")[-2000:].strip()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
