"""The sandbox's state: the catalogue and its changes, ratings, and encoded pages.

All methods are thread-safe (one lock). Independent of HTTP and WebSocket.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from atom_saas_sync.errors import UsageError
from atom_saas_sync.sandbox.catalogue import Catalogue, Json
from atom_saas_sync.sandbox.encoding import Encoded, EncodedPages, to_json
from atom_saas_sync.times import format_time, parse_time

MAX_PAGE_SIZE = 1000
MAX_COMMENT = 1000


class Outcome(NamedTuple):
    """The result of sending a rating: the response, and whether anything was stored."""

    status: int
    document: Json
    stored: bool = False


class State:
    """The marketplace's content."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._lock = threading.RLock()
        self.clock_offset = 0.0
        self.reset()

    def reset(self) -> None:
        """Reset to the initial catalogue: no changes, no ratings, no clock offset."""
        with self._lock:
            self.clock_offset = 0.0
            self._latest: datetime | None = None
            self._order = list(self._catalogue.ids)
            self._base = {skill_id: index for index, skill_id in enumerate(self._order)}
            self._changed: dict[str, Json] = {}
            self._category_of = dict(zip(self._order, self._catalogue.categories_of, strict=True))
            self._category = {category["name"]: category for category in self._catalogue.categories()}
            self._ratings: dict[str, Json] = {}
            self._rating_of: dict[tuple[str, str], str] = {}
            self._answers: dict[str, tuple[str, Json]] = {}  # by idempotency key: digest, response
            self._encoded = EncodedPages()

    def now(self) -> datetime:
        """Return the sandbox's time, which tests may shift."""
        return datetime.fromtimestamp(time.time() + self.clock_offset, UTC)

    # Reading

    @property
    def total(self) -> int:
        """Number of skills."""
        return len(self._order)

    def ids(self) -> list[str]:
        """Return all skill ids in the order of the list."""
        with self._lock:
            return list(self._order)

    def has(self, skill_id: str) -> bool:
        """Tell whether the skill exists."""
        return skill_id in self._category_of

    def skill(self, skill_id: str) -> Json:
        """Return a copy of the skill as in the list. Raises KeyError if it does not exist."""
        with self._lock:
            return self._copy(skill_id)

    def list_page(self, page: int, page_size: int, query: str = "", category: str = "") -> Json:
        """Return one page of the list as a document (contract, "List skills")."""
        with self._lock:
            found = self._find(query, category)
            chosen = found[(page - 1) * page_size : page * page_size]
            return {
                "skills": [self._copy(skill_id) for skill_id in chosen],
                "page": page,
                "page_size": page_size,
                "total": len(found),
                "total_pages": math.ceil(len(found) / page_size),
            }

    def skill_document(self, skill_id: str) -> Json:
        """Return one skill with its ratings (contract, "One skill"). Raises KeyError if it does not exist."""
        with self._lock:
            skill = self._copy(skill_id)
            index = self._base.get(skill_id)
            stored = [rating for rating in self._ratings.values() if rating["skill_id"] == skill_id]
            keys = ("rating_id", "user_id", "rating", "comment", "created_at", "updated_at")
            skill["ratings"] = (self._catalogue.ratings(index) if index is not None else []) + [
                {key: rating[key] for key in keys} for rating in stored
            ]
            return skill

    def category_list(self) -> list[Json]:
        """Return the categories with their counts (contract, "Categories")."""
        with self._lock:
            counts = Counter(self._category_of.values())
            return [{**category, "skill_count": counts[name]} for name, category in self._category.items()]

    # The same, encoded once

    def encoded_page(self, page: int, page_size: int, query: str = "", category: str = "") -> Encoded:
        """Return the encoded form of `list_page`."""
        where = (page, page_size, query, category)
        with self._lock:
            return self._encoded.once(("page", *where), lambda: self.list_page(*where))

    def encoded_skill(self, skill_id: str) -> Encoded:
        """Return the encoded form of `skill_document`; not cached, because one skill is cheap to encode."""
        return Encoded(to_json(self.skill_document(skill_id)))

    def encoded_categories(self, *, bare: bool) -> Encoded:
        """Return the encoded categories, as an object or as the bare list of the `mothership` dialect."""
        with self._lock:
            return self._encoded.once(
                ("categories", bare), lambda: self.category_list() if bare else {"categories": self.category_list()}
            )

    def warm(self, page_size: int = MAX_PAGE_SIZE, *, codings: tuple[str, ...] = ("zstd", "gzip")) -> int:
        """Encode all pages of that size now, so that later requests only send them. Return their number."""
        pages = math.ceil(self.total / page_size)
        for page in range(1, pages + 2):  # and the empty page after the last one
            encoded = self.encoded_page(page, page_size)
            for coding in codings:
                encoded.body(coding)
        return pages

    # Changing skills

    def put_skill(self, skill: Json, *, position: int | None = None) -> Json:
        """Add a skill (at the end of the list, or at `position`) or replace the one with its id."""
        skill_id = skill.get("skill_id") if isinstance(skill, dict) else None
        if not isinstance(skill_id, str):
            raise UsageError("a skill needs a skill_id that is a text")
        with self._lock:
            category = str(skill.get("category") or "")
            known, same = self.has(skill_id), self._category_of.get(skill_id) == category
            if not known:
                self._order.insert(self.total if position is None else position, skill_id)
            self._changed[skill_id] = json.loads(json.dumps(skill))  # a private copy, and valid JSON
            self._category_of[skill_id] = category
            if category and category not in self._category:
                self.put_category(category)
            self._forget(skill_id if known and same else None)
            return self._copy(skill_id)

    def patch_skill(self, skill_id: str, fields: Json, *, touch: bool = True) -> Json:
        """Change some fields and, unless told otherwise, `updated_at`, as a marketplace would."""
        with self._lock:
            skill = self._copy(skill_id)
            skill.update(fields)
            if touch and "updated_at" not in fields:
                skill["updated_at"] = self._later(skill.get("updated_at"))
            return self.put_skill(skill)

    def touch_many(self, count: int, *, text: bool = True) -> list[Json]:
        """Change `count` skills in turn, differently each time; return them. Without `text` only versions change."""
        with self._lock:
            changed = []
            for number in range(count):
                skill = self._copy(self._order[number % self.total])
                if text:
                    description = str(skill.get("description") or "").partition(" [update ")[0]
                    skill["description"] = f"{description} [update {number}]"
                skill |= {"version": f"9.{number}.0", "updated_at": self._later(skill.get("updated_at"))}
                self._changed[skill["skill_id"]] = skill
                changed.append(skill)
            self._forget(None)
            return changed

    def delete_skill(self, skill_id: str) -> None:
        """Remove a skill. Raises KeyError if it does not exist."""
        with self._lock:
            del self._category_of[skill_id]
            self._order.remove(skill_id)
            for rating_id in [key for key, rating in self._ratings.items() if rating["skill_id"] == skill_id]:
                rating = self._ratings.pop(rating_id)
                del self._rating_of[rating["skill_id"], rating["user_id"]]
            self._changed.pop(skill_id, None)
            self._base.pop(skill_id, None)
            self._forget(None)

    def put_category(self, name: str, **fields: object) -> Json:
        """Add a category or change its fields."""
        with self._lock:
            known = self._category.get(name) or {
                "name": name,
                "description": f"Skills about {name}",
                "icon_url": None,
                "created_at": format_time(self.now()),
            }
            self._category[name] = {**known, **fields}
            self._forget(None)
            return next(category for category in self.category_list() if category["name"] == name)

    # Ratings

    def post_rating(self, body: object, key: str, path_skill_id: str = "") -> Outcome:
        """Store a rating sent by the contract's `POST`.

        The same idempotency key and body return the stored response; with another body, 422.
        """
        refusal = _invalid_rating(body, path_skill_id)
        if refusal is not None:
            return refusal
        assert isinstance(body, dict)
        skill_id, user_id = path_skill_id or body["skill_id"], body["user_id"]
        with self._lock:
            told, answer = self._answers.get(key, ("", {})) if key else ("", {})
            if told:
                if told == digest(body):
                    return Outcome(201, answer)
                return _refusal(422, "this Idempotency-Key was used for another body")
            if not self.has(skill_id):
                return _refusal(404, "no such skill")
            stored = self._rating_of.get((skill_id, user_id))
            if stored is not None:
                return _refusal(409, "already rated", **self._ratings[stored])
            rating = self.add_rating(skill_id, user_id, body["rating"], body.get("comment"))
            answer = _rating_answer(rating, self._copy(rating["skill_id"]))
            if key:
                self._answers[key] = (digest(body), answer)
            return Outcome(201, answer, stored=True)

    def put_rating(self, rating_id: str, body: object, path_skill_id: str = "") -> Outcome:
        """Change a rating as the contract's `PUT` requests."""
        with self._lock:
            stored = self._ratings.get(rating_id)
            if stored is None or path_skill_id not in ("", stored["skill_id"]):
                return _refusal(404, "no such rating")
            refusal = _invalid_rating(body, stored["skill_id"])
            if refusal is not None:
                return refusal
            assert isinstance(body, dict)
            if body["user_id"] != stored["user_id"]:
                return _refusal(404, "no such rating")
            rating = self.add_rating(stored["skill_id"], stored["user_id"], body["rating"], body.get("comment"))
            return Outcome(200, _rating_answer(rating, self._copy(rating["skill_id"])), stored=True)

    def add_rating(
        self,
        skill_id: str,
        user_id: str,
        stars: int,
        comment: str | None = None,
        *,
        created_at: str | None = None,
        updated_at: str | None = None,
    ) -> Json:
        """Store or replace a user's rating, and update the skill's average. Raises KeyError for an unknown skill."""
        with self._lock:
            skill = self._copy(skill_id)
            rating_id = self._rating_of.get((skill_id, user_id)) or f"rating-{digest([skill_id, user_id])[:16]}"
            before = self._ratings.get(rating_id)
            moment = format_time(self.now())
            rating = {
                "rating_id": rating_id,
                "skill_id": skill_id,
                "user_id": user_id,
                "rating": stars,
                "comment": comment,
                "created_at": created_at or (before["created_at"] if before else moment),
                "updated_at": updated_at or created_at or moment,
            }
            self._ratings[rating_id] = rating
            self._rating_of[skill_id, user_id] = rating_id
            count = int(skill.get("rating_count") or 0)
            total = float(skill.get("average_rating") or 0) * count - (before["rating"] if before else 0) + stars
            skill["rating_count"] = count if before else count + 1
            skill["average_rating"] = round(total / max(1, skill["rating_count"]), 2)
            self.put_skill(skill)
            return dict(rating)

    def ratings(self) -> list[Json]:
        """Return all stored ratings, without the initial ones of the catalogue."""
        with self._lock:
            return [dict(rating) for rating in self._ratings.values()]

    # Inside

    def _copy(self, skill_id: str) -> Json:
        if skill_id in self._changed:
            copy: Json = json.loads(json.dumps(self._changed[skill_id]))
            return copy
        return self._catalogue.skill(self._base[skill_id])

    def _find(self, query: str, category: str) -> list[str]:
        found = self._order
        if category:
            found = [skill_id for skill_id in found if self._category_of[skill_id] == category]
        if query:
            found = [skill_id for skill_id in found if query.casefold() in self._searched(skill_id)]
        return found

    def _searched(self, skill_id: str) -> str:
        changed = self._changed.get(skill_id)
        return _searched_text(changed if changed is not None else self._catalogue.summary(self._base[skill_id]))

    def _later(self, before: object) -> str:
        """Return the current time, but always later than `before`, the time of the version that is replaced."""
        now, old = self.now(), parse_time(before)
        moment = max(now, old + timedelta(seconds=1)) if old else now
        self._latest = max(moment, self._latest or moment)
        return format_time(moment)

    def message_time(self) -> datetime:
        """Return the time for a message: now, but not before the last update."""
        now = self.now()
        return max(now, self._latest or now)

    def _forget(self, skill_id: str | None) -> None:
        """Drop encoded bodies: after a change in place only the pages that may contain the skill, otherwise all."""
        if skill_id is None:
            self._encoded.clear()
        else:
            self._encoded.forget(self._order.index(skill_id))


def _searched_text(skill: Json) -> str:
    texts = (skill.get("name"), skill.get("description"), *(skill.get("tags") or ()))
    return "\n".join(str(text) for text in texts).casefold()


def _rating_answer(rating: Json, skill: Json) -> Json:
    keys = ("rating_id", "skill_id", "rating", "created_at", "updated_at")
    return {
        "success": True,
        **{key: rating[key] for key in keys},
        "average_rating": skill["average_rating"],
        "rating_count": skill["rating_count"],
    }


def _refusal(status: int, message: str, **fields: object) -> Outcome:
    return Outcome(status, {"success": False, "error": message, **fields})


def _invalid_rating(body: object, path_skill_id: str) -> Outcome | None:
    """Return the error for a rating that violates the contract's form (400) or is out of range (422)."""
    if not isinstance(body, dict):
        return _refusal(400, "the body must be a JSON object")
    skill_id, user_id = body.get("skill_id", path_skill_id), body.get("user_id")
    stars, comment = body.get("rating"), body.get("comment")
    if not isinstance(skill_id, str) or path_skill_id not in ("", skill_id):
        return _refusal(400, "skill_id must be a text, and the same as in the path")
    if not isinstance(user_id, str) or not user_id or not isinstance(comment, str | None):
        return _refusal(400, "user_id must be a text, and comment a text or null")
    if not isinstance(stars, int) or isinstance(stars, bool) or stars not in range(1, 6):
        return _refusal(422, "rating must be a whole number from 1 to 5")
    if len(comment or "") > MAX_COMMENT:
        return _refusal(422, f"comment is longer than {MAX_COMMENT} characters")
    return None


def digest(document: object) -> str:
    """Return a digest of a JSON document; equal for equal content."""
    return hashlib.sha256(to_json(document)).hexdigest()
