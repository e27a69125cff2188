"""The dialects of the marketplace's API, as data (marketplace-api.md, section 2)."""

from __future__ import annotations

from msgspec import Struct

from atom_saas_sync.core.outgoing import path_segment


class Dialect(Struct, frozen=True):
    """Paths, which are appended to the base URL, and the headers that carry the token and the instance.

    In header values, `{token}` and `{instance}` are placeholders.
    """

    skills_path: str
    categories_path: str
    rating_path: str
    headers: tuple[tuple[str, str], ...]
    health_path: str = "/health"

    def skill_path(self, skill_id: str) -> str:
        """Return the path of one skill; its id becomes one segment, dots included."""
        return f"{self.skills_path}/{path_segment(skill_id)}"

    def rating_path_for(self, skill_id: str) -> str:
        """Return the path to which ratings of a skill are sent."""
        return self.rating_path.replace("{skill_id}", path_segment(skill_id))


_BEARER = (("Authorization", "Bearer {token}"),)

DIALECTS = {
    "v1": Dialect(
        skills_path="/api/v1/skills",
        categories_path="/api/v1/categories",
        rating_path="/api/v1/ratings",
        headers=_BEARER,
    ),
    "plain": Dialect(
        skills_path="/skills",
        categories_path="/categories",
        rating_path="/ratings",
        headers=_BEARER,
    ),
    "mothership": Dialect(
        skills_path="/skills/marketplace/skills",
        categories_path="/skills/marketplace/categories",
        rating_path="/skills/marketplace/skills/{skill_id}/rate",
        headers=(
            ("X-API-Token", "{token}"),
            ("X-Federation-Key", "{token}"),
            ("X-Instance-ID", "{instance}"),
        ),
    ),
}
