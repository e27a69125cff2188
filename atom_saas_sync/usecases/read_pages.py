"""Read the items of a page: which are unchanged, changed and invalid.

A second thread reads prefetched pages while the main thread is inside SQLite, which releases the GIL; started earlier,
the two would compete for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from hashlib import sha256

from msgspec import Struct, field

from atom_saas_sync.core.incoming.limits import MAX_PAGE_MEMORY
from atom_saas_sync.core.incoming.skills import read_skill
from atom_saas_sync.errors import TooLarge
from atom_saas_sync.model import FetchedPage, InvalidItem, SkillVersion

MEMORY_TO_READ_AHEAD = 28 * 1024 * 1024
"""While decoded skills that take more wait to be written, no further page is decoded. Those of a page of 1,000 ordinary
skills (5 KB) take 22 MiB."""

MEMORY_AT_ONCE = MAX_PAGE_MEMORY + MAX_PAGE_MEMORY // 2
"""For the decoded skills of all pages that are read but not written: one that is read ahead takes what others leave."""

Digests = Mapping[bytes, str]
"""The digests that are known of a page, with the skills' ids."""


class ParsedPage(Struct):
    """A page of `size` items: the ids with unchanged bytes, the parsed rest, and invalid items.

    `modified` is false if the marketplace has said so, and not sent it. It was asked for at `asked_at`, and taken up at
    `read_at`.
    """

    number: int
    size: int
    etag: str | None
    total: int | None
    asked_at: datetime
    read_at: datetime
    modified: bool = True
    unchanged: set[str] = field(default_factory=set)
    changed: dict[str, SkillVersion] = field(default_factory=dict)
    invalid: list[InvalidItem] = field(default_factory=list)

    @property
    def memory(self) -> int:
        """An upper estimate of the memory of its changed skills, in bytes."""
        return sum(version.memory for version in self.changed.values())


def read_page(page: FetchedPage, known: Digests, now: datetime, *, most: int = MAX_PAGE_MEMORY) -> ParsedPage:
    """Read the items of a page, which go; those whose digest is `known` need no parsing.

    Raises TooLarge if the others, unless there is but one, would take more memory than `most`; then no item goes.
    """
    assert page.asked_at is not None, "it was asked for"
    read = ParsedPage(
        page.number, page.size, page.etag, page.total, page.asked_at, now, modified=page.items is not None
    )
    unchanged, changed, invalid, memory = read.unchanged, read.changed, read.invalid, 0
    for raw in page.items or ():
        digest = sha256(raw).digest()
        skill_id = known.get(digest)
        if skill_id is not None:
            unchanged.add(skill_id)
            continue
        item = read_skill(bytes(raw), digest)
        if isinstance(item, InvalidItem):
            invalid.append(item)
            version = item.if_held
        else:
            changed[item.skill_id] = version = item
        memory += 0 if version is None else version.memory
        if memory > most and page.size > 1:
            raise TooLarge("a page of the list would take too much memory")
    if read.modified:
        page.items = ()
    return read


def excluding(known: Digests, news: AbstractSet[str]) -> Digests:
    """Return the known digests, without those of skills that are about to be written."""
    return {digest: name for digest, name in known.items() if name not in news} if news else known


class PageReader:
    """Reads pages, some of them ahead."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: dict[int, Future[ParsedPage | None]] = {}

    def is_reading(self) -> bool:
        """Tell whether pages that were read ahead have not been taken yet, so that their changes are unknown."""
        return bool(self._ahead)

    def read_ahead(
        self, pages: Sequence[FetchedPage], known: MutableMapping[int, Digests], *, memory: int, now: datetime
    ) -> None:
        """Begin to read the first of these pages, as far as it is said what is known of them, which is taken.

        `memory` is what the skills take that are being written.
        """
        before = _Before(memory)
        for page in pages:
            if page.items is None or page.number not in known:
                return
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
            self._ahead[page.number] = self._thread.submit(_read_after, before, page, known.pop(page.number), now)

    def read(self, page: FetchedPage, known: Callable[[], Digests], now: datetime) -> ParsedPage:
        """Return the page, reading it now if necessary. Raises TooLarge."""
        ahead = self._ahead.pop(page.number, None)
        read = None if ahead is None else ahead.result()
        if read is None:
            return read_page(page, known(), now)
        read.read_at = now
        return read

    def close(self) -> None:
        """Stop the thread."""
        if self._thread is not None:
            self._thread.shutdown()


class _Before(Struct):
    """Pages that are read but not written: their changed skills, and the memory of these."""

    memory: int
    news: set[str] = field(default_factory=set)


def _read_after(before: _Before, page: FetchedPage, known: Digests, now: datetime) -> ParsedPage | None:
    """Read a page while others are not written yet; None if they would take too much memory together."""
    if before.memory > MEMORY_TO_READ_AHEAD:
        return None
    room = min(MAX_PAGE_MEMORY, MEMORY_AT_ONCE - before.memory)
    try:
        read = read_page(page, excluding(known, before.news), now, most=room)
    except TooLarge:
        return None  # when its turn comes, a page may take more
    before.memory += read.memory
    before.news.update(read.changed)
    before.news.update(names_if_held(read.invalid))
    return read


def names_if_held(items: Collection[InvalidItem]) -> list[str]:
    """Return the ids of invalid items that are valid for skills already in the database."""
    return [item.if_held.skill_id for item in items if item.if_held is not None]
