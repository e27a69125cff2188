"""Composition: what commands need, created from the settings; and the signals that end a run."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from atom_saas_sync.cli.output import GlobalOptions, note
from atom_saas_sync.errors import DatabaseError, DeadlineReached, Interrupted, UsageError

if TYPE_CHECKING:
    from logging import Logger

    from atom_saas_sync.cli.notify import Notifier
    from atom_saas_sync.config import Settings
    from atom_saas_sync.core.signing import Signer
    from atom_saas_sync.marketplace.client import MarketplaceClient
    from atom_saas_sync.marketplace.requests import Budget


class Sources(TypedDict):
    """Where settings come from."""

    environ: Mapping[str, str]
    env_file: Path | None
    working_directory: Path
    database: str | None
    no_env_file: bool
    system: bool


def is_system(options: GlobalOptions) -> bool:
    """Tell whether the service's settings are used."""
    from atom_saas_sync import config

    return options.system or config.is_system(os.environ)


def sources(options: GlobalOptions) -> Sources:
    """Return where settings come from, for the functions of config. Raises UsageError."""
    try:
        directory = Path.cwd()
    except FileNotFoundError:
        raise UsageError("the working directory no longer exists", hint="go to one that does") from None
    return {
        "environ": os.environ,
        "env_file": options.env_file,
        "working_directory": directory,
        "database": options.database,
        "no_env_file": options.no_env_file,
        "system": options.system,
    }


def settings_of(options: GlobalOptions) -> Settings:
    """Read the settings without setting up logging, for read-only commands. Raises ConfigError with all problems."""
    from atom_saas_sync.config import load_settings

    settings = load_settings(**sources(options))
    if isinstance(settings.database, Path):
        return settings
    from dataclasses import replace

    return settings.but(database=replace(settings.database, program=_program()))


def _program() -> str:
    """Return what a server's list of sessions calls this process: atom-sync/sync-skills."""
    from typer._click.globals import get_current_context

    context = get_current_context(silent=True)
    words = context.command_path.split()[1:] if context else []
    return f"atom-sync/{'-'.join(words)}" if words else "atom-sync"


def load(options: GlobalOptions, *, names_host: bool = False) -> Settings:
    """Read the settings and set up logging; optionally print the host. Raises ConfigError with all problems."""
    settings = settings_of(options)
    log = set_up_logging_for(settings, options)
    if names_host:
        name_host(settings, options)
    for warning in settings.warnings:
        log.warning("%s", warning)
    return settings


def set_up_logging_for(settings: Settings, options: GlobalOptions) -> Logger:
    """Set up logging that masks the secrets of these settings."""
    from atom_saas_sync.logs import set_up_logging

    secrets = [secret.reveal() for secret in (settings.api_token, settings.admin_token) if secret]
    if not isinstance(settings.database, Path) and settings.database.password:
        secrets.append(settings.database.password)
    return set_up_logging(options.level, options.log_format, secrets=secrets)


def signer_of(settings: Settings) -> Signer | None:
    """Return the signer of digests; None without a key."""
    from atom_saas_sync.core.signing import Signer

    return None if settings.digest_key is None else Signer(bytes.fromhex(settings.digest_key.reveal()))


def name_host(settings: Settings, options: GlobalOptions) -> None:
    """Print the host that will get the token to standard error, unless it is the marketplace's own."""
    import logging

    from atom_saas_sync.config import hosts_of
    from atom_saas_sync.logs import goes_to_journal

    if hosts := hosts_of(settings):
        # In this format, no line may be plain text.
        if options.log_format in {"json", "journal"} or goes_to_journal(sys.stderr):
            logging.getLogger(__name__).debug("marketplace: %s", hosts)
        else:
            note(f"marketplace: {hosts}")


_STOPS = (signal.SIGINT, signal.SIGTERM)


class RunClock:
    """SIGINT and SIGTERM as a flag, checked between transactions; also the clock, whose sleep they interrupt."""

    def __init__(self, deadline_seconds: float | None = None) -> None:
        self._received = 0
        self._event = threading.Event()
        self._cuts: list[Callable[[int], object]] = []
        self.deadline = None if deadline_seconds is None else time.monotonic() + deadline_seconds

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch the signals within the block.

        A thread handles them: Python's own handlers wait for the main thread, and a signal just before a blocking call
        does not interrupt that call.
        """
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        acting = threading.Thread(target=self._act_on, args=(read_end,), name="signals", daemon=True)
        acting.start()
        told_before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        before = {number: signal.signal(number, lambda *_: None) for number in _STOPS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(told_before)
            os.close(write_end)
            acting.join()

    def check(self) -> None:
        """Raise Interrupted after a signal, and DeadlineReached after the deadline."""
        if self._received:
            raise Interrupted(self._received)
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise DeadlineReached("the deadline ended the run", hint="the next run continues from there")

    def now(self) -> datetime:
        """Return the aware wall-clock time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float | None, over: threading.Event | None = None) -> None:
        """Wait (forever if `seconds` is None), until `over` is set at most; a signal ends it with Interrupted."""
        if over is None:
            self._event.wait(seconds)
        else:
            with self.cutting(lambda _number: over.set()):
                over.wait(seconds)
        self.check()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop as if the signal had arrived. Thread-safe."""
        self._received = number
        self._event.set()
        for cut in tuple(self._cuts):
            cut(number)

    @contextmanager
    def cutting(self, cut: Callable[[int], object]) -> Iterator[None]:
        """Call `cut` with the signal on a stop within the block: blocked calls do not check the flag."""
        self._cuts.append(cut)
        try:
            if self._received:
                cut(self._received)
            yield
        finally:
            self._cuts.remove(cut)

    def _act_on(self, read_end: int) -> None:
        """Stop at each signal number read from the pipe, until its other end is closed."""
        with open(read_end, "rb", buffering=0) as numbers:
            while number := numbers.read(1):
                if number[0] not in _STOPS:
                    continue
                if self._received:  # asked twice: do not wait for anything
                    os._exit(128 + number[0])
                self.stop(number[0])


def supervisor() -> Notifier:
    """Return the notifier for systemd; without systemd it does nothing."""
    from atom_saas_sync.cli.notify import notifier_from

    value = os.environ.get
    return notifier_from(value("NOTIFY_SOCKET"), value("WATCHDOG_USEC"), value("WATCHDOG_PID"), os.getpid())


def environment_with(variables: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with these variables added."""
    return {**os.environ, **variables}


def environment_without_settings() -> dict[str, str]:
    """Return this process's environment, without settings, for a child with its own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("ATOM_", "ENABLE_SCHEDULER"))}


def editor() -> str | None:
    """Return the user's editor command."""
    return next((value for name in ("VISUAL", "EDITOR") if (value := os.environ.get(name, "").strip())), None)


def pager() -> str | None:
    """Return the user's pager command, or None. Without PAGER it is `less`, if available."""
    import shutil

    command = os.environ.get("PAGER")
    if command is not None:
        return command.strip() if command.strip() not in {"", "cat"} else None
    can_page = (
        os.environ.get("TERM", "dumb") != "dumb" and sys.stdin.isatty() and shutil.get_terminal_size((0, 0)).lines
    )
    return "less" if can_page and shutil.which("less") else None


def data_home() -> str | None:
    """Return XDG_DATA_HOME if it is set and absolute; its specification says to ignore relative paths."""
    value = os.environ.get("XDG_DATA_HOME", "")
    return value.rstrip("/") if value.startswith("/") else None


def environment_for_others() -> dict[str, str]:
    """Return the environment for other programs, without our secrets."""
    from atom_saas_sync.config import without_secrets

    return without_secrets(os.environ)


def current_user() -> str:
    """Return the name of the current user, or of the user behind sudo."""
    sudo_user = os.environ.get("SUDO_USER")
    if sudo_user and os.geteuid() == 0:
        return sudo_user
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Create a private temporary directory for the block. Raises DatabaseError if that is impossible."""
    import shutil

    directory = make_temporary_directory("atom-sync-")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def make_temporary_directory(prefix: str) -> Path:
    """Create a temporary directory, mode 0700, that is kept. Raises DatabaseError if that is impossible."""
    import tempfile

    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as error:
        raise DatabaseError(
            f"cannot make a temporary directory: {error.strerror}",
            hint="set TMPDIR to a directory with room that this user may write to",
        ) from error


def check_network(settings: Settings) -> None:
    """Check everything needed to connect, without connecting. Raises ConfigError."""
    from atom_saas_sync.marketplace.proxies import proxy_for
    from atom_saas_sync.marketplace.tls import tls_context

    urls = (settings.api_url, settings.ws_url)
    for url in urls:
        proxy_for(url)
    if any(url.startswith(("https:", "wss:")) for url in urls):
        tls_context(settings.ca_file)


@contextmanager
def marketplace_client(settings: Settings, budget: Budget, clock: RunClock) -> Iterator[MarketplaceClient]:
    """Open a client for the configured marketplace; its connections are shared with the process's other clients."""
    import random

    from atom_saas_sync.config import require_token
    from atom_saas_sync.marketplace.client import MarketplaceClient
    from atom_saas_sync.marketplace.dialects import DIALECTS
    from atom_saas_sync.marketplace.sharing import shared_connections

    with shared_connections.lend(settings.api_url, settings.ca_file, most=settings.connections) as connections:
        client = MarketplaceClient(
            base_url=settings.api_url,
            token=require_token(settings).reveal(),
            instance_id=settings.instance_id,
            dialect=DIALECTS[settings.dialect],
            timeout_seconds=settings.timeout_seconds,
            clock=clock,
            budget=budget,
            random=random.random,
            deadline=clock.deadline,
            connections=connections,
        )
        with clock.cutting(client.stop):
            yield client
