"""What the user sees: progress on stderr while guests run, and the table at the end."""

import shutil
import sys
import time

PAGE_BYTES = 4096


def mib(pages):
    return f"{pages * PAGE_BYTES / 2**20:.0f} MiB"


class Progress:
    """On a terminal the lines are drawn in place; elsewhere a line is printed when a guest's phase changes."""

    def __init__(self):
        self.in_place = sys.stderr.isatty()
        self.drawn = 0
        self.printed = {}
        self.started = time.monotonic()

    def show(self, guests):
        lines = []
        for guest in guests:
            stored = guest.client["stored_pages"] if guest.client else 0
            pool = f"{stored:7d} pages in the pool ({mib(stored)}"
            pool += f", {guest.ratio:.1f}x)" if guest.ratio else ")"
            phase = guest.phase
            if not guest.is_running():
                phase = "FAILED" if guest.failure() else "VERIFIED"
            lines.append((guest.name, phase, f"{guest.name:8} {phase:22} {pool}"))
        if self.in_place:
            up = f"\033[{self.drawn}A" if self.drawn else ""
            seconds = time.monotonic() - self.started
            # A line that wraps would not be drawn over.
            columns = shutil.get_terminal_size().columns - 1
            drawn = [f"    {seconds:.0f} s", *(f"    {line}" for _, _, line in lines)]
            sys.stderr.write(up + "".join(f"\033[2K{line[:columns]}\n" for line in drawn))
            self.drawn = len(drawn)
        else:
            for name, phase, line in lines:
                if self.printed.get(name) != phase:
                    self.printed[name] = phase
                    sys.stderr.write(f"{time.monotonic() - self.started:6.1f} s  {line}\n")
        sys.stderr.flush()


def table(guests, memory_mib):
    """The results, one line per guest."""
    rows = [("guest", "memory", "data", "peak in the pool", "swapped out", "swapped in", "ratio", "time", "result")]
    for guest in guests:
        rows.append((
            guest.name, f"{memory_mib} MiB", f"{guest.data_mib} MiB",
            f"{guest.peak_stored_pages} pages, {mib(guest.peak_stored_pages)}",
            mib(guest.swapped_out_pages), mib(guest.swapped_in_pages),
            f"{guest.ratio:.1f}x" if guest.ratio else "-",
            f"{guest.seconds:.0f} s", "FAILED" if guest.failure() else "VERIFIED",
        ))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def as_json(guests, memory_mib):
    """The same, for machines."""
    return [
        {
            "name": guest.name,
            "memory_bytes": memory_mib << 20,
            "data_bytes": guest.data_mib << 20,
            "peak_stored_pages": guest.peak_stored_pages,
            "swapped_out_pages": guest.swapped_out_pages,
            "swapped_in_pages": guest.swapped_in_pages,
            "ratio": guest.ratio and round(guest.ratio, 2),
            "seconds": round(guest.seconds, 1),
            "result": "FAILED" if guest.failure() else "VERIFIED",
            "detail": guest.failure() or guest.detail,
        }
        for guest in guests
    ]
