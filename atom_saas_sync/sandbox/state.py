"""What the sandbox knows: the catalogue with its changes, the ratings, and the pages made from them.

Every method may be called from any thread; one lock guards all. Nothing here knows HTTP or WebSocket.
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
    """What became of a rating that was sent: the answer, and whether anything was stored."""

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
        """Go back to the catalogue as it was at the start: no changes, no ratings, the right time."""
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
            self._answers: dict[str, tuple[str, Json]] = {}  # by idempotency key: digest of the request, the answer
            self._encoded = EncodedPages()

    def now(self) -> datetime:
        """Return the sandbox's time, which tests may shift."""
        return datetime.fromtimestamp(time.time() + self.clock_offset, UTC)

    # Reading

    @property
    def total(self) -> int:
        """How many skills there are."""
        return len(self._order)

    def ids(self) -> list[str]:
        """Return all skill ids in the order of the list."""
        with self._lock:
            return list(self._order)

    def has(self, skill_id: str) -> bool:
        """Tell whether there is such a skill."""
        return skill_id in self._category_of

    def skill(self, skill_id: str) -> Json:
        """Return a copy of the skill as the list shows it. KeyError if there is none."""
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
        """Return one skill with its ratings (contract, "One skill"). KeyError if there is none."""
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
        """Return the encoded form of `skill_document`; not kept, because one skill is quickly made."""
        return Encoded(to_json(self.skill_document(skill_id)))

    def encoded_categories(self, *, bare: bool) -> Encoded:
        """Return the encoded categories, as an object or as the bare list of the `mothership` dialect."""
        with self._lock:
            return self._encoded.once(
                ("categories", bare), lambda: self.category_list() if bare else {"categories": self.category_list()}
            )

    def warm(self, page_size: int = MAX_PAGE_SIZE, *, codings: tuple[str, ...] = ("zstd", "gzip")) -> int:
        """Make all pages of that size now, so that later requests only send. Return how many there are."""
        pages = math.ceil(self.total / page_size)
        for page in range(1, pages + 2):  # and the empty page behind the last one
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
            self._changed[skill_id] = json.loads(json.dumps(skill))  # ours alone, and surely JSON
            self._category_of[skill_id] = category
            if category and category not in self._category:
                self.put_category(category)
            self._forget(skill_id if known and same else None)
            return self._copy(skill_id)

    def patch_skill(self, skill_id: str, fields: Json, *, touch: bool = True) -> Json:
        """Change some fields; unless told otherwise `updated_at` moves on, as a marketplace would do."""
        with self._lock:
            skill = self._copy(skill_id)
            skill.update(fields)
            if touch and "updated_at" not in fields:
                skill["updated_at"] = self._later(skill.get("updated_at"))
            return self.put_skill(skill)

    def touch_many(self, count: int, *, text: bool = True) -> list[Json]:
        """Change `count` skills, one after the other and round again, each time in a way of its own; return them.

        Without `text` only the version changes, nothing that a search would look into.
        """
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
        """Remove a skill. KeyError if there is none."""
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
        """Take a rating as the contract's `POST` brings it.

        The same idempotency key with the same body gets the stored answer and stores nothing; with another body 422.
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
        """Change a rating as the contract's `PUT` asks for it."""
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
        """Store or replace a user's rating, and bring the skill's average up to date. KeyError if there is no skill."""
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
        """Return all stored ratings, not those that the catalogue came with."""
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
        """Return a time that is now, but in any case after `before`: an update is never older than what it updates."""
        now, old = self.now(), parse_time(before)
        moment = max(now, old + timedelta(seconds=1)) if old else now
        self._latest = max(moment, self._latest or moment)
        return format_time(moment)

    def message_time(self) -> datetime:
        """Return the time for a message: now, but not before the last update that was made, whatever is in between."""
        now = self.now()
        return max(now, self._latest or now)

    def _forget(self, skill_id: str | None) -> None:
        """Drop encoded bodies: after a change in place only the pages that may show the skill, otherwise all."""
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
    """Return the refusal of a rating that has not the contract's form (400) or is out of range (422)."""
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
    """Return a digest of a JSON document, the same for the same content."""
    return hashlib.sha256(to_json(document)).hexdigest()
