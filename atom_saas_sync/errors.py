"""Every failure that a person could do something about.

    AtomSyncError
    ├── ConfigError            78  the settings are wrong
    ├── WrongMarketplace       78  the database belongs to another marketplace than the one that is set
    ├── UsageError              2  the command line is wrong, or asks for what is not possible
    │   ├── NotFound            1  what was asked for is not there
    │   └── Ambiguous           1  the beginning of several ids
    ├── MarketplaceError
    │   ├── MarketplaceTimeout 69  no whole answer in time
    │   ├── ConnectionFailed   69  no connection, or it broke
    │   │   └── LinkEnded      69  the WebSocket connection ended, or could not be had
    │   ├── ApiError           69  an error answer, after all retries (65 where a retry cannot help)
    │   ├── TokenRefused       77  401 or 403
    │   ├── RateLimited        75  the request budget is used up
    │   └── BadResponse        65  an answer that is not the contract
    │       └── TooLarge       65  an answer that would take too much memory
    ├── DatabaseError          74  the database or the disk failed
    │   ├── DatabaseBusy       74  another program kept it locked for too long
    │   └── Tampered           74  what counts as the marketplace's is not what it sent
    ├── Locked                 75  another run of this kind is at work
    ├── DeadlineReached        75  `--deadline` ended the run
    └── Interrupted       130/143  SIGINT or SIGTERM ended the run

`exit_code` is the documented exit code of the command line; `kind` is the `error` label of
`atom_saas_sync_errors_total` and the `type` of an error in JSON. Bugs are not in this tree: they crash.
"""

from __future__ import annotations

import signal


class AtomSyncError(Exception):
    """A failure with one clear line for the person: what and why, and in `hint` what to do."""

    exit_code = 1
    kind = "internal"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(AtomSyncError):
    """The settings are wrong; the message holds all problems, one a line."""

    exit_code = 78
    kind = "config"


class WrongMarketplace(AtomSyncError):
    """The database belongs to another marketplace than the one that is set."""

    exit_code = 78
    kind = "wrong_marketplace"


class UsageError(AtomSyncError):
    """What was asked for is not possible."""

    exit_code = 2
    kind = "usage"


class NotFound(UsageError):
    """What was asked for is not there: a skill, a version of it, a conflict, a rating."""

    exit_code = 1
    kind = "not_found"


class Ambiguous(UsageError):
    """What was given in place of an id is the beginning of several."""

    exit_code = 1
    kind = "ambiguous"


class NotLocal(UsageError):
    """What was to be removed does not exist only here."""

    exit_code = 1


class MarketplaceError(AtomSyncError):
    """The marketplace could not be used.

    `transient` tells whether trying again may help; `retry_after` is the pause in seconds that the marketplace asked
    for.
    """

    exit_code = 69
    transient = True
    retry_after: float | None = None


class MarketplaceTimeout(MarketplaceError):
    """A whole answer did not come within the time allowed for a request."""

    kind = "timeout"


class ConnectionFailed(MarketplaceError):
    """No connection: DNS, refused, TLS, or broken off."""

    kind = "connection"


class LinkEnded(ConnectionFailed):
    """The WebSocket connection ended, or could not be had.

    `token_refused` and `bad_frame` (against the protocol, or too large) say what was to blame.
    """

    def __init__(self, message: str, *, token_refused: bool = False, bad_frame: bool = False) -> None:
        super().__init__(message)
        self.token_refused = token_refused
        self.bad_frame = bad_frame


class ApiError(MarketplaceError):
    """An HTTP error answer; `status` is its code. One that no retry can help exits with 65."""

    kind = "api_error"

    def __init__(self, message: str, *, status: int, permanent: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        if permanent:
            self.exit_code = 65
            self.transient = False


class TokenRefused(MarketplaceError):
    """401 or 403: nothing more is tried in this run."""

    exit_code = 77
    kind = "auth"
    transient = False


class RateLimited(MarketplaceError):
    """No request is free within the time that this run may wait."""

    exit_code = 75
    kind = "rate_limited"
    transient = False


class BadResponse(MarketplaceError):
    """An answer that is not the contract: not JSON, cut short, another form, too large."""

    exit_code = 65
    kind = "bad_response"


class TooLarge(BadResponse):
    """An answer that would take too much memory. A smaller page may do."""


class DatabaseError(AtomSyncError):
    """The database or the disk failed, or the file is not ours to use."""

    exit_code = 74
    kind = "database"


class Tampered(DatabaseError):
    """What counts as the marketplace's text of a skill is not what it sent."""

    def __init__(self, skill_id: str) -> None:
        """Name the skill."""
        super().__init__(
            f"the marketplace's text of {skill_id!r} was tampered with; nothing was changed",
            hint="`atom-sync sync skills --force` puts it right",
        )


class DatabaseBusy(DatabaseError):
    """Another program kept the database locked for longer than we wait."""


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
            hint="what was committed is kept; the next run goes on from there",
        )
        self.exit_code = 128 + signal_number
