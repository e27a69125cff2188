"""Notify systemd about a service (sd_notify(3)); does nothing without systemd."""

from __future__ import annotations

import socket
import time


class Notifier:
    """Sends to the socket in $NOTIFY_SOCKET.

    `watchdog_seconds` is the keep-alive interval, None if systemd expects none from this process.
    """

    def __init__(self, address: str | None, *, watchdog_seconds: float | None = None) -> None:
        self.watchdog_seconds = watchdog_seconds
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address

    def ready(self) -> None:
        """Report that the service is ready."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Show a line in `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())}")

    def alive(self) -> None:
        """Send the watchdog's keep-alive."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Report that the configuration is being reloaded; `ready` ends that."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Report that the service is stopping."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if self._address is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.connect(self._address)
                sender.send(text.encode())
            except OSError:
                self._address = None  # nobody is listening; the service continues


def notifier_from(notify_socket: str | None, watchdog_usec: str | None, watchdog_pid: str | None, pid: int) -> Notifier:
    """Return the notifier described by systemd's variables. The watchdog may be meant for another process."""
    seconds = None
    if watchdog_usec and watchdog_usec.isdigit() and (not watchdog_pid or watchdog_pid == str(pid)):
        seconds = int(watchdog_usec) / 1_000_000
    return Notifier(notify_socket or None, watchdog_seconds=seconds)
