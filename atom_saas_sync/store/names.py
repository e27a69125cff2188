"""Names under which both engines store the same things."""

from __future__ import annotations

MARKETPLACE = "marketplace"
"""The fact that holds the URL of the marketplace that the database belongs to."""

APPROVED_DELETIONS = "approved_deletions"
"""The fact with the number of deletions approved by `db rebind`, until a sync has succeeded."""

REVOCATIONS_BROKEN = "gate_revocations_broken"
"""The fact that is 1 while the revocations file cannot be used."""

LAST_SUCCESS = "last_success"
"""The fact that holds when the last successful sync of the skills ended: its run is forgotten after 90 days."""

REACHED_AT, CLOCK_SKEW = "marketplace_reached_at", "clock_skew_seconds"
"""The facts that hold when the marketplace last answered, and how far its clock is ahead of ours."""

EMERGENCY_STOP = "emergency_stop"
"""The fact that is there while the emergency stop is on."""

NOT_UPDATABLE = "ratings_not_updatable"
"""The fact that holds which marketplace cannot update ratings."""

RATE_LIMIT = "rate_limit"
"""The fact that holds the limit which a marketplace has declared."""

DELETIONS_BY_MESSAGE = "deletions_by_message"
"""The fact that holds how many deletions messages have caused, by minute."""

TAMPERED = "tampered"
"""The fact that lists the skills whose text does not have its digest."""

SYNC_STATE_ID = "marketplace_sync"
"""The id and the device id of the only row in sync_state."""

METRIC_TYPES = {"skills": "skill", "categories": "skill", "ratings": "rating"}
"""The `type` label of the metrics for each kind of run."""
