"""The process behind `loaded_command`: it has imported the whole command, and forks for each order.

An order arrives over the socket whose descriptor is the argument: a length, four descriptors (for the status of the
process, and its three standard streams), and JSON of that length. The process id is reported, and then the exit code.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import atom_saas_sync

_FIRST_OTHER_DESCRIPTOR = 3
_MORE_THAN_ANY_DESCRIPTOR = 256
_IMPORTED_LATE = (
    *("encodings.idna", "httpx", "importlib.readers", "rich.console", "rich.table", "sqlite_utils"),
    *("tenacity", "typer._adapters", "websockets.asyncio.client"),
)
_LARGE_PAGE = 1 << 21
_MADV_COLLAPSE = 25


def _load() -> None:
    for module in pkgutil.walk_packages(atom_saas_sync.__path__, "atom_saas_sync."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in _IMPORTED_LATE:
        importlib.import_module(name)
    # These import the rest when they are first used: to convert a number that is given, and to measure a text.
    importlib.import_module("pydantic").TypeAdapter(int)
    importlib.import_module("rich.cells").cell_len("日")
    # Half of a short command's time is spent making it from its function's annotations.
    typer_main: Any = importlib.import_module("typer.main")
    typer_main.get_command = functools.cache(typer_main.get_command)
    _make_all(typer_main.get_command(importlib.import_module("atom_saas_sync.cli.main").app))


def _make_all(command: Any) -> None:
    for name in getattr(command, "commands", {}):
        _make_all(command.commands[name])


def _use_large_pages() -> None:
    """Let the kernel move our memory to large pages, if it can: a fork copies an entry for each page."""
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text(encoding="ascii").splitlines():
        addresses, rights, _, _, inode, *_ = line.split()
        if rights == "rw-p" and inode == "0":
            first, last = (int(each, 16) for each in addresses.split("-"))
            first, last = -(-first // _LARGE_PAGE) * _LARGE_PAGE, last // _LARGE_PAGE * _LARGE_PAGE
            if first < last:
                libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_COLLAPSE)


def _hurry() -> None:
    """Replace every pause of the command by moving its clock."""
    from atom_saas_sync.cli.runtime import RunClock

    skipped = 0.0

    def skip(self: RunClock, seconds: float, _over: threading.Event | None = None) -> None:
        nonlocal skipped
        skipped += seconds
        self.check()

    clock: Any = RunClock
    clock.sleep = skip
    clock.now = lambda _self: datetime.now(UTC) + timedelta(seconds=skipped)
    clock.monotonic = lambda _self: time.monotonic() + skipped


def _start_anew(order: dict[str, Any], streams: list[int]) -> None:
    """Reset this process to the state of a new one."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    os.chdir(order["directory"])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(_FIRST_OTHER_DESCRIPTOR, _MORE_THAN_ANY_DESCRIPTOR)
    if order["new_session"]:
        os.setsid()
    if order["umask"] >= 0:
        os.umask(order["umask"])
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # type: ignore[misc]  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )


def _run(order: dict[str, Any]) -> int:
    code: Any = 1
    try:
        if order["hurried"]:
            _hurry()
        sys.argv = ["atom-sync", *order["arguments"]]
        exec(order["first"], {"__name__": "__main__"})
        if order["code"] is None:
            runpy.run_module("atom_saas_sync", run_name="__main__")
        else:
            exec(order["code"], {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):
            sys.stderr.write(f"{code}\n")
            code = 1
    except BaseException:  # noqa: BLE001 - as the interpreter does at its end
        traceback.print_exc()
    getattr(threading, "_shutdown")()  # noqa: B009 - waits for threads, as the end of the interpreter does
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return int(code)


def _serve(orders: socket.socket) -> None:
    running: dict[int, int] = {}
    ended, wake = os.pipe()
    os.set_blocking(ended, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake)
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == ended:
                    os.read(ended, 4096)
                    _tell_ends(running)
                    continue
                head, descriptors, _, _ = socket.recv_fds(orders, 4, 4)
                if not head:
                    return
                order = json.loads(orders.recv(struct.unpack("!I", head)[0], socket.MSG_WAITALL))
                told, *streams = descriptors
                if (pid := os.fork()) == 0:
                    code = 1
                    try:
                        _start_anew(order, streams)
                        code = _run(order)
                    finally:
                        os._exit(code)
                os.write(told, b"%d\n" % pid)
                running[pid] = told
                for stream in streams:
                    os.close(stream)


def _tell_ends(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        told = running.pop(pid)
        os.write(told, b"%d\n" % os.waitstatus_to_exitcode(status))
        os.close(told)


if __name__ == "__main__":
    _load()
    gc.collect()
    gc.freeze()
    _use_large_pages()
    _serve(socket.socket(fileno=int(sys.argv[1])))
