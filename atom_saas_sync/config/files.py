"""The files with settings: `.env`, the token, the key; and who else could have written or read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from atom_saas_sync.characters import without_hidden
from atom_saas_sync.config.secrets import Secret
from atom_saas_sync.config.settings import TOKEN_HINT
from atom_saas_sync.config.values import token
from atom_saas_sync.config.variables import PLACEHOLDER, PREFIXES, TOKEN_TAKES, URL_WITH_PASSWORD, VARIABLES
from atom_saas_sync.errors import ConfigError

_TOKEN_FILE_MAX_BYTES = 64 * 1024
LARGEST_ENV_FILE = 1024 * 1024
_DIGEST_KEY_LEAST_BYTES = 32


def shared_directory(directory: Path) -> str | None:
    """Describe the rights of others to write to a directory, whose `.env` is then not read; None without any."""
    return _rights_of_others(directory.stat())


def read_token_file(path: Path) -> Secret:
    """Read a token from a file: a container secret, a systemd credential. One trailing line break is stripped.

    Raises ConfigError if it can't be read or holds no token.
    """
    return read_token_file_and_rights(path)[0]


def read_token_file_and_rights(path: Path) -> tuple[Secret, bool]:
    """Return the token, and whether the file is readable by more users than necessary."""
    what = f"ATOM_SAAS_API_TOKEN_FILE: {path}"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a file that never ends, or blocks forever
            raise ConfigError(f"{what}: is not a regular file", hint=TOKEN_HINT)
        if status.st_size > _TOKEN_FILE_MAX_BYTES:
            raise ConfigError(f"{what}: is too large for a token", hint=TOKEN_HINT)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfigError(f"{what}: {reason}", hint=TOKEN_HINT) from (error if isinstance(error, OSError) else None)
    if not text.strip():
        raise ConfigError(f"{what}: is empty", hint=TOKEN_HINT)
    try:
        return token(text.removesuffix("\n")), _is_too_open(status)
    except ValueError:
        raise ConfigError(f"{what} does not contain {TOKEN_TAKES}", hint=TOKEN_HINT) from None


def read_password_file(path: Path, name: str) -> tuple[str, bool]:
    """Return the password in a file, without a line break at its end, and whether more people may read it than need to.

    Raises ConfigError, which does not repeat anything of it.
    """
    what = f"{name}: {path}"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{what}: is not a regular file")
        if status.st_size > _TOKEN_FILE_MAX_BYTES:
            raise ConfigError(f"{what}: is too large for a password")
        text = path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfigError(f"{what}: {reason}") from (error if isinstance(error, OSError) else None)
    if not text or "\0" in text:
        raise ConfigError(f"{what}: {'holds a NUL character' if text else 'is empty'}")
    return text, _is_too_open(status)


def _is_too_open(status: os.stat_result) -> bool:
    """Tell whether a file with a secret is readable by more users than necessary.

    A file of another user (such as root's mounted secret) that our group can read is as it must be.
    """
    return bool(status.st_mode & (stat.S_IRWXO | (stat.S_IRWXG if status.st_uid == os.geteuid() else 0)))


def _without_waiting(path: str, flags: int) -> int:
    """Open a file without blocking, in case it has become a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_digest_key(path: Path, database: Path | None, *, is_credential: bool) -> bytes:
    """Return the key, all bytes of the file. Raises OSError, ValueError or, for links in a circle, RuntimeError.

    Users who can write to the database must not be able to read or replace it.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("is not a regular file")
    with open(path, "rb", opener=_without_waiting) as stream:
        status = os.fstat(stream.fileno())
        real = path.resolve()
        if database is not None and real.is_relative_to(database.resolve().parent):
            raise ValueError("lies in the directory of the database, where its writers could replace it")
        # A systemd credential may belong to root, with an ACL for us that looks like a group permission.
        if status.st_mode & (stat.S_IRWXO | (0 if is_credential else stat.S_IRWXG)):
            raise ValueError("can be read or written by others; chmod 600 it")
        if os.geteuid() not in {0, status.st_uid} and status.st_uid != 0:
            raise ValueError("belongs to another user")
        for directory in {path.parent, real.parent}:
            mode = directory.stat().st_mode
            if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
                raise ValueError(f"could be replaced by others, who may write to {directory}")
        key = stream.read(_TOKEN_FILE_MAX_BYTES + 1)
    if len(key) < _DIGEST_KEY_LEAST_BYTES:
        raise ValueError(f"has {len(key)} bytes; a key has at least {_DIGEST_KEY_LEAST_BYTES}")
    if len(key) > _TOKEN_FILE_MAX_BYTES:
        raise ValueError("is too large for a key")
    return key


class EnvFile(NamedTuple):
    """The contents of a `.env` file; `name` is empty if there is none."""

    name: str
    values: dict[str, str]
    problems: list[str]
    warnings: list[str]
    denied: PermissionError | None = None


def read_env_file(path: Path, *, is_found: bool) -> EnvFile:
    """Read a `.env` file. One that was found, not named, is refused if others could have written it."""
    if is_found and not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where we may not look
        there = os.path.lexists(path)
        return EnvFile("", {}, [], [f"{path} is not a regular file and was ignored"] if there else [])
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    warnings: list[str] = []
    try:
        # Without blocking on a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8-sig") as stream:  # noqa: PTH123 - the file that is looked at
            status = os.fstat(descriptor)
            if refused := _refusal_of(path, status, is_found=is_found):
                return EnvFile("", {}, [refused], warnings)
            # Only the parser: a token may contain a dollar sign, and we report unreadable lines ourselves.
            for binding in parse_stream(stream):
                line = f"{path}, line {binding.original.line}"
                if binding.error or _is_bare(binding.key, binding.value):
                    warnings.append(f"{line}: is not NAME=value and was ignored")
                if binding.key is not None and without_hidden(binding.key) != binding.key:
                    warnings.append(f"{line}: the name has control or invisible characters; it was ignored")
                elif binding.key is not None:
                    values[binding.key] = binding.value or ""
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        denied = error if isinstance(error, PermissionError) else None
        return EnvFile(str(path), values, [f"{path}: {reason}"], warnings, denied)
    secrets = {values.get(variable.name) for variable in VARIABLES if variable.secret} - {None, "", PLACEHOLDER}
    if _is_too_open(status) and (secrets or URL_WITH_PASSWORD.match(values.get("ATOM_SAAS_DATABASE_URL", ""))):
        warnings.append(f"{path} contains a secret and can be read by others; chmod 600 it")
    return EnvFile(str(path), values, [], warnings)


def is_missing(path: Path) -> bool:
    """Tell whether the file certainly does not exist."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # reading it reports the error
    return False


def is_beside(path: Path, directory: Path) -> bool:
    """Tell whether a file lies in this directory itself: a found `.env` may draw a secret from no other place."""
    return not path.is_symlink() and os.path.realpath(path.parent) == os.path.realpath(directory)


def _refusal_of(path: Path, status: os.stat_result, *, is_found: bool) -> str | None:
    """Say why this file is not read; None if it is."""
    if not stat.S_ISREG(status.st_mode) and not os.path.samestat(status, os.stat(os.devnull)):  # noqa: PTH116 - no Path
        return f"{path}: is not a regular file"
    if status.st_size > LARGEST_ENV_FILE:
        return f"{path}: is larger than {LARGEST_ENV_FILE >> 20} MiB"
    return _stranger_in(path, status) if is_found else None


def _stranger_in(path: Path, status: os.stat_result) -> str | None:
    """Say who besides this user and root could have written or created this file; None if nobody."""
    looked_at = {str(path): status}
    for directory in (path.parent, Path(os.path.realpath(path)).parent):
        looked_at[str(directory)] = directory.stat()
    for place, found in looked_at.items():
        if rights := _rights_of_others(found):
            what = "it" if place == str(path) else f"its directory {place}"
            return (
                f"{path} was not read: {what} {rights}, so others could have written it; make both yours and writable "
                "by you alone (chmod go-w), name the file with --env-file, or leave it out with --no-env-file"
            )
    return None


def _rights_of_others(found: os.stat_result) -> str | None:
    """Describe the rights of users other than this one and root to write to a path; None without any."""
    owner, primary_group = _user(found.st_uid)
    open_to_all = found.st_mode & stat.S_IWOTH
    open_to_group = found.st_mode & stat.S_IWGRP and found.st_gid != primary_group
    if found.st_uid in {os.geteuid(), 0} and not open_to_all and not open_to_group:
        return None
    return f"belongs to {owner}, group {_group(found.st_gid)}, and has mode {stat.S_IMODE(found.st_mode):04o}"


def _user(number: int) -> tuple[str, int | None]:
    """Return a user's name and primary group, if known."""
    import pwd

    try:
        entry = pwd.getpwuid(number)
    except KeyError:
        return f"user {number}", None
    return f"{entry.pw_name} (user {number})", entry.pw_gid


def _group(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _is_bare(name: str | None, value: str | None) -> bool:
    """Tell whether a line of `.env` has no =; a line such as ATOM_SAAS_X:VALUE is reported as an unknown name."""
    if name is None or value is not None:
        return False
    return name.isidentifier() or not name.startswith(PREFIXES)
