"""The gate's reasons in words."""

from __future__ import annotations

from collections.abc import Mapping

from atom_saas_sync.core.gate.types import Reason

REASON_TEXTS: Mapping[Reason, str] = {
    "revoked": "it has been revoked",
    "denied": "a rule of the policy file denies it",
    "rejected": "this version has been rejected",
    "quarantined": "the skill is in quarantine",
    "not_locked": "the lock file does not list this version",
    "pinned": "the skill is pinned to another version",
    "downgrade": "another version was admitted after this one",
    "lookalike": "its id looks like the id of another skill",
    "publisher": "the publisher has changed",
    "republished": "same version number, different code",
    "abnormal": "the run brought unusually many changes",
    "scan": "the scan command did not pass it",
    "revocations": "the revocations file is invalid",
    "age": "it is not old enough yet",
    "clock": "the clock cannot be trusted, so its age is unknown",
    "review": "the policy requires a review of every version",
}
"""The meaning of each reason, as a clause."""
