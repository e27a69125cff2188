"""The paths of a system-wide installation."""

SETTINGS = "/etc/atom-sync/atom-sync.env"
"""Where services and jobs find their settings, unless another file was given."""

TOKEN_FILE = "/etc/atom-sync/token"  # noqa: S105 - where it is, not what it is

DIGEST_KEY_FILE = "/etc/atom-sync/digest-key"
"""Where docs/DEPLOYMENT.md puts the key that signs digests."""

DATABASE_PASSWORD_FILE = "/etc/atom-sync/database-password"  # noqa: S105 - where it is, not what it is

STATE_DIRECTORY = "/var/lib/atom-sync"

SERVICE_USER = "atom-sync"
