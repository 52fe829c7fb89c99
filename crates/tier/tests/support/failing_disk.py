"""A file system in user space with one file, `disk`, whose reads and writes fail as they are told to.

Usage: failing_disk.py DIRECTORY. Commands come on standard input, each is answered with `ok`:
    reads ANSWER, writes ANSWER   where ANSWER is `ok`, the name of an error (EIO), or `hold`: no answer until `release`
    exists yes|no                 whether the file can be found
    release                       carries out what is held
    await                         is answered when something is held
Ends, and takes the file system with it, at the end of its input.
"""

import ctypes
import errno
import os
import select
import stat
import struct
import sys

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = 1, 2, 3, 4, 14, 15, 16, 17, 18
FLUSH, INIT, OPENDIR, RELEASEDIR, INTERRUPT, BATCH_FORGET, FALLOCATE = 25, 26, 27, 29, 36, 42, 43
SET_SIZE = 8
BIG_WRITES, ASYNC_DIO, MAX_PAGES = 1 << 5, 1 << 15, 1 << 22
MAX_BYTES = 1 << 20

contents = bytearray()
answers = {READ: "ok", WRITE: "ok"}
held = []
is_awaited = False
exists = True

device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"failing-disk", sys.argv[1].encode(), b"fuse", 0, options.encode()) != 0:
    sys.exit("mount: " + os.strerror(ctypes.get_errno()))


def attributes(node):
    mode, size = (stat.S_IFDIR | 0o755, 0) if node == 1 else (stat.S_IFREG | 0o600, len(contents))
    return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def reply(unique, data=b"", error=0):
    os.write(device, struct.pack("<IiQ", 16 + len(data), -error, unique) + data)


def carry_out(opcode, unique, body):
    offset, size = struct.unpack_from("<QI", body, 8)
    if opcode == READ:
        reply(unique, bytes(contents[offset : offset + size]))
        return
    data = body[40 : 40 + size]
    if offset + size > len(contents):
        contents.extend(bytes(offset + size - len(contents)))
    contents[offset : offset + size] = data
    reply(unique, struct.pack("<II", size, 0))


def serve(request):
    _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
    body = request[40:]
    if opcode == INIT:
        flags = BIG_WRITES | ASYNC_DIO | MAX_PAGES
        reply(unique, struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, flags, 64, 48, MAX_BYTES, 1, MAX_BYTES // 4096, 0, 0))
    elif opcode == LOOKUP:
        if exists and body.rstrip(b"\0") == b"disk":
            reply(unique, struct.pack("<QQQQII", 2, 0, 0, 0, 0, 0) + attributes(2))
        else:
            reply(unique, error=errno.ENOENT)
    elif opcode in (GETATTR, SETATTR):
        if opcode == SETATTR and struct.unpack_from("<I", body)[0] & SET_SIZE:
            size = struct.unpack_from("<Q", body, 16)[0]
            del contents[size:]
            contents.extend(bytes(size - len(contents)))
        reply(unique, struct.pack("<QII", 0, 0, 0) + attributes(node))
    elif opcode in (OPEN, OPENDIR):
        reply(unique, struct.pack("<QII", 0, 0, 0))
    elif opcode in (READ, WRITE):
        answer = answers[opcode]
        if answer == "ok":
            carry_out(opcode, unique, body)
        elif answer == "hold":
            held.append((opcode, unique, body))
            tell_awaiting()
        else:
            reply(unique, error=getattr(errno, answer))
    elif opcode == FALLOCATE and answers[WRITE] not in ("ok", "hold"):
        reply(unique, error=getattr(errno, answers[WRITE]))
    elif opcode in (RELEASE, RELEASEDIR, FLUSH, FALLOCATE):
        reply(unique)
    elif opcode not in (FORGET, BATCH_FORGET, INTERRUPT):
        reply(unique, error=errno.ENOSYS)


def tell_awaiting():
    global is_awaited
    if is_awaited and held:
        is_awaited = False
        print("ok", flush=True)


def obey(line):
    global exists, is_awaited
    command, *rest = line.split()
    if command == "await":
        is_awaited = True
        tell_awaiting()
        return
    if command == "release":
        for request in held:
            carry_out(*request)
        held.clear()
    elif command == "exists":
        exists = rest[0] == "yes"
    else:
        answers[{"reads": READ, "writes": WRITE}[command]] = rest[0]
    print("ok", flush=True)


print("ok", flush=True)
while True:
    ready = select.select([device, sys.stdin], [], [])[0]
    if sys.stdin in ready:
        line = sys.stdin.readline()
        if not line:
            break
        obey(line)
    if device in ready:
        try:
            serve(os.read(device, MAX_BYTES + 65536))
        except OSError as error:
            if error.errno == errno.ENODEV:
                break
            if error.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                raise
