"""Fills memory with pages, reads them over and over while the host does what it likes, and compares every one.

Until the host makes a file `is-back` beside this one, pages are only read; with TMEM_CHANGES=always a quarter is changed before each round. Then a
quarter is changed in any case, and all are compared a last time. A whole round ends with the line `@round NUMBER WRONG`.
"""

import hashlib
import mmap
import os

from guest import data_bytes, finish, mix, phase, scattered, steps

PAGE_BYTES = 4096
# Of <asm-generic/mman-common.h>; Python's mmap does not name it.
MADV_PAGEOUT = 21
# Pages that are neighbours are mostly used together.
RUN_PAGES = 16
# What is put out at a time.
PUT_OUT_BYTES = 4 << 20
# After so many pages the guest looks whether the host has said something.
ASKED_PAGES = 256
IS_BACK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "is-back")
WORDS = [f"{stem}{ending} ".encode() for stem in ("page", "node", "swap", "copy", "peer", "host") for ending in ("", "s", "ed", "ing")]
# A quarter of a page is noise, and the rest text: so it compresses about as well as what programs have in memory.
NOISE_BYTES = 1024


def contents(number, version):
    noise = hashlib.shake_128(b"%d %d" % (number, version)).digest(NOISE_BYTES)
    text = b"page %d, version %d: " % (number, version) + b"".join(WORDS[die % len(WORDS)] for die in noise[:64])
    return noise + (text * (PAGE_BYTES // len(text) + 1))[: PAGE_BYTES - NOISE_BYTES]


class Pages:
    def __init__(self, count):
        self.count = count // RUN_PAGES * RUN_PAGES
        # Private: of shared memory a page that was swapped in is written out again, whether or not it was changed.
        self.memory = mmap.mmap(-1, self.count * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.versions = bytearray(self.count)
        self.wrong = set()
        self.round = 0

    def write(self, number):
        self.memory[number * PAGE_BYTES : (number + 1) * PAGE_BYTES] = contents(number, self.versions[number])

    def put_out(self):
        """Has the kernel write all of it to swap, so that it can drop what is only read from then on."""
        starts = range(0, len(self.memory), PUT_OUT_BYTES)
        for start in steps("swapping out", starts, len(starts)):
            self.memory.madvise(MADV_PAGEOUT, start, min(PUT_OUT_BYTES, len(self.memory) - start))

    def in_runs(self):
        """All numbers, some neighbours at a time, in an order without locality beyond that."""
        for run in scattered(self.count // RUN_PAGES):
            yield from range(run * RUN_PAGES, (run + 1) * RUN_PAGES)

    def fill(self):
        for number in steps("filling", range(self.count), self.count):
            self.write(number)

    def change(self):
        """A quarter of them, after each round another one."""
        changed = [number for number in range(self.count) if mix(number // RUN_PAGES + self.round) % 4 == 0]
        for number in steps("changing a quarter,", changed, len(changed)):
            self.versions[number] += 1
            self.write(number)

    def compare(self, name, goes_on=lambda: True):
        """A round, unless it does not go on: that is asked for now and then."""
        for done, number in enumerate(steps(f"comparing, {name},", self.in_runs(), self.count)):
            if done % ASKED_PAGES == 0 and not goes_on():
                return
            page = self.memory[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
            if page != contents(number, self.versions[number]):
                self.wrong.add(number)
        self.round += 1
        print(f"@round {self.round} {len(self.wrong)}", flush=True)


def main():
    pages = Pages(data_bytes() // PAGE_BYTES)
    always_changes = os.environ.get("TMEM_CHANGES") == "always"
    pages.fill()
    pages.put_out()
    goes_on = lambda: not os.path.exists(IS_BACK)
    while goes_on():
        if always_changes:
            pages.change()
        pages.compare(f"round {pages.round + 1}", goes_on)
    pages.change()
    pages.compare("last round")
    finish(len(pages.wrong), f"{pages.count} pages, compared in {pages.round} whole rounds")


main()
