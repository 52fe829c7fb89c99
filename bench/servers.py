"""What the benchmark scripts share: starting tmem and its rival, and ending them again."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CORPUS = ROOT / "target/bench/corpus.pages"


def say(text):
    print(text, file=sys.stderr, flush=True)


def add_arguments(parser):
    parser.add_argument("--tmem", type=pathlib.Path, help="the tmem binary (default: built from this tree, release)")
    parser.add_argument("--pages", type=pathlib.Path, default=CORPUS, help="file of real pages (default: bench/corpus makes it)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def binary(given):
    """The tmem binary: the one that was given, or else built from this tree."""
    if given is None:
        say("building tmem")
        subprocess.run(["cargo", "build", "--release", "--package", "tmem"], cwd=ROOT, check=True)
        given = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute() / "release/tmem"
    if not given.exists():
        sys.exit(f"{given}: no such file; --tmem names the binary")
    # Guests have another working directory.
    return given.absolute()


def prepare(options, rival="qemu-storage-daemon", package="qemu-utils (QEMU 10 from backports)"):
    """Makes sure of the binary, the pages and the rival, and that whoever ends the script ends what it started."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    if not shutil.which(rival):
        sys.exit(f"{rival} is missing: apt-get install {package}")
    options.tmem = binary(options.tmem)
    if not options.pages.exists():
        say("making a file of real pages")
        subprocess.run([ROOT / "bench/corpus", "--tmem", options.tmem, "--out", options.pages], check=True)
    busy = busy_share()
    if busy > 0.1:
        say(f"WARNING: other programs use {busy:.0%} of the processors, figures will be off")


def compile_program(source, target):
    """One of the C programs beside this file."""
    source = pathlib.Path(__file__).resolve().parent / source
    subprocess.run(["gcc", "-O2", "-Wall", "-static", "-o", target, source, "-lm"], check=True)


def make_image(path, mib):
    """A file of zeroes on the disk. Written once, so that no write has the file system find space."""
    subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={mib}", "oflag=direct", "status=none"], check=True)


def busy_share(seconds=1):
    """Share of the processors' time that is not idle, watched for a while."""
    def times():
        fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    (total, idle), _, (total_after, idle_after) = times(), time.sleep(seconds), times()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def wait_for(path, process, name, seconds=20):
    end = time.monotonic() + seconds
    while not pathlib.Path(path).exists():
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended at once with exit code {process.returncode}")
        if time.monotonic() > end:
            raise RuntimeError(f"{name}: {path} did not appear within {seconds} s")
        time.sleep(0.02)


def end(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclasses.dataclass(frozen=True)
class Rival:
    """qemu-storage-daemon with a raw file on tmpfs, and an iothread of its own."""

    aio: str = "native"
    poll_max_ns: int = 32768
    queues: int = 1

    @property
    def name(self):
        return f"aio={self.aio}, poll-max-ns={self.poll_max_ns}, {self.queues} queue{'s' if self.queues > 1 else ''}"

    @contextlib.contextmanager
    def disk(self, size_bytes):
        """A running server: yields (socket, process)."""
        with tempfile.TemporaryDirectory(prefix="tmem-bench-") as folder, tempfile.NamedTemporaryFile(
            prefix="tmem-bench-", suffix=".raw", dir="/dev/shm"
        ) as image:
            # Its memory is there before the clock runs: to find pages for a file on tmpfs is not the server's work.
            os.posix_fallocate(image.fileno(), 0, size_bytes)
            socket = f"{folder}/rival.sock"
            direct = ",cache.direct=on" if self.aio == "native" else ""
            with storage_daemon(socket, f"filename={image.name},aio={self.aio}{direct}", f"poll-max-ns={self.poll_max_ns}", self.queues) as process:
                yield socket, process


@contextlib.contextmanager
def file_disk(image):
    """qemu-storage-daemon with a file on this machine's disk, past its page cache: yields the socket."""
    with tempfile.TemporaryDirectory(prefix="tmem-bench-") as folder:
        socket = f"{folder}/disk.sock"
        with storage_daemon(socket, f"filename={image},aio=native,cache.direct=on"):
            yield socket


@contextlib.contextmanager
def storage_daemon(socket, file, iothread="", queues=1):
    """qemu-storage-daemon with one disk over vhost-user and an iothread of its own: yields its process."""
    process = subprocess.Popen([
        "qemu-storage-daemon",
        "--blockdev", f"driver=file,node-name=disk,{file}",
        "--object", ",".join(filter(None, ["iothread,id=io", iothread])),
        "--export", f"type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={socket},"
                    f"writable=on,logical-block-size=4096,iothread=io,num-queues={queues}",
    ])  # fmt: skip
    try:
        wait_for(socket, process, "qemu-storage-daemon")
        yield process
    finally:
        end(process)


class Daemon:
    """A running daemon of ours, without HTTP."""

    def __init__(self, folder, command, process):
        self.folder, self.command, self.process = folder, command, process

    def tell(self, *words):
        """A command to it; gives what that prints."""
        return subprocess.run([*self.command, *words], check=True, stdout=subprocess.PIPE).stdout


@contextlib.contextmanager
def daemon(tmem, *serve, before=(), log_level="warn"):
    """`tmem serve` with these flags, started by the command `before`: yields a Daemon."""
    with tempfile.TemporaryDirectory(prefix="tmem-bench-") as folder:
        command = [tmem, "--runtime-dir", folder]
        serve = [*command, "serve", "--http", "off", "--log-level", log_level, *serve]
        process = subprocess.Popen([*before, *serve], stdout=subprocess.DEVNULL)
        try:
            wait_for(f"{folder}/admin.sock", process, "tmem serve")
            yield Daemon(pathlib.Path(folder), command, process)
        finally:
            end(process)


@dataclasses.dataclass(frozen=True)
class Tmem:
    """tmem serve with one disk, everything else at its defaults but what `serve` says."""

    binary: pathlib.Path
    queues: int = 1
    poll_us: int | None = None
    serve: tuple[str, ...] = ()

    @property
    def name(self):
        poll = "" if self.poll_us is None else f", poll-us={self.poll_us}"
        return f"{self.queues} queue{'s' if self.queues > 1 else ''}{poll}"

    @contextlib.contextmanager
    def disk(self, size_bytes, pool="4G", frontend="--vhost-user"):
        """A running server with an empty unformatted disk: yields (socket, process)."""
        poll = [] if self.poll_us is None else ["--poll-us", str(self.poll_us)]
        with daemon(self.binary, "--pool-size", pool, *poll, *self.serve) as running:
            socket = f"{running.folder}/disk.sock"
            queues = ["--queues", str(self.queues)] if frontend == "--vhost-user" else []
            # The pages are drawn from a corpus, each many times: sharing them would make the disk look smaller than one is.
            running.tell("disk", "add", "bench", "--size", str(size_bytes), frontend, socket, "--format", "none", *queues, "--dedup", "off")
            wait_for(socket, running.process, "tmem disk add")
            yield socket, running.process
