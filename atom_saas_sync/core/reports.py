"""JSON documents shared by the command line and the HTTP routes (docs/API_DOCUMENTATION.md)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from atom_saas_sync.core.health import minutes_since, watch_is_running, websocket_connected
from atom_saas_sync.core.ratings import kept_rating
from atom_saas_sync.model import Health, ListedRating, Status, TrustState, WebSocketState
from atom_saas_sync.times import time_text


def status_document(status: Status, health: Health, now: datetime) -> dict[str, Any]:
    """Return the document of `status --json` and `GET /api/admin/sync/status`."""
    sync = status.sync
    return {
        "success": True,
        "sync": {
            "status": sync.status,
            "last_sync_at": time_text(sync.last_sync_at),
            "last_successful_sync_at": time_text(sync.last_successful_sync_at),
            "total_syncs": sync.total_syncs,
            "successful_syncs": sync.successful_syncs,
            "failed_syncs": sync.failed_syncs,
            "last_error": sync.last_error,
            "running": _running(status),
        },
        "websocket": _websocket_document(status.websocket, now) | _host(status, "watch"),
        "cache": {
            "skills_count": status.skills,
            "categories_count": status.categories,
            "expired": status.expired_skills,
            "modified": status.modified_skills,
            "republished": status.republished,
            "tampered": status.tampered,
            "edits_deleted": status.edits_deleted,
            "oldest_page_at": time_text(status.oldest_page_at),
        },
        "ratings": {
            "pending": status.ratings_pending,
            "synced": status.ratings_synced,
            "failed": status.ratings_failed,
        },
        "conflicts": {"open": sum(status.conflicts_open.values()), "resolved": status.conflicts_resolved},
        "schedule": {
            "stopped": status.emergency_stop,
            "jobs": [{"id": job.id, "next_run_time": time_text(job.next_run_time)} for job in status.jobs],
        },
        "database": {
            "path": None if status.is_on_server else status.database_path,
            **({"url": status.database_path} if status.is_on_server else {}),
            "marketplace": status.marketplace,
            "revision": status.revision,
            "origin": status.origin,
            "size_bytes": status.database_bytes,
        },
        "trust": trust_document(status.trust),
        "health": health_document(health),
    }


def _running(status: Status) -> list[Any]:
    """Return the kinds of runs in progress; for a database on a server, each with its host."""
    kinds = sorted(status.running)
    return [{"kind": kind} | _host(status, kind) for kind in kinds] if status.is_on_server else list(kinds)


def _host(status: Status, kind: str) -> dict[str, Any]:
    return {"host": status.hosts.get(kind)} if status.is_on_server else {}


def trust_document(trust: TrustState) -> dict[str, Any]:
    """Return the gate's state: waiting updates, quarantine, revocations and pins."""
    return {
        "policy": trust.policy,
        "scope": trust.scope,
        "waiting": trust.waiting,
        "oldest_waiting_at": time_text(trust.oldest_waiting_at),
        "tripped": trust.tripped,
        "quarantined": trust.quarantined,
        "revocations": trust.revocations,
        "pinned": trust.pinned,
    }


def _websocket_document(websocket: WebSocketState, now: datetime) -> dict[str, Any]:
    running = watch_is_running(websocket, now)
    return {
        "connected": websocket_connected(websocket, now),
        "last_connected_at": time_text(websocket.last_connected_at),
        "last_message_at": time_text(websocket.last_message_at),
        "fallback_to_polling": websocket.fallback_to_polling and running,
        "reconnect_attempts": websocket.reconnect_attempts,
        "running": running,
        "disconnect_reason": websocket.disconnect_reason,
    }


def websocket_details(websocket: WebSocketState, now: datetime) -> dict[str, Any]:
    """Return the document of `GET /api/admin/sync/websocket/status`."""
    return {
        **_websocket_document(websocket, now),
        "enabled": websocket.enabled,
        "ws_url": websocket.ws_url,
        "consecutive_failures": websocket.failures,
        "fallback_started_at": time_text(websocket.fallback_started_at),
        "next_attempt_at": time_text(websocket.next_attempt_at),
    }


def health_document(health: Health) -> dict[str, Any]:
    """Return the verdict: stable codes in `reasons`, and explanations in `messages`."""
    return {
        "status": "healthy" if health.healthy else "unhealthy",
        "reasons": [trouble.code for trouble in health.reasons],
        "messages": [trouble.message for trouble in health.reasons],
        "notices": [trouble.code for trouble in health.notices],
    }


def sync_health_document(status: Status, health: Health, now: datetime) -> dict[str, Any]:
    """Return the document of `GET /health/sync`, without paths and names of skills, because the route is public."""
    return {
        "status": "healthy" if health.healthy else "unhealthy",
        "sync": {
            "last_sync_at": time_text(status.sync.last_sync_at),
            "minutes_since_last_sync": minutes_since(status.sync.last_sync_at, now),
            "last_successful_sync_at": time_text(status.sync.last_successful_sync_at),
        },
        "websocket": {
            "connected": websocket_connected(status.websocket, now),
            "last_message_at": time_text(status.websocket.last_message_at),
        },
        "reasons": [trouble.code for trouble in health.reasons],
    }


def rating_document(rating: ListedRating) -> dict[str, Any]:
    """Return a local rating, with its state."""
    return {
        "id": rating.id,
        "skill_id": rating.skill_id,
        "user_id": rating.user_id,
        "rating": rating.stars,
        "comment": rating.comment,
        "state": rating.state,
        "created_at": time_text(rating.created_at),
        "updated_at": time_text(rating.updated_at),
        "synced_at": time_text(rating.synced_at),
        "remote_rating_id": rating.remote_rating_id,
        "note": rating.note,
        "replaced": kept_rating(rating.replaced),
        "error_type": rating.error_type,
        "error_message": rating.error_message,
        "failed_at": time_text(rating.failed_at),
        "last_retry_at": time_text(rating.last_retry_at),
        "next_retry_at": time_text(rating.next_retry_at),
        "retry_count": rating.retry_count,
        "max_retries": rating.max_retries,
    }
