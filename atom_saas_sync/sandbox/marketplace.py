"""Control of the sandbox: content, faults, clock and pushes, and its log. `server.py` runs it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from atom_saas_sync.errors import UsageError
from atom_saas_sync.sandbox.catalogue import Catalogue, FileCatalogue, Json
from atom_saas_sync.sandbox.encoding import to_json
from atom_saas_sync.sandbox.faults import Fault, Faults
from atom_saas_sync.sandbox.http_api import Market
from atom_saas_sync.sandbox.journal import Journal, LoggedRequest
from atom_saas_sync.sandbox.sending import Link
from atom_saas_sync.sandbox.state import MAX_PAGE_SIZE, State
from atom_saas_sync.sandbox.websocket import Hub, bad_frames, frame

T = TypeVar("T")


class Marketplace:
    """The operations of a sandbox, for Python and the control API."""

    def __init__(
        self,
        catalogue: Path | Catalogue,
        *,
        token: str,
        host: str,
        port: int,
        rate_limit: int,
        latency: float,
        bandwidth: float,
        ping_interval: float,
    ) -> None:
        self.state: State = State(FileCatalogue(catalogue) if isinstance(catalogue, Path) else catalogue)
        self.journal: Journal = Journal()
        self.host = host
        self.port = port
        self._faults = Faults()
        self._market = Market(
            self.state,
            self.journal,
            self._faults,
            self._publish,
            token=token,
            rate_limit=rate_limit,
            link=Link(latency, bandwidth),
        )
        self._hub = Hub(
            self.journal,
            self._faults,
            token=lambda: self.token,
            now=self.state.now,
            message_time=self.state.message_time,
            ping=ping_interval,
        )
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Base URL of the `v1` and `plain` dialects; for `mothership` append `/api/v1/marketplace`, or not."""
        return f"http://{self._url_host()}:{self.port}"

    @property
    def ws_url(self) -> str:
        """The WebSocket URL of the `v1` and `plain` dialects."""
        return f"ws://{self._url_host()}:{self.port}/ws"

    @property
    def token(self) -> str:
        """The accepted token; may be changed at any time."""
        return self._market.token

    @token.setter
    def token(self, token: str) -> None:
        self._market.token = token

    # Content

    def skill_ids(self) -> list[str]:
        """Return all ids in the order of the list."""
        return self.state.ids()

    def skill(self, skill_id: str) -> Json:
        """Return a copy of a skill."""
        return self.state.skill(skill_id)

    def put_skill(self, skill: Json, *, position: int | None = None, push: bool = True) -> Json:
        """Add a skill (at the end of the list, or at `position`) or replace the one with its id."""
        stored = self.state.put_skill(skill, position=position)
        return self._told("skill_update", stored, push=push)

    def patch_skill(self, skill_id: str, fields: Json, *, touch: bool = True, push: bool = True) -> Json:
        """Change some fields of a skill, and `updated_at` unless `touch` is false."""
        return self._told("skill_update", self.state.patch_skill(skill_id, fields, touch=touch), push=push)

    def delete_skill(self, skill_id: str, *, push: bool = True) -> None:
        """Remove a skill."""
        self.state.delete_skill(skill_id)
        self._told("skill_delete", {"skill_id": skill_id}, push=push)

    def put_category(self, name: str, *, push: bool = True, **fields: Any) -> Json:  # noqa: ANN401 - JSON
        """Add a category or change its fields."""
        return self._told("category_update", self.state.put_category(name, **fields), push=push)

    def warm(self, page_size: int = MAX_PAGE_SIZE) -> int:
        """Encode all pages now, so that benchmarks do not wait for the sandbox. Return their number."""
        return self.state.warm(page_size)

    def add_rating(
        self,
        skill_id: str,
        user_id: str,
        rating: int,
        comment: str | None = None,
        *,
        created_at: str | None = None,
        updated_at: str | None = None,
        push: bool = True,
    ) -> Json:
        """Store or replace a user's rating, as if another client had sent it."""
        times = {"created_at": created_at, "updated_at": updated_at}
        stored = self.state.add_rating(skill_id, user_id, rating, comment, **times)
        skill = self.state.skill(skill_id)
        news = {key: skill[key] for key in ("skill_id", "average_rating", "rating_count")} | {"rating": rating}
        self._told("rating_update", news, push=push)
        return stored

    def ratings(self) -> list[Json]:
        """Return all ratings that were sent or added."""
        return self.state.ratings()

    # Faults

    def fault(self, kind: str | Fault, **fields: Any) -> int:  # noqa: ANN401 - the fields of Fault
        """Enable a fault: `fault("error", endpoint="list", status=503, times=2)`. Return its number."""
        return self._faults.add(kind if isinstance(kind, Fault) else Fault(kind, **fields))

    def clear_faults(self, number: int | None = None) -> None:
        """Disable one fault, or all."""
        self._faults.clear(number)

    def faults(self) -> dict[int, tuple[Fault, int]]:
        """Return the enabled faults by number, with how often each has applied."""
        return self._faults.listing()

    def set_rate_limit(self, limit: int) -> None:
        """Change the request budget per minute, and begin a new minute."""
        self._market.limiter.limit = limit
        self._market.limiter.reset()

    def set_clock_offset(self, seconds: float) -> None:
        """Shift the sandbox's clock: the `Date` header and all timestamps."""
        self.state.clock_offset = seconds

    def set_latency(self, seconds: float) -> None:
        """Delay each response by that time."""
        self._market.link.latency = seconds

    def set_bandwidth(self, bytes_per_second: float) -> None:
        """Limit the bodies of all responses together; 0 means no limit."""
        self._market.link.bandwidth = bytes_per_second

    def reset(self) -> None:
        """Discard all changes, ratings, faults and logs; connections stay open."""
        self.state.reset()
        self._faults.clear()
        self.journal.reset()
        self._market.limiter.reset()
        self._hub.silent = False
        self._hub.received.clear()

    # WebSocket

    def push(self, message: Json | str | bytes) -> int:
        """Send a message to all listeners: a document as JSON, a text as it is, bytes as a binary frame.

        Return how many listeners there were.
        """
        if isinstance(message, bytes):
            return self._in_loop(self._hub.write, frame(message, opcode=2))
        text = message.encode() if isinstance(message, str) else to_json(message)
        return self._in_loop(self._hub.write, frame(text))

    def push_bad(self, name: str) -> int:
        """Send one of the malformed frames of `websocket.bad_frames`. Raises KeyError for an unknown name."""
        return self._in_loop(self._hub.write, bad_frames()[name])

    def flood(self, count: int, *, whole: bool = True, text: bool = True, timeout: float = 60.0) -> Json:
        """Change `count` skills (in turn, repeatedly) and push each change as fast as the sockets accept it.

        Everything is encoded before the first byte is sent. With `whole=False` messages contain only the changed
        fields; with `text=False` the description stays. Return the number of messages, the bytes, and the seconds spent
        sending.
        """
        if not self.state.total:
            raise UsageError("there is no skill to update")
        keys = ("skill_id", "name", "description", "version", "updated_at")
        skills = self.state.touch_many(count, text=text)
        frames = [
            self._hub.message("skill_update", skill if whole else {key: skill[key] for key in keys}) for skill in skills
        ]
        start = time.perf_counter()
        sent = asyncio.run_coroutine_threadsafe(self._hub.flood(frames), self._event_loop()).result(timeout)
        return {"messages": count, "bytes": sent, "seconds": round(time.perf_counter() - start, 6)}

    def stream(self, texts: Sequence[str], per_second: float | None = None) -> list[float]:
        """Push texts at a steady rate, or as fast as the sockets accept them; all are framed before the first is sent.

        Return when each was sent (time.monotonic, the same for all processes of a machine); at full speed, when the
        first and the last were.
        """
        frames = [frame(text.encode()) for text in texts]
        if per_second is not None:
            return asyncio.run_coroutine_threadsafe(self._hub.stream(frames, per_second), self._event_loop()).result()
        began = time.monotonic()
        asyncio.run_coroutine_threadsafe(self._hub.flood(frames), self._event_loop()).result()
        return [began, time.monotonic()]

    def silence(self, on: bool = True) -> None:
        """Stop sending to listeners, including pongs, but keep the connections open."""
        self._hub.silent = on

    def close_ws(self, code: int = 1000, reason: str = "") -> None:
        """Close all WebSocket connections with that code."""
        self._in_loop(self._hub.close, code, reason)

    def drop_ws(self, *, reset: bool = False) -> None:
        """Break all WebSocket connections."""
        self._in_loop(lambda: self._hub.drop(reset=reset))

    def ws_messages(self) -> list[str | bytes]:
        """Return the messages that clients sent over the WebSocket."""
        return list(self._hub.received)

    def wait_for_listeners(self, count: int, timeout: float = 60.0) -> bool:
        """Wait until that many WebSocket connections are open; return False after the time limit."""
        return self.wait_for(lambda: self.journal.counters["ws_open"] == count, timeout)

    # What happened

    def counters(self) -> dict[str, int]:
        """Return the counters: requests, connections (total, open, peak), and those of the WebSocket."""
        return dict(self.journal.counters)

    def summary(self) -> Json:
        """Return the sandbox's addresses and content."""
        return {
            "sandbox": True,
            "url": self.url,
            "ws_url": self.ws_url,
            "skills": self.state.total,
            "ratings": len(self.ratings()),
            "faults": len(self.faults()),
            "counters": self.counters(),
        }

    def requests(self, endpoint: str | None = None) -> list[LoggedRequest]:
        """Return the log of requests, for one endpoint (list, skill, categories, ratings, health) or all."""
        return self.journal.requests(endpoint)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 60.0) -> bool:
        """Wait until an event makes the condition true; return False after the time limit."""
        return self.journal.wait_for(condition, timeout)

    # Inside

    def _told(self, kind: str, data: Json, *, push: bool) -> Json:
        if push and self._thread is not None:
            self._publish(kind, data)
        return data

    def _publish(self, kind: str, data: Json) -> None:
        self._in_loop(self._hub.write, self._hub.message(kind, data))

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        raise UsageError("this sandbox does not run")

    def _in_loop(self, function: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401 - hands through
        """Run a function in the server's thread and return its result."""
        loop = self._event_loop()
        if threading.current_thread() is self._thread:
            return function(*arguments)

        async def call() -> T:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(call(), loop).result(10)

    def _url_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host
