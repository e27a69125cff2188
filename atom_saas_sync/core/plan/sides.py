"""The versions of one skill that a plan compares; each is decoded at most once, and only if needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Self, TypeVar, overload

from atom_saas_sync.core.canonical import content_digest, decode_object, version_from, version_key
from atom_saas_sync.core.gate.admission import admitted_before
from atom_saas_sync.model import Base, SkillState, SkillVersion
from atom_saas_sync.model.effects import Admitted

T = TypeVar("T")


class cached(Generic[T]):  # noqa: N801 - reads like a property
    """A property computed once. Unlike functools.cached_property it takes no lock: a plan belongs to one thread."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...
    @overload
    def __get__(self, owner: object, kind: type) -> T: ...
    def __get__(self, owner: object | None, kind: type) -> Self | T:
        if owner is None:
            return self
        value = owner.__dict__[self._name] = self._compute(owner)
        return value


class StoredText:
    """A stored text of a skill. It has no version if another program stored a text that is not a JSON object."""

    def __init__(self, skill_id: str, text: str, encoded: bytes | None = None) -> None:
        """Take a text, and the same as UTF-8 if the caller has it."""
        self.skill_id = skill_id
        self.text = text
        self._encoded = encoded

    @cached
    def fields(self) -> Mapping[str, Any] | None:
        """Return the decoded fields; None if the text is not a JSON object."""
        return decode_object(self.text if self._encoded is None else self._encoded)

    @property
    def known_fields(self) -> Mapping[str, Any] | None:
        """Return the fields if the text has already been decoded."""
        fields: Mapping[str, Any] | None = self.__dict__.get("fields")
        return fields

    @cached
    def content_digest(self) -> bytes | None:
        """Return the content digest, None if the text is not a JSON object."""
        return None if self.fields is None else content_digest(self.fields)

    @cached
    def version(self) -> SkillVersion | None:
        """Return the whole version; None if the text is not a JSON object."""
        return None if self.fields is None else version_from(self.skill_id, self.text, self.fields)


class Sides:
    """The stored texts of a skill, decoded: local copy, base, and the remote side of an open conflict."""

    def __init__(self, known: SkillState, *, offered: str | None = None) -> None:
        """`offered` is the text of a version that the gate holds or refuses."""
        self.known = known
        self.offered = None if offered is None else StoredText(known.skill_id, offered)

    @property
    def skill_id(self) -> str:
        """The skill's id."""
        return self.known.skill_id

    @cached
    def local(self) -> StoredText | None:
        """Return the cached text."""
        text = self.known.local_text
        encoded = self.known.base_bytes if self.is_untouched else None
        return None if text is None else StoredText(self.skill_id, text, encoded)

    @cached
    def base(self) -> StoredText | None:
        """Return the marketplace's last version, if its text is stored."""
        known = self.known
        if known.base is None or known.base_text is None:
            return None
        return self.local if known.base.text is None else StoredText(known.skill_id, known.base_text, known.base_bytes)

    @cached
    def waiting(self) -> StoredText | None:
        """Return the marketplace's version in the open conflict."""
        waiting = self.known.waiting
        if waiting is None or waiting.remote_text is None:
            return None
        return StoredText(self.skill_id, waiting.remote_text)

    @property
    def base_version(self) -> Admitted | None:
        """Return the whole version of the base, if its text is stored and valid."""
        version = None if self.base is None else self.base.version
        return None if version is None else admitted_before(version)

    @property
    def waiting_version(self) -> Admitted | None:
        """Return the marketplace's whole version in the open conflict."""
        version = None if self.waiting is None else self.waiting.version
        return None if version is None else admitted_before(version)

    @property
    def newest(self) -> StoredText | None:
        """Return the marketplace's newest known version: a waiting one, or the base."""
        return self.offered or self.waiting or self.base

    @property
    def is_untouched(self) -> bool:
        """Tell whether the cached text is the base itself."""
        return self.known.base is not None and self.known.base.text is None

    @property
    def waiting_id(self) -> int | None:
        """Return the id of the open conflict."""
        return None if self.known.waiting is None else self.known.waiting.id

    @cached
    def is_edited(self) -> bool:
        """Tell whether the local copy differs from its base in fields that matter; also if it exists only here."""
        known = self.known
        if known.local_text is None or self.is_untouched:
            return False
        return known.base is None or self.local is None or self.local.content_digest != known.base.content_digest

    @cached
    def is_tampered(self) -> bool:
        """Tell whether the text that counts as the marketplace's is not what it sent."""
        base = self.known.base
        if base is None or self.base is None or self.known.base_is_as_it_came:
            return False
        return self.base.content_digest != base.content_digest


def is_edited(known: SkillState) -> bool:
    """Tell whether the local copy differs from its base in fields that matter; also if it exists only here."""
    return Sides(known).is_edited


def is_tampered(known: SkillState | None) -> bool:
    """Tell whether the text that counts as the marketplace's is not what it sent."""
    return known is not None and Sides(known).is_tampered


def base_of(version: SkillVersion) -> Base:
    """Return a version as the base of a skill that is on no page."""
    return Base(
        version.wire_digest,
        version.content_digest,
        version.exec_digest,
        version.text,
        page=None,
        deleted=False,
        version=version_key(version.fields),
    )
