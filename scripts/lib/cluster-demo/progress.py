"""How far things are, in one line on stderr."""

import shutil
import sys
import time

# Where lines are not drawn over: so often at least.
SILENT_SECONDS = 5


class ProgressLine:
    """On a terminal it is drawn in place; elsewhere a line is printed when what is done changes, or nothing was for a while."""

    def __init__(self):
        self.in_place = sys.stderr.isatty()
        self.started = time.monotonic()
        self.printed = None
        self.printed_at = 0

    def show(self, phase, standing):
        now = time.monotonic()
        line = f"{now - self.started:6.1f} s  {phase:34} {standing}"
        if self.in_place:
            # A line that wraps would not be drawn over.
            columns = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\033[2K{line[:columns]}")
        elif phase != self.printed or now - self.printed_at >= SILENT_SECONDS:
            self.printed, self.printed_at = phase, now
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def end(self):
        """Something else is printed next."""
        if self.in_place:
            sys.stderr.write("\n")
            sys.stderr.flush()
