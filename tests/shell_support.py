"""A fast-starting `atom-sync` for shells.

It passes its arguments, environment, directory and streams to the process of the tests, which runs the command in a
fork and returns its exit code.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loaded_command import start_command

_PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as tests:
    tests.connect({address!r})
    order = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
    socket.send_fds(tests, [len(order).to_bytes(4, "big")], [0, 1, 2])
    tests.sendall(order)
    told = tests.makefile()
    pid = int(told.readline())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    code = int(told.readline())
sys.exit(code if code >= 0 else 128 - code)
"""


@contextmanager
def quick_program() -> Iterator[Path]:
    """Write the program to a new directory, for PATH; commands are killed with their program."""
    with (
        tempfile.TemporaryDirectory() as programs,  # a socket's address must be short
        socket.socket(socket.AF_UNIX) as listener,
    ):
        program = Path(programs) / "atom-sync"
        address = f"{programs}/socket"
        program.write_text(_PROGRAM.format(python=sys.executable, address=address), encoding="utf-8")
        program.chmod(0o755)
        listener.bind(address)
        listener.listen()
        accepting = threading.Thread(target=_accept, args=[listener], daemon=True)
        accepting.start()
        try:
            yield Path(programs)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(60)


def _accept(listener: socket.socket) -> None:
    running = []
    while True:
        try:
            program, _ = listener.accept()
        except OSError:  # the end
            break
        running.append(threading.Thread(target=_run, args=[program], daemon=True))
        running[-1].start()
    for each in running:
        each.join(60)


def _run(program: socket.socket) -> None:
    with program:
        size, streams, _, _ = socket.recv_fds(program, 4, 3)
        arguments, environment, directory = json.loads(program.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        stdin, stdout, stderr = streams
        command = start_command(
            *arguments,
            environment=environment,
            directory=Path(directory),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        for each in streams:
            os.close(each)
        program.sendall(b"%d\n" % command.pid)

        def tell_end() -> None:
            code = command.wait()
            with suppress(OSError):  # the program was killed
                program.sendall(b"%d\n" % code)

        waiting = threading.Thread(target=tell_end, daemon=True)
        waiting.start()
        program.recv(1)  # the program has ended
        command.kill()
        waiting.join(60)
