"""What the demo's guest programs have in common: lines for the host, and repeatable choices."""

import sys


def data_bytes():
    """How much data to hold, from the command line: a number of MiB."""
    return int(sys.argv[1]) << 20


def phase(text):
    """Tells the host what is going on."""
    print(f"@phase {text}", flush=True)


def steps(name, items, total):
    """Passes the items on, and tells the host how far it is, five times in all."""
    for count, item in enumerate(items):
        if count % (total // 5 + 1) == 0:
            phase(f"{name} {100 * count // total}%")
        yield item


def finish(wrong, text):
    """Ends the program. `wrong` counts what did not compare equal; `text` says what was compared."""
    if wrong:
        print(f"@failed {wrong} wrong of {text}", flush=True)
        sys.exit(1)
    print(f"@verified {text}", flush=True)
    sys.exit(0)


def mix(number):
    """Scatters the bits of a number: a 64-bit one that looks random and is the same every time."""
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return number ^ (number >> 31)


def scattered(count, step=7_368_787):
    """Every number below `count` once, in an order without locality. `step` is a prime larger than any count here."""
    return (index * step % count for index in range(count))
