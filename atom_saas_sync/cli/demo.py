"""`demo`: a guided tour against the built-in sandbox, without a token."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.cli.output import console
from atom_saas_sync.errors import AtomSyncError

if TYPE_CHECKING:
    from atom_saas_sync.sandbox import Sandbox

_SKILLS = 2000
_PATIENCE_SECONDS = 20.0


def demo(
    skills: Annotated[int, typer.Option("--skills", min=1, metavar="N", help="Skills in the sandbox.")] = _SKILLS,
) -> None:
    """Take a guided tour against a sandbox.

    It works in a directory of its own and leaves nothing running.
    """
    from atom_saas_sync.cli.runtime import make_temporary_directory
    from atom_saas_sync.sandbox import Sandbox

    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # `watch` is ended first
    directory = make_temporary_directory("atom-sync-demo-")
    with Sandbox(skills=skills) as sandbox:
        show = _Show(directory, sandbox)
        show.say(f"A sandbox with {skills:,} skills stands in for the marketplace. All data goes to {directory}")
        show.run("The first sync fills the cache", "sync", "skills")
        show.run("Nothing has changed: the second sync reads almost nothing", "sync", "skills")
        show.run("Is it healthy?", "status")
        show.run("Search the cache", "skills", "search", "invoice", "--limit", "5")
        skill_id = sandbox.skill_ids()[0]
        show.run("Edit a skill locally", "skills", "edit", skill_id, "--set", "description=Edited here")
        sandbox.patch_skill(skill_id, {"description": "Changed there", "version": "99.0.0"})
        show.run("The marketplace changes it too: a conflict", "sync", "skills", "--strategy", "manual")
        show.run("Inspect the conflict", "conflicts", "show", "1")
        show.run(
            "Merge it field by field; `conflicts undo 1` would undo that",
            "conflicts",
            "resolve",
            "1",
            "--strategy",
            "merge",
        )
        show.held_update(sandbox, sandbox.skill_ids()[2])
        show.live_update(sandbox, sandbox.skill_ids()[1])
    console().rule(style="dim")
    typer.echo("That was the sandbox. For the real marketplace:\n")
    typer.echo("  atom-sync config init   # asks for the token: dashboard, settings, API tokens")
    typer.echo("  atom-sync sync skills\n")
    typer.echo(f"The demo's database is {directory}/atom.db. To inspect it:")
    typer.echo(f"  atom-sync --database {shlex.quote(str(directory))}/atom.db status")


class _Show:
    """Runs real commands, each under a line that says what it shows."""

    def __init__(self, directory: Path, sandbox: Sandbox) -> None:
        from atom_saas_sync.cli.runtime import environment_without_settings

        self._directory = directory
        self._environment = {
            **environment_without_settings(),
            "ATOM_SAAS_API_URL": sandbox.url,
            "ATOM_SAAS_WS_URL": sandbox.ws_url,
            "ATOM_SAAS_API_TOKEN": sandbox.token,
            "ATOM_SAAS_DATABASE_URL": str(directory / "atom.db"),
        }

    def say(self, text: str) -> None:
        """Print a line for the user."""
        console().print(f"\n{text}", style="bold", markup=False)

    def held_update(self, sandbox: Sandbox, skill_id: str) -> None:
        """Hold an update for review, show what it can newly do, and approve it."""
        self.say("Agents only get approved versions: from now on, updates wait")
        console().print("$ export ATOM_SYNC_ADMISSION=review", style="cyan", markup=False)
        self._environment["ATOM_SYNC_ADMISSION"] = "review"
        code = f"{sandbox.skill(skill_id).get('code', '')}\nimport os\n\ntoken = os.environ['INVOICE_TOKEN']\n"
        sandbox.patch_skill(skill_id, {"code": code, "version": "99.0.0"})
        self.run("The marketplace changes a skill: it is held, the old version stays", "sync", "skills")
        self.run("What would it change, and what can it newly do?", "updates", "show", skill_id)
        self.run("Approve it; it is served at once", "updates", "approve", skill_id)
        del self._environment["ATOM_SYNC_ADMISSION"]
        console().print("$ unset ATOM_SYNC_ADMISSION", style="cyan", markup=False)

    def live_update(self, sandbox: Sandbox, skill_id: str) -> None:
        """Run `watch`, change a skill, and report the delay; raise AtomSyncError if the change does not arrive."""
        from atom_saas_sync.store import open_store

        self.say("No polling needed: `watch` applies changes as they happen")
        console().print("$ atom-sync watch", style="cyan", markup=False)
        requests = len(sandbox.requests("list"))
        watch = subprocess.Popen(
            [sys.executable, "-P", "-m", "atom_saas_sync", "watch"], env=self._environment, cwd=self._directory
        )
        try:
            # It first fetches what it may have missed.
            if not sandbox.wait_for(lambda: len(sandbox.requests("list")) > requests, _PATIENCE_SECONDS):
                raise AtomSyncError("`watch` did not connect: the demo stops here")
            sandbox.patch_skill(skill_id, {"name": "Fresh from the marketplace"})
            began = time.monotonic()
            while "Fresh from the marketplace" not in self._cached(skill_id):
                if time.monotonic() - began > _PATIENCE_SECONDS:
                    raise AtomSyncError("the update did not arrive: the demo stops here")
                time.sleep(0.001)
            took = (time.monotonic() - began) * 1000
            # The catch-up is still running; stopping it would look like a fault.
            with open_store(self._directory / "atom.db", read_only=True) as store:
                while store.holder("skills") is not None:
                    if time.monotonic() - began > _PATIENCE_SECONDS:
                        raise AtomSyncError("the catch-up did not end: the demo stops here")
                    time.sleep(0.01)  # the pause of a bounded poll: another process holds the lock
        finally:
            watch.terminate()
            watch.wait(_PATIENCE_SECONDS)
        typer.echo(f"Changed in the marketplace, applied here {took:.0f} ms later: {skill_id}")

    def _cached(self, skill_id: str) -> str:
        from atom_saas_sync.store import open_store

        with open_store(self._directory / "atom.db", read_only=True) as store:
            skill = store.reading(datetime.now(UTC)).skill(skill_id)
        return skill.text if skill else ""

    def run(self, why: str, *arguments: str) -> None:
        """Run a command; raise AtomSyncError if it fails."""
        self.say(why)
        command = shlex.join(["atom-sync", *arguments])
        console().print(f"$ {command}", style="cyan", markup=False)
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-P", "-m", "atom_saas_sync", *arguments],
            env=self._environment,
            cwd=self._directory,
            check=False,
        )
        if done.returncode != 0:
            raise AtomSyncError(f"`{command}` ended with {done.returncode}: the demo stops here")
