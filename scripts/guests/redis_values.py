"""Fills a redis-server with documents, changes some, and compares every one of them with what it should be."""

import hashlib
import socket
import subprocess
import time

from guest import data_bytes, finish, mix, scattered, steps

SOCKET = "/run/redis.sock"
# What one document takes in redis-server, key and allocator included.
DOCUMENT_BYTES = 2900
BATCH = 64
STEMS = ["page", "guest", "swap", "memory", "pool", "cache", "disk", "host", "ring", "queue", "slot", "zone"]
WORDS = [(stem + ending).encode() for stem in STEMS for ending in ("", "s", "ed", "ing", "er", " of", " and", ", the")]


def document(number, version):
    """About 2 KiB of words."""
    dice = hashlib.shake_128(f"{number} {version}".encode()).digest(320)
    return b" ".join(WORDS[die % len(WORDS)] for die in dice)


class Redis:
    """A connection that sends commands in batches (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.answers = self.socket.makefile("rb")

    def batch(self, commands):
        """Sends the commands, and returns as many answers."""
        commands = list(commands)
        sent = bytearray()
        for parts in commands:
            sent += b"*%d\r\n" % len(parts)
            for part in parts:
                sent += b"$%d\r\n%s\r\n" % (len(part), part)
        self.socket.sendall(sent)
        return [self.answer() for _ in commands]

    def answer(self):
        line = self.answers.readline().rstrip(b"\r\n")
        if line[:1] == b"$":
            length = int(line[1:])
            return None if length < 0 else self.answers.read(length + 2)[:-2]
        if line[:1] in (b"+", b":"):
            return line[1:]
        raise RuntimeError(f"redis-server says {line!r}")


def start():
    command = ["redis-server", "--port", "0", "--unixsocket", SOCKET, "--save", "", "--appendonly", "no"]
    log = open("/run/redis.log", "wb")
    server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/run")
    for _ in range(100):
        try:
            return Redis(SOCKET)
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit("redis-server did not start: " + open("/run/redis.log").read())


def batches(numbers):
    batch = []
    for number in numbers:
        batch.append(number)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def key(number):
    return b"document:%d" % number


def main():
    count = data_bytes() // DOCUMENT_BYTES
    changed = lambda number: mix(number) % 4 == 0
    redis = start()
    for batch in steps("filling", batches(range(count)), count // BATCH):
        redis.batch([b"SET", key(number), document(number, 0)] for number in batch)
    for batch in steps("changing", batches(filter(changed, range(count))), count // BATCH // 4):
        redis.batch([b"SET", key(number), document(number, 1)] for number in batch)
    right = 0
    for batch in steps("comparing", batches(scattered(count)), count // BATCH):
        for number, got in zip(batch, redis.batch([b"GET", key(number)] for number in batch)):
            right += got == document(number, int(changed(number)))
    finish(count - right, f"{count} documents")


main()
