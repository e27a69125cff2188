"""Every error that a user or operator can act on.

    AtomSyncError
    ├── ConfigError            78  invalid settings
    ├── WrongMarketplace       78  the database belongs to a different marketplace than the configured one
    ├── UsageError              2  an invalid command line, or an impossible request
    │   ├── NotFound            1  the requested object does not exist
    │   └── Ambiguous           1  a prefix of several ids
    ├── MarketplaceError
    │   ├── MarketplaceTimeout 69  no complete response in time
    │   ├── ConnectionFailed   69  no connection, or it broke
    │   │   └── WebSocketClosed 69  the WebSocket connection ended, or could not be opened
    │   ├── ApiError           69  an error response, after all retries (65 if a retry cannot help)
    │   ├── TokenRefused       77  401 or 403
    │   ├── RateLimited        75  the request budget is used up
    │   └── BadResponse        65  a response that violates the API contract
    │       └── TooLarge       65  a response that would take too much memory
    ├── DatabaseError          74  the database or the disk failed
    │   ├── DatabaseBusy       74  another program kept it locked for too long
    │   └── Tampered           74  a text that counts as the marketplace's is not what it sent
    ├── Locked                 75  another run of this kind is in progress
    ├── DeadlineReached        75  `--deadline` ended the run
    └── Interrupted       130/143  SIGINT or SIGTERM ended the run

`exit_code` is the documented exit code of the command line; `kind` is the `error` label of
`atom_saas_sync_errors_total` and the `type` of an error in JSON. Bugs are not in this tree: they crash.
"""

from __future__ import annotations

import signal


class AtomSyncError(Exception):
    """An error with a one-line message (what and why), and in `hint` what to do."""

    exit_code = 1
    kind = "internal"
    is_denied = False
    """Whether the cause is that this user may not read or write something."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(AtomSyncError):
    """The settings are invalid; the message lists all problems, one per line."""

    exit_code = 78
    kind = "config"


class WrongMarketplace(AtomSyncError):
    """The database belongs to a different marketplace than the configured one."""

    exit_code = 78
    kind = "wrong_marketplace"


class UsageError(AtomSyncError):
    """The request is not possible."""

    exit_code = 2
    kind = "usage"


class NotFound(UsageError):
    """The requested object does not exist: a skill, a version of it, a conflict, a rating."""

    exit_code = 1
    kind = "not_found"


class Ambiguous(UsageError):
    """The given id is a prefix of several ids."""

    exit_code = 1
    kind = "ambiguous"


class NotLocal(UsageError):
    """What was to be removed does not exist only here."""

    exit_code = 1


class NotAdmitted(UsageError):
    """What would be served is revoked, or the skill is in quarantine."""

    exit_code = 4
    kind = "not_admitted"


class MarketplaceError(AtomSyncError):
    """A request to the marketplace failed.

    `transient` tells whether a retry may help; `retry_after` is the pause in seconds that the marketplace requested.
    """

    exit_code = 69
    transient = True
    retry_after: float | None = None


class MarketplaceTimeout(MarketplaceError):
    """No complete response arrived within the time limit of the request."""

    kind = "timeout"


class ConnectionFailed(MarketplaceError):
    """No connection: DNS, refused, TLS, or interrupted."""

    kind = "connection"


class TlsFailed(ConnectionFailed):
    """No encrypted connection: the certificate or the handshake."""


class WebSocketClosed(ConnectionFailed):
    """The WebSocket connection ended, or could not be opened.

    `token_refused` and `bad_frame` (a protocol violation, or too large) tell the cause.
    """

    def __init__(self, message: str, *, token_refused: bool = False, bad_frame: bool = False) -> None:
        super().__init__(message)
        self.token_refused = token_refused
        self.bad_frame = bad_frame


class ApiError(MarketplaceError):
    """An HTTP error response; `status` is its code. The exit code is 65 if a retry cannot help."""

    kind = "api_error"

    def __init__(self, message: str, *, status: int, permanent: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        if permanent:
            self.exit_code = 65
            self.transient = False


class TokenRefused(MarketplaceError):
    """401 or 403: this run sends no more requests."""

    exit_code = 77
    kind = "auth"
    transient = False


class RateLimited(MarketplaceError):
    """No request is available within the time that this run may wait."""

    exit_code = 75
    kind = "rate_limited"
    transient = False


class BadResponse(MarketplaceError):
    """A response that violates the API contract: not JSON, truncated, of the wrong shape, or too large."""

    exit_code = 65
    kind = "bad_response"


class TooLarge(BadResponse):
    """A response that would take too much memory. A smaller page may work."""


class NoRoom(MarketplaceError):
    """There is no memory for a prefetched page, or it is no longer needed. Never shown: it is fetched in its turn."""

    transient = False


class DatabaseError(AtomSyncError):
    """The database or the disk failed, or the file is not accessible."""

    exit_code = 74
    kind = "database"


class Tampered(DatabaseError):
    """A skill's text counts as the marketplace's but is not what it sent."""

    def __init__(self, skill_id: str) -> None:
        """Name the skill."""
        super().__init__(
            f"the marketplace's text of {skill_id!r} was tampered with; nothing was changed",
            hint="`atom-sync sync skills --force` restores it",
        )


class DatabaseBusy(DatabaseError):
    """Another program kept the database locked for longer than our timeout."""


class Locked(AtomSyncError):
    """Another run of the same kind holds the lock."""

    exit_code = 75
    kind = "locked"


class DeadlineReached(AtomSyncError):
    """`--deadline` ended the run between two transactions."""

    exit_code = 75
    kind = "deadline"


class Interrupted(AtomSyncError):
    """A signal ended the run between two transactions."""

    kind = "interrupted"

    def __init__(self, signal_number: int = signal.SIGTERM) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name}",
            hint="what was committed is kept; the next run continues from there",
        )
        self.exit_code = 128 + signal_number
