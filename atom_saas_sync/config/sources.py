"""Where settings come from: the command line, the environment, a `.env` file, the service's defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atom_saas_sync.config.files import is_missing, read_env_file
from atom_saas_sync.config.secrets import PERHAPS_SECRET, Secret, mask, without_query
from atom_saas_sync.config.settings import EffectiveSetting
from atom_saas_sync.config.values import InvalidValue, database, path
from atom_saas_sync.config.variables import PLACEHOLDER, PREFIXES, SERVICE_DEFAULTS, VARIABLES, Variable, is_system
from atom_saas_sync.places import SETTINGS

_SHELL_VARIABLE = re.compile(r"\$(\{|[A-Za-z_])")
SYSTEM_ORIGIN = "--system"
# Not allowed in a found .env, which may come with a checkout: they run a program, guard admission, or locate settings.
_NEVER_FOUND = ("ATOM_SYNC_SCAN_COMMAND", "ATOM_SYNC_DIGEST_KEY_FILE", "ATOM_SYNC_SYSTEM")


class Sources:
    """The texts of all variables, their known values and origins, and the problems with them."""

    def __init__(
        self,
        environ: Mapping[str, str],
        env_file: Path | None,
        working_directory: Path,
        database: str | None,
        *,
        no_env_file: bool,
        system: bool,
    ) -> None:
        self.environ = environ
        self.is_system = system or is_system(environ)
        self._defaults = SERVICE_DEFAULTS if self.is_system else {}
        self.denied: PermissionError | None = None
        self.directory = working_directory
        self._database = database
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.wrong: dict[str, str] = {}
        self.token_file: Path | None = None
        self.digest_key: Secret | None = None
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.is_found = env_file is None and not self.is_system
        """Whether `.env` was found in the working directory, not named explicitly."""
        if env_file is None:
            env_file = Path(SETTINGS) if self.is_system else working_directory / ".env"
        self.hint = "`atom-sync config show` prints the origin of each value"
        if self.is_system and is_missing(env_file):
            self.hint = "`sudo atom-sync --system config init` writes the service's settings"
        self.file_name, self._file = "", dict[str, str]()
        if not no_env_file:
            found = read_env_file(env_file, is_found=self.is_found)
            self.file_name, self._file, self.denied = found.name, found.values, found.denied
            self.problems += found.problems
            self.warnings += found.warnings
        self._refuse_never_found()

    def read_all(self) -> None:
        """Read each variable independently of the others."""
        for variable in VARIABLES:
            self._read(variable)
        self._warn_of_unknown_names()

    def shown(self) -> list[EffectiveSetting]:
        """Return every variable with its value as text, secrets masked, and its origin."""
        return [
            EffectiveSetting(
                variable.name,
                _as_text(self.values.get(variable.name)) or self.wrong.get(variable.name),
                self.origins.get(variable.name, "not set"),
            )
            for variable in VARIABLES
        ]

    def absolute(self, name: str) -> Path:
        """Return an absolute path: the service's settings do not depend on the working directory."""
        is_service = self.is_system and self.origins[name] == self.file_name
        base = Path("/") if is_service else self.directory
        path: Path = base / self.values[name]
        return path

    def _raw(self, name: str) -> tuple[str, str] | None:
        """Return the text of a variable and its origin; an empty one counts as not set."""
        if name == "ATOM_SAAS_DATABASE_URL" and self._database is not None:
            return self._database, "--database"
        sources = (
            (self.environ, "environment"),
            (self._file, self.file_name),
            (self._defaults, SYSTEM_ORIGIN),
        )
        for values, origin in sources:
            if text := values.get(name):
                return text, origin
        return None

    def _read(self, variable: Variable) -> None:
        found = self._raw(variable.name)
        if found is not None and found[0] == PLACEHOLDER and self.values.get("ATOM_SAAS_ENABLED") is False:
            found = None  # a copy of .env.example, for commands that need no token
        if found is None:
            self.values[variable.name] = None if variable.default is None else variable.read(variable.default)
            if variable.default is not None:
                self.origins[variable.name] = "default"
            return
        text, origin = found
        self.origins[variable.name] = origin
        if variable.read in {path, database} and _SHELL_VARIABLE.search(text):
            self.warnings.append(f"{variable.name} (from {origin}): the $ is literal; variables are not expanded")
        try:
            self.values[variable.name] = variable.read(text)
        except (ValueError, OverflowError) as error:
            self.values[variable.name] = None
            self.wrong[variable.name] = _shown_wrong(variable, text)
            got = "" if variable.secret or _may_hold_secret(text) else f" {text[:80]!r}"
            if text == PLACEHOLDER:
                got = ", the placeholder of .env.example"
            reason = f"; {error}" if isinstance(error, InvalidValue) else ""
            self.problems.append(
                f"{variable.name}: invalid value{got} (from {origin}): expected {variable.takes}{reason}"
            )

    def _warn_of_unknown_names(self) -> None:
        known = {variable.name for variable in VARIABLES}
        for name in sorted({*self.environ, *self._file} - known):
            if name.startswith(PREFIXES):
                from atom_saas_sync.core.variable_names import warning_about

                # To its parser, NAME:value is a name.
                plain = name if name.isidentifier() else f"{re.split(r'[^A-Za-z0-9_]', name)[0]}…"
                self.warnings.append(warning_about(plain, known))

    def _refuse_never_found(self) -> None:
        for name in _NEVER_FOUND:
            if name == "ATOM_SYNC_SYSTEM" and self._file.pop(name, ""):
                self.warnings.append(
                    f"{name} (from {self.file_name}) was ignored: it is read from the environment only"
                )
            elif self.is_found and self._file.pop(name, ""):
                self.problems.append(
                    f"{name} must not be set in {self.file_name}, a file in the working directory; "
                    "set it in the environment, or name the file with --env-file"
                )


def _shown_wrong(variable: Variable, text: str) -> str:
    """Return the printable form of an invalid value."""
    if variable.secret:
        return mask(Secret(text))
    return "…" if _may_hold_secret(text) else text[:80]


def _may_hold_secret(text: str) -> bool:
    """Tell whether a message must not repeat a value; any URL of a server may hold a password, right or wrong."""
    return PERHAPS_SECRET.search(text) is not None or text.lower().startswith("postgres")


def _as_text(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, Secret):
        return mask(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    # What a server's address shows has no secret in its query.
    return str(value) if isinstance(value, Path) or hasattr(value, "shown") else without_query(str(value))
