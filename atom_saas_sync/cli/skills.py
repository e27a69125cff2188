"""`skills`: reading the cache, local edits, and the versions that the marketplace sent.

Each command is imported only if it is typed: `skills verify ID` takes no longer than `status`.
"""

from __future__ import annotations

import typer

from atom_saas_sync.cli.lazy import Part

app = typer.Typer(help="Read, edit and compare the cached skills.", no_args_is_help=True)

_COMMANDS = {
    "list": Part("atom_saas_sync.cli.skill_reading", "list_skills"),
    "search": Part("atom_saas_sync.cli.skill_reading", "search"),
    "show": Part("atom_saas_sync.cli.skill_reading", "show"),
    "edit": Part("atom_saas_sync.cli.skill_edits", "edit"),
    "import": Part("atom_saas_sync.cli.skill_edits", "import_skills"),
    "revert": Part("atom_saas_sync.cli.skill_edits", "revert"),
    "restore": Part("atom_saas_sync.cli.skill_edits", "restore"),
    "delete": Part("atom_saas_sync.cli.skill_edits", "delete"),
    "diff": Part("atom_saas_sync.cli.skill_versions", "diff"),
    "log": Part("atom_saas_sync.cli.skill_versions", "log"),
    "verify": Part("atom_saas_sync.cli.verify", "verify"),
}
for _name, _part in _COMMANDS.items():
    app.command(_name)(_part)
