"""The settings: environment and `.env` to one frozen value, or one error that names all problems.

No other module reads the environment. `variables.py` lists what can be set (marketplace-api.md, section 1).
"""

from __future__ import annotations

from atom_saas_sync.config.files import read_token_file, shared_directory
from atom_saas_sync.config.loading import load_settings, show_settings
from atom_saas_sync.config.secrets import Secret, mask, without_query
from atom_saas_sync.config.settings import (
    TOKEN_HINT,
    EffectiveSetting,
    Settings,
    hosts_of,
    require_agreement,
    require_token,
)
from atom_saas_sync.config.variables import (
    SERVICE_DEFAULTS,
    VARIABLES,
    Variable,
    is_system,
    value_of,
    without_secrets,
)

__all__ = [
    "SERVICE_DEFAULTS",
    "TOKEN_HINT",
    "VARIABLES",
    "EffectiveSetting",
    "Secret",
    "Settings",
    "Variable",
    "hosts_of",
    "is_system",
    "load_settings",
    "mask",
    "read_token_file",
    "require_agreement",
    "require_token",
    "shared_directory",
    "show_settings",
    "value_of",
    "without_query",
    "without_secrets",
]
