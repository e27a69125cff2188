"""The files that settings come from: `.env`, the token, the key; and who else could have written or read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from atom_saas_sync.config.secrets import Secret
from atom_saas_sync.config.settings import TOKEN_HINT
from atom_saas_sync.config.values import token
from atom_saas_sync.config.variables import PLACEHOLDER, PREFIXES, TOKEN_TAKES, URL_WITH_PASSWORD, VARIABLES
from atom_saas_sync.errors import ConfigError

_TOKEN_FILE_MAX_BYTES = 64 * 1024
_DIGEST_KEY_LEAST_BYTES = 32


def shared_directory(directory: Path) -> str | None:
    """Say by what rights others may write to a directory, whose `.env` is not read then; None if nobody may."""
    return _rights_of_others(directory.stat())


def read_token_file(path: Path) -> Secret:
    """Read a token from a file: a container secret, a systemd credential. One trailing line break is stripped.

    Raises ConfigError if it can't be read or holds no token.
    """
    return read_token_file_and_rights(path)[0]


def read_token_file_and_rights(path: Path) -> tuple[Secret, bool]:
    """Return the token, and whether more people than need to may read the file."""
    what = f"ATOM_SAAS_API_TOKEN_FILE: {path}"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # one that never ends, or for which one waits for ever
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
    """Tell whether more people than need to may read a file with a secret.

    A file of another user's (root's, as a mounted secret) that lets our group in is as it must be.
    """
    return bool(status.st_mode & (stat.S_IRWXO | (stat.S_IRWXG if status.st_uid == os.geteuid() else 0)))


def _without_waiting(path: str, flags: int) -> int:
    """Open a file that could have become a pipe by now."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_digest_key(path: Path, database: Path | None, *, is_credential: bool) -> bytes:
    """Return the key, all bytes of the file. Raises OSError, ValueError or, for links in a circle, RuntimeError.

    Whoever may write the database must be able neither to read it nor to put one of his own in its place.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("is not a regular file")
    with open(path, "rb", opener=_without_waiting) as stream:
        status = os.fstat(stream.fileno())
        real = path.resolve()
        if database is not None and real.is_relative_to(database.resolve().parent):
            raise ValueError("lies in the directory of the database, where its writers could replace it")
        # What systemd passes on may belong to root, with our right to it as an ACL, which looks like the group's.
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
    """What a `.env` file holds; `name` is empty if there is none."""

    name: str
    values: dict[str, str]
    problems: list[str]
    warnings: list[str]
    denied: PermissionError | None = None


def read_env_file(path: Path, *, is_found: bool) -> EnvFile:
    """Read a `.env` file. One that was only found is not read if others could have written it."""
    if is_found and not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where we may not look
        there = os.path.lexists(path)
        return EnvFile("", {}, [], [f"{path} is not a regular file and was ignored"] if there else [])
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    warnings: list[str] = []
    try:
        # Without waiting for the writer of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8-sig") as stream:  # noqa: PTH123 - the file that is looked at
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) and not os.path.samestat(status, os.stat(os.devnull)):  # noqa: PTH116 - no Path
                return EnvFile("", {}, [f"{path}: is not a regular file"], warnings)
            if is_found and (stranger := _stranger_in(path, status)):
                return EnvFile("", {}, [stranger], warnings)
            # The parser alone: a token may hold a dollar sign, and what it can't read is for us to tell.
            for binding in parse_stream(stream):
                if binding.error or _is_bare(binding.key, binding.value):
                    warnings.append(f"{path}, line {binding.original.line}: is not NAME=value and was ignored")
                if binding.key is not None:
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
    """Tell whether there is surely no such file."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # reading it says what is wrong
    return False


def _stranger_in(path: Path, status: os.stat_result) -> str | None:
    """Say who else could have written this file, or put it there; None if nobody could but this user and root."""
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
    """Say by what rights others than this user and root may write to a file or directory; None if nobody may."""
    owner, primary_group = _user(found.st_uid)
    open_to_all = found.st_mode & stat.S_IWOTH
    open_to_group = found.st_mode & stat.S_IWGRP and found.st_gid != primary_group
    if found.st_uid in {os.geteuid(), 0} and not open_to_all and not open_to_group:
        return None
    return f"belongs to {owner}, group {_group(found.st_gid)}, and has mode {stat.S_IMODE(found.st_mode):04o}"


def _user(number: int) -> tuple[str, int | None]:
    """Return what a user is called, and the primary group, if it is known."""
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
    """Tell whether a line of `.env` has no =; one such as ATOM_SAAS_X:VALUE is warned of as an unknown name."""
    if name is None or value is not None:
        return False
    return name.isidentifier() or not name.startswith(PREFIXES)
