"""Monitors of QEMU guests that are not there: each has a balloon that goes where it is told at once. A process of its own, so that what it
costs is nobody else's.

    python3 bench/monitors.py FOLDER COUNT

Makes FOLDER/guestNN.qmp for each, prints a line when all are there, and ends when its input does.
"""

import json
import pathlib
import selectors
import socket
import sys
import time

MIB = 1 << 20
GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}}, "capabilities": []}}


class Guest:
    def __init__(self, number):
        self.max = (512 + number) * MIB
        self.size = self.max

    def answer(self, command, arguments):
        if command == "balloon":
            self.size = min(arguments["value"], self.max)
        elif command == "query-balloon":
            return {"actual": self.size}
        elif command == "query-memory-size-summary":
            return {"base-memory": self.max, "plugged-memory": 0}
        elif command == "qom-list":
            return [{"name": "device[0]", "type": "child<virtio-balloon-pci>"}]
        elif command == "qom-get":
            return {"last-update": int(time.time()), "stats": {"stat-available-memory": self.size // 4}}
        return {}


def send(connection, message):
    connection.sendall(json.dumps(message).encode() + b"\r\n")


def main():
    folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    ready = selectors.DefaultSelector()
    ready.register(sys.stdin, selectors.EVENT_READ, None)
    for number in range(count):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / f"guest{number:02}.qmp"))
        listener.listen()
        ready.register(listener, selectors.EVENT_READ, Guest(number))
    print("ready", flush=True)
    rests = {}
    while True:
        for key, _events in ready.select():
            if key.data is None:
                return
            if key.fileobj not in rests:
                connection, _ = key.fileobj.accept()
                rests[connection] = b""
                ready.register(connection, selectors.EVENT_READ, key.data)
                send(connection, GREETING)
                continue
            got = key.fileobj.recv(65536)
            if not got:
                ready.unregister(key.fileobj)
                del rests[key.fileobj]
                continue
            *lines, rests[key.fileobj] = (rests[key.fileobj] + got).split(b"\n")
            for line in filter(None, map(bytes.strip, lines)):
                request = json.loads(line)
                send(key.fileobj, {"return": key.data.answer(request["execute"], request.get("arguments", {}))})


if __name__ == "__main__":
    main()
