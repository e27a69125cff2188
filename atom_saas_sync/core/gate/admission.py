"""What may be served. Only this module makes `Admitted` and `Servable` values, the only ones that effects serve.

Which module may call which function is checked by tests/core/gate/test_fences.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from atom_saas_sync.core.canonical import json_text, same
from atom_saas_sync.core.merge import follow_volatile
from atom_saas_sync.model import SkillVersion
from atom_saas_sync.model.effects import Admitted, Servable

if TYPE_CHECKING:
    from atom_saas_sync.core.gate.types import Verdict


def judged(version: SkillVersion, verdict: Verdict) -> Admitted:
    """Return a version that the gate admits. Raises ValueError if the verdict on it is another."""
    if verdict.kind != "admit":
        raise ValueError(f"not admitted: {verdict.reason}")
    return cast("Admitted", version)


def unjudged(versions: Mapping[str, SkillVersion]) -> Mapping[str, Admitted]:
    """Return all of these versions as admitted. Only for an idle gate, which admits everything."""
    return cast("Mapping[str, Admitted]", versions)


def admitted_before(version: SkillVersion) -> Admitted:
    """Return a stored version that was admitted when it came: a base, or the remote side of a conflict."""
    return cast("Admitted", version)


def chosen_here(version: SkillVersion) -> Admitted:
    """Return a stored version that a local user, or a program of theirs, chose."""
    return cast("Admitted", version)


text_of = cast("Callable[[Admitted], Servable]", attrgetter("text"))
"""Return the text of an admitted version."""


def written_here(text: str) -> Servable:
    """Return a text that was written, merged or put back here: local users are trusted."""
    return Servable(text)


def with_figures(served: Mapping[str, Any], shown: Mapping[str, Any]) -> Servable | None:
    """Return what is served with the volatile fields of `shown`, and no other; None if they are equal."""
    fields = follow_volatile(served, shown)
    return None if same(fields, served) else Servable(json_text(fields))
