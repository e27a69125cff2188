"""Inputs for the fuzzers: any JSON values in any spelling, and slightly corrupted valid bytes.

`FUZZ_FACTOR` multiplies the number of inputs (`make fuzz`); without it, a small fixed set is tried.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FACTOR = int(os.environ.get("FUZZ_FACTOR", "0"))
tried: Counter[str] = Counter()
"""How many inputs each test has tried."""

Json = dict[str, Any]


def fuzzing(examples: int) -> Callable[[Any], Any]:
    """Try this many inputs times the factor, or a quarter without one; each decorated test counts them."""
    return settings(
        max_examples=examples * FACTOR if FACTOR else max(3, examples // 4),
        derandomize=not FACTOR,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# Characters that have caused problems: terminators, escapes, surrogates, and some that grow when their case changes.
_TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="\x00\x1b\x7f\x9b\u202e\ufeff\ud800\udfff\U0010ffff'\"\\;%_*ßİ\n\r\t ../", max_size=20),
    st.sampled_from(
        ["", ".", "..", "../../etc/passwd", "__proto__", "NaN", "null", "a" * 300, "' OR 1=1 --", "😀" * 90]
    ),
)
_NUMBERS = st.one_of(
    st.integers(-10, 10),
    st.sampled_from([2**31, 2**53 + 1, 2**63, 2**64, 10**400, -(10**400), 0.1, -0.0, 1e308, 5e-324]),
    st.floats(),
)
# A list in which equal times, ids and versions meet each other and odd ones.
_TIMES = st.sampled_from(
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00+14:00",
        "2027-01-01T00:00:00.123456789Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "2026-02-30T00:00:00Z",
        "yesterday",
    ]
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS, _TIMES),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXTS, inner, max_size=4)),
    max_leaves=12,
)

_FIELDS = (
    "skill_id", "id", "name", "description", "version", "code", "command", "category", "tags", "skill_type",
    "python_packages", "npm_packages", "author", "created_at", "updated_at", "rating", "average_rating",
    "rating_count", "ratings", "input_schema", "metadata", "user_id", "comment", "skill_count",
)  # fmt: skip
IDS = ("known-0", "known-1", "known-2", "new", "New", "../x", "ß")

_good: Json = {"name": st.text(max_size=10), "version": st.sampled_from(["1.0.0", "2.0.0"]), "updated_at": _TIMES}
skills = st.one_of(
    st.fixed_dictionaries(
        {"skill_id": st.sampled_from(IDS), **_good},
        optional={"description": _TEXTS, "tags": st.lists(_TEXTS, max_size=3), "code": _TEXTS, "category": _TEXTS},
    ),
    st.dictionaries(st.one_of(st.sampled_from(_FIELDS), _TEXTS), values, max_size=8),
    values,
)
"""Skills, and values that could be mistaken for one."""


def spelled(value: Any, spelling: int) -> str:
    """Write a value as JSON, or as what Python and others accept as JSON."""
    text = json.dumps(value, ensure_ascii=bool(spelling % 2), allow_nan=True, indent=2 if spelling % 3 == 0 else None)
    if spelling % 5 == 0 and isinstance(value, dict) and value:  # each key twice
        text = f"{{{text.strip()[1:-1]}, {text.strip()[1:-1]}}}"
    return text


_ESCAPED_KEYS = {"code": '"c\\u006fde"', "version": '"\\u0076ersion"', "skill_id": '"skill_i\\u0064"'}


def written(pairs: object) -> str:
    """Write JSON from lists of pairs as objects, so that a key may be repeated, also in escapes."""
    if isinstance(pairs, list):
        return f"[{','.join(map(written, pairs))}]"
    if isinstance(pairs, tuple):
        keys = ((key.removesuffix("\\"), key) for key, _ in pairs)
        texts = [_ESCAPED_KEYS.get(key, json.dumps(key)) if key != drawn else json.dumps(key) for key, drawn in keys]
        return "{" + ",".join(f"{text}:{written(value)}" for text, (_, value) in zip(texts, pairs, strict=True)) + "}"
    return json.dumps(pairs)


def _objects(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    keys = st.sampled_from([*_ESCAPED_KEYS, *(f"{key}\\" for key in _ESCAPED_KEYS), "metadata", "a"])
    return st.one_of(st.lists(st.tuples(keys, inner), max_size=4).map(tuple), st.lists(inner, max_size=3))


_nested = st.recursive(
    st.one_of(st.sampled_from(["good()", "EVIL()", "1.0.0", "known-0"]), st.integers(0, 2)), _objects
)
doubled_skills = st.lists(
    st.tuples(st.sampled_from(["code", "code\\", "version", "version\\", "id", "metadata", "parameters"]), _nested),
    max_size=5,
).map(lambda pairs: written((("skill_id", "known-0"), ("name", "n"), *pairs)).encode())
"""Skills with or without a repeated key: in escapes, or at some depth."""

TOTALS = st.one_of(
    st.integers(0, 6),
    st.sampled_from([-1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 1e19, 5.0, True, "5", []]),
)

_PIECES = (b"[", b"{", b'"', b"\\", b"\xff", b"\\ud800", b"1e999", b",,")


@st.composite
def broken(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Draw valid bytes with up to four bits flipped, or pieces removed, repeated or inserted."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        until = min(len(data), at + draw(st.integers(0, 20)))
        match draw(st.integers(0, 5)):
            case 0 if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[at:until]
            case 2:
                data[at:at] = data[at:until]
            case 3:
                data[at:at] = draw(st.binary(max_size=8))
            case 4:
                data[at:at] = draw(
                    st.sampled_from([b"[", b"{", b'"', b"\\", b"\xff", b"\\ud800", b"1e999", b",,"])
                ) * draw(st.sampled_from([1, 1, 2, 2000]))
            case _:
                del data[at:]
    return bytes(data)


@st.composite
def pages(draw: st.DrawFn) -> bytes:
    """Draw the body of a page of the list, or something else."""
    form: Any = {"skills": draw(st.lists(skills, max_size=5))}
    for name in ("total", "page", "page_size", "success"):
        if draw(st.booleans()):
            form[name] = draw(st.one_of(TOTALS, values))
    if draw(st.integers(0, 9)) == 0:
        form = draw(values)
    return spelled(form, draw(st.integers(0, 30))).encode(errors="surrogatepass")


@st.composite
def categories(draw: st.DrawFn) -> bytes:
    """Draw the body of the list of categories, or something else."""
    rows = draw(
        st.lists(st.one_of(st.fixed_dictionaries({"name": _TEXTS}, optional={"skill_count": values}), _TEXTS, values))
    )
    form: Any = draw(st.sampled_from([{"categories": rows}, rows, {"categories": draw(values)}]))
    return spelled(form, draw(st.integers(0, 30))).encode(errors="surrogatepass")


@st.composite
def frames(draw: st.DrawFn) -> str:
    """Draw a WebSocket message, or something else."""
    kind = draw(
        st.sampled_from(
            ["skill_update", "skill_delete", "rating_update", "category_update", "ping", "pong", "new kind"]
        )
    )
    form: Json = {"type": kind, "data": draw(skills), "timestamp": draw(st.one_of(_TIMES, values))}
    for name in list(form):
        match draw(st.integers(0, 12)):
            case 0:
                del form[name]
            case 1:
                form[name] = draw(values)
    return spelled(form, draw(st.integers(0, 30)))
