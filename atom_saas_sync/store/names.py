"""Names of stored facts and rows, the same in both engines."""

from __future__ import annotations

MARKETPLACE = "marketplace"
"""The fact with the URL of the marketplace that the database belongs to."""

APPROVED_DELETIONS = "approved_deletions"
"""The fact with the number of deletions approved by `db rebind`, until a sync has succeeded."""

REVOCATIONS_BROKEN = "gate_revocations_broken"
"""The fact that is 1 while the revocations file cannot be used."""

LAST_SUCCESS = "last_success"
"""The fact with the end of the last successful sync of the skills, whose run is deleted after 90 days."""

REACHED_AT, CLOCK_SKEW = "marketplace_reached_at", "clock_skew_seconds"
"""The facts with the time of the marketplace's last response, and how far its clock is ahead of ours."""

EMERGENCY_STOP = "emergency_stop"
"""The fact that exists while the emergency stop is on."""

NOT_UPDATABLE = "ratings_not_updatable"
"""The fact with the marketplace that cannot update ratings."""

RATE_LIMIT = "rate_limit"
"""The fact with the limit that a marketplace has declared."""

DELETIONS_BY_MESSAGE = "deletions_by_message"
"""The fact with the number of deletions by messages, by minute."""

ADDITIONS_BY_MESSAGE = "additions_by_message"
"""The fact with the number and the bytes of what messages added, by minute."""

TAMPERED = "tampered"
"""The fact with the skills whose text does not match its digest."""

WORDS_MERGED = "words_merged"
"""The fact with the number of changes of skills when new words were last merged into the search index of a server."""

SYNC_STATE_ID = "marketplace_sync"
"""The id and the device id of the only row in sync_state."""

METRIC_TYPES = {"skills": "skill", "categories": "skill", "ratings": "rating"}
"""The `type` label of the metrics for each kind of run."""
