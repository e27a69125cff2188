"""The findings of `db check` about skills, the same for all engines."""

from __future__ import annotations

from atom_saas_sync.characters import short_id
from atom_saas_sync.model.upkeep import CheckFinding


def tampered_text(skill_id: str) -> CheckFinding:
    """Return the finding that a text differs from what the marketplace sent."""
    return CheckFinding(
        "tampered",
        f"the text of the skill {short_id(skill_id)!r} is not what the marketplace sent",
        "`atom-sync sync skills --force` restores the marketplace's text",
    )


def tampered_offer(skill_id: str) -> CheckFinding:
    """Return the finding that a waiting version differs from what the marketplace sent."""
    return CheckFinding(
        "tampered",
        f"the version of the skill {short_id(skill_id)!r} that waits is not what the marketplace sent",
        "it cannot be approved; `atom-sync sync skills --force` reads the marketplace's version again",
    )


def kept_out(skill_id: str, why: str) -> CheckFinding:
    """Return the finding that another program has put a skill back into the cache; `why` it had been removed."""
    state = "revoked" if why == "revoked" else "in quarantine"
    return CheckFinding(
        why,
        f"the skill {short_id(skill_id)!r} is in the cache although it is {state}: another program put it there",
        "the view usable_skill hides it; `atom-sync sync skills` removes it",
    )


def not_signed(number: int) -> CheckFinding:
    """Return the finding with the number of unsigned skills."""
    return CheckFinding(
        "unsigned",
        f"{number:,} {'skill is' if number == 1 else 'skills are'} not signed with the key",
        "`atom-sync sync skills --force` fetches and signs them",
        wrong=False,
    )


def newer_migrations(names: list[str]) -> CheckFinding:
    """Return the finding that a newer version has added migrations."""
    return CheckFinding("migrations", f"a newer atom-sync added {', '.join(names)}", "install that version again")


def missing_migrations(names: list[str]) -> CheckFinding:
    """Return the finding that migrations are not applied."""
    return CheckFinding("migrations", f"not applied: {', '.join(names)}", "`atom-sync db upgrade` applies them")
