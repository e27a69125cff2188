"""The fields of a skill: ids, names, types, form of volatile fields (marketplace-api.md, section 3, "One skill")."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any
from unicodedata import is_normalized

from atom_saas_sync.characters import DEFAULT_IGNORABLE
from atom_saas_sync.core.incoming.limits import MAX_COMMENT_LENGTH, MAX_COUNT, MAX_ID_LENGTH, MAX_RATINGS
from atom_saas_sync.times import parse_time

TEXT_FIELDS = ("name", "description", "version", "code", "command", "category", "skill_type")
TIME_FIELDS = ("created_at",)
_TEXT_LIST_FIELDS = ("python_packages", "npm_packages", "tags")
_TEXT_TYPES = frozenset({str})
_TEXT_OR_NULL = frozenset({str, type(None)})
_NUMBER_TYPES = frozenset({int, float})
_TIME_TYPES = _TEXT_TYPES | _NUMBER_TYPES
_STARS = range(1, 6)
_STARS_AS_TEXT = frozenset(map(str, _STARS))
SURROGATE = re.compile("[\ud800-\udfff]")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def id_problem(skill_id: object) -> str | None:
    """Say why a skill id is invalid ("One skill"), or return None."""
    if not isinstance(skill_id, str):
        return "no skill_id" if skill_id is None else "skill_id is not a string"
    if skill_id in {"", ".", ".."}:
        return "skill_id is empty or dots"
    if len(skill_id) > MAX_ID_LENGTH:
        return f"skill_id is longer than {MAX_ID_LENGTH} characters"
    if CONTROL.search(skill_id):
        return "skill_id has control characters"
    return None


_USUAL_ID = re.compile(r"[A-Za-z0-9_@+:-][A-Za-z0-9_@+:.-]*")


@cache
def _hidden() -> re.Pattern[str]:
    # Compiled when it is first used: few marketplaces have such ids.
    return re.compile(f"[\u2028\u2029\u2800\ufff9-\ufffb{DEFAULT_IGNORABLE}]")


def name_problem(skill_id: str) -> str | None:
    """Say why an id could be mistaken for another one, or return None (docs/TRUST.md, "One name")."""
    if _USUAL_ID.fullmatch(skill_id):
        return None
    if skill_id.strip() != skill_id:
        return "skill_id has leading or trailing blanks"
    if "\\" in skill_id:
        return "skill_id has a backslash"
    if _hidden().search(skill_id):
        return "skill_id has invisible characters"
    if not {"", ".", ".."}.isdisjoint(skill_id.split("/")):
        return "skill_id has a part between slashes that is empty or dots"
    return None if is_normalized("NFC", skill_id) else "skill_id is not in Unicode normalization form NFC"


def skill_problem(fields: dict[str, Any]) -> str | None:
    """Say which field of a skill has a wrong type, or return None. All fields except `name` may be absent or null."""
    if not isinstance(fields.get("name"), str):
        return "no name" if fields.get("name") is None else "name is not a string"
    return partial_problem(fields)


def partial_problem(fields: dict[str, Any]) -> str | None:
    """Do the same as `skill_problem` for the part of a skill in a WebSocket message."""
    get = fields.get
    if not _TEXT_OR_NULL.issuperset(map(type, map(get, TEXT_FIELDS))):
        wrong = next(name for name in TEXT_FIELDS if type(get(name)) not in _TEXT_OR_NULL)
        return f"{wrong} is not a string"
    for name in TIME_FIELDS:
        value = get(name)
        if value is not None and type(value) not in _TIME_TYPES:
            return f"{name} is not a time"
    for name in _TEXT_LIST_FIELDS:
        value = get(name)
        if value is not None and not (isinstance(value, list) and _TEXT_TYPES.issuperset(map(type, value))):
            return f"{name} is not a list of strings"
    value = get("metadata")
    if value is not None and not isinstance(value, dict):
        return "metadata is not an object"
    return None


def read_update(fields: dict[str, Any]) -> tuple[object, str | None]:
    """Return the id of a whole skill, and the problem with it or its fields."""
    skill_id, problem = read_deletion(fields)
    return skill_id, problem or skill_problem(fields)


def read_deletion(fields: dict[str, Any]) -> tuple[object, str | None]:
    """Return the id in a document, and the problem with it."""
    skill_id, other = fields.get("skill_id", fields.get("id")), fields.get("id")
    problem = id_problem(skill_id)
    return skill_id, problem or (None if other is None or other == skill_id else "skill_id and id differ")


def without_malformed(fields: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return `fields` without malformed volatile values, and the names of the affected fields.

    Volatile fields are stored without anybody's approval, so they may contain only numbers, times and ratings.
    """
    wrong = tuple(
        name
        for name in _FORMS
        if (value := fields.get(name)) is not None and (name == "ratings" or not _FORMS[name](value))
    )
    if not wrong:
        return fields, ()
    formed = {name: value for name, value in fields.items() if name not in wrong or name == "ratings"}
    if isinstance(fields.get("ratings"), list):
        ratings = list(filter(None, map(_formed_rating, fields["ratings"][:MAX_RATINGS])))
        if ratings == fields["ratings"]:
            wrong = tuple(name for name in wrong if name != "ratings")
        else:
            formed["ratings"] = ratings
    else:
        formed.pop("ratings", None)
    return formed if wrong else fields, wrong


def _formed_rating(entry: object) -> dict[str, Any] | None:
    """Return an entry of `ratings` with only the contract's fields; None if one of them has the wrong form."""
    if not isinstance(entry, dict) or read_stars(entry.get("rating")) is None:
        return None
    comment = entry.get("comment")
    if not isinstance(comment, str | None) or len(comment or "") > MAX_COMMENT_LENGTH:
        return None
    for names, has_form in ((_RATING_IDS, read_identifier), (_RATING_TIMES, parse_time)):
        if any(entry.get(name) is not None and has_form(entry[name]) is None for name in names):
            return None
    return {name: value for name, value in entry.items() if name in _RATING_FIELDS}


def _is_figure(value: object, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


_FORMS: dict[str, Callable[[Any], bool]] = {
    "updated_at": lambda value: parse_time(value) is not None,
    "average_rating": lambda value: _is_figure(value, _STARS[-1]),
    "rating_count": lambda value: _is_figure(value, MAX_COUNT),
    "ratings": lambda value: isinstance(value, list),
}
_RATING_IDS, _RATING_TIMES = ("user_id", "rating_id", "skill_id"), ("created_at", "updated_at")
_RATING_FIELDS = frozenset({"rating", "comment", *_RATING_IDS, *_RATING_TIMES})


def read_count(value: object) -> int | None:
    """Return the value if it is a count, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT else None


def read_stars(value: object) -> int | None:
    """Return a number of stars, also from a string or a float; None if it is not from 1 to 5."""
    if isinstance(value, str):
        value = int(value) if value in _STARS_AS_TEXT else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in _STARS:
        return None
    return int(value)


def read_identifier(value: object) -> str | None:
    """Return an identifier as a string, also from a whole number; None if it is invalid."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text if isinstance(text, str) and id_problem(text) is None and not SURROGATE.search(text) else None


def read_average(value: object) -> float | None:
    """Return the value if it is an average of stars, else None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= _STARS[-1] else None
