"""Has gcc compile a source that takes more memory than the guest has, and runs the result.

The source is a large table and functions that scramble it. Python computes what the program has to print.
"""

import subprocess

from guest import data_bytes, finish, mix, phase

FUNCTIONS = 200
# What gcc 12 needs with -O2: so much for the functions and itself, and so much for each row of the table.
BASE_BYTES = 60 << 20
ROW_BYTES = 800
MASK = 0xFFFFFFFF

FUNCTION = """
uint32_t scramble_{n}(uint32_t x, const uint32_t *t)
{{
    uint32_t a = x ^ {a}u, b = x * {b}u;
    for (int i = 0; i < {loops}; i++) {{
        switch (a >> {shift} & 3) {{
        case 0: a += b ^ t[i & 7]; break;
        case 1: a = (a << {left}) ^ (a >> {right}) ^ {b}u; break;
        case 2: b -= a * {a}u; break;
        default: b ^= t[(a ^ b) & 7] + {n}u; a = a * {b}u + b; break;
        }}
    }}
    return a ^ b;
}}
"""


def numbers(n):
    """What makes function `n` differ from the others."""
    bits = mix(n + 1)
    return {
        "n": n,
        "a": bits & MASK,
        "b": bits >> 32 | 1,
        "loops": 8 + bits % 9,
        "shift": bits % 13,
        "left": 1 + bits % 7,
        "right": 3 + bits % 11,
    }


def scramble(x, t, n, a, b, loops, shift, left, right):
    """The same as FUNCTION, by another compiler."""
    key, odd = a, b
    a, b = x ^ key, x * odd & MASK
    for i in range(loops):
        way = a >> shift & 3
        if way == 0:
            a = a + (b ^ t[i & 7]) & MASK
        elif way == 1:
            a = (a << left & MASK) ^ (a >> right) ^ odd
        elif way == 2:
            b = b - a * key & MASK
        else:
            b ^= t[(a ^ b) & 7] + n & MASK
            a = a * odd + b & MASK
    return a ^ b


def row(i):
    bits = mix(i)
    return bits & MASK, bits >> 32 & 0xFFFF, f"row {bits >> 48:05d} of the table"


def write_source(path, rows):
    with open(path, "w") as source:
        source.write("#include <stdint.h>\n#include <stdio.h>\n")
        source.write("static const struct { uint32_t key; uint16_t kind; const char *name; } rows[] = {\n")
        for i in range(rows):
            key, kind, name = row(i)
            source.write(f'    {{{key}u, {kind}, "{name}"}},\n')
        source.write("};\n")
        for n in range(FUNCTIONS):
            source.write(FUNCTION.format(**numbers(n)))
        source.write("int main(void)\n{\n    uint32_t h = 1, t[8] = {1, 2, 3, 4, 5, 6, 7, 8};\n")
        for n in range(FUNCTIONS):
            source.write(f"    h = scramble_{n}(h, t);\n    t[h & 7] ^= h;\n")
        source.write("    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)\n")
        source.write("        for (const char *c = rows[i].name; *c; c++)\n")
        source.write("            h = (h ^ rows[i].key ^ rows[i].kind ^ (uint8_t)*c) * 16777619u;\n")
        source.write('    printf("%u\\n", h);\n}\n')


def expected_output(rows):
    h, t = 1, [1, 2, 3, 4, 5, 6, 7, 8]
    for n in range(FUNCTIONS):
        h = scramble(h, t, **numbers(n))
        t[h & 7] ^= h
    for i in range(rows):
        key, kind, name = row(i)
        for c in name.encode():
            h = (h ^ key ^ kind ^ c) * 16777619 & MASK
    return h


def main():
    rows = max(data_bytes() - BASE_BYTES, 1 << 20) // ROW_BYTES
    phase("writing the source")
    write_source("big.c", rows)
    phase("gcc -O2")
    subprocess.run(["gcc", "-O2", "-o", "big", "big.c"], check=True)
    phase("running the result")
    printed = subprocess.run(["./big"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    phase("computing it in python")
    expected = expected_output(rows)
    finish(int(printed != str(expected)), f"1 number from {rows} rows and {FUNCTIONS} functions: {printed}")


main()
