"""Loading the settings: to one frozen value, or to one error that names all problems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from atom_saas_sync.config.derived import complete, disagreement
from atom_saas_sync.config.settings import EffectiveSetting, Settings
from atom_saas_sync.config.sources import Sources
from atom_saas_sync.config.variables import VARIABLES
from atom_saas_sync.errors import ConfigError


def load_settings(
    environ: Mapping[str, str],
    *,
    env_file: Path | None = None,
    working_directory: Path,
    database: str | None = None,
    no_env_file: bool = False,
    system: bool = False,
) -> Settings:
    """Read the settings: `environ`, then the `.env` file, then the defaults. `database` is the `--database` option.

    Without `env_file`, the `.env` of the working directory is read if nobody else could have written it. With `system`,
    the service's file is read instead, with the service's token and database as defaults; with `no_env_file`, none.

    Raises ConfigError with all problems at once.
    """
    sources = Sources(environ, env_file, working_directory, database, no_env_file=no_env_file, system=system)
    sources.read_all()
    complete(sources)
    if sources.problems:
        raise ConfigError("\n".join(sources.problems), hint=sources.hint) from sources.denied
    return Settings(
        **{variable.field: sources.values[variable.name] for variable in VARIABLES if variable.field},
        token_file=sources.token_file,
        digest_key=sources.digest_key,
        env_file=sources.directory / sources.file_name if sources.file_name else None,
        sources_disagree=disagreement(sources),
        warnings=tuple(sources.warnings),
        shown=tuple(sources.shown()),
    )


def show_settings(
    environ: Mapping[str, str],
    *,
    env_file: Path | None = None,
    working_directory: Path,
    database: str | None = None,
    no_env_file: bool = False,
    system: bool = False,
) -> tuple[tuple[EffectiveSetting, ...], tuple[str, ...], tuple[str, ...]]:
    """Return all variables for `config show`, the problems and the warnings; invalid values do not raise."""
    sources = Sources(environ, env_file, working_directory, database, no_env_file=no_env_file, system=system)
    sources.read_all()
    complete(sources)
    disagree = disagreement(sources)
    problems = (*sources.problems, *([disagree] if disagree else []))
    return tuple(sources.shown()), problems, tuple(sources.warnings)
