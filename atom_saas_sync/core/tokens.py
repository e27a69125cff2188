"""Reading the expiry time of a token, if it is a JWT."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from atom_saas_sync.core.canonical import decode_object


def expires_at(token: str) -> datetime | None:
    """Return when a JWT expires; None for any other token, or a JWT without an expiry time.

    The signature is not verified: the time is only used for warnings.
    """
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        fields = decode_object(payload.decode())
        expiry = fields.get("exp") if fields else None
        if isinstance(expiry, bool) or not isinstance(expiry, int | float):
            return None
        return datetime.fromtimestamp(expiry, UTC)
    except (ValueError, OverflowError, OSError):
        return None
