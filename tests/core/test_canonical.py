"""Canonical JSON and the two digests of a version, against the standard library and docs/TRUST.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atom_saas_sync.core.canonical import canonical, content_digest, decode_object, exec_digest

_TRUST = (Path(__file__).parents[2] / "docs" / "TRUST.md").read_text(encoding="utf-8")
_VECTORS = re.findall(r"^(\{.*\})\n  content (\w{64})\n  exec    (\w{64})$", _TRUST, re.MULTILINE)

_TEXT = st.text(st.characters(codec=None))  # lone surrogates too
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=5),
    max_leaves=12,
)


@given(JSON)
@example(1e16)
@example(9999999999999998.0)
@example([0.0001, 0.00009999, -0.0, 5e-324])
@example({"\uffff": 1, "\U00010000": 2, "\x7f": "\ud800 \x1f é"})
def test_canonical_json_is_what_the_standard_library_writes(value: Any) -> None:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical(value) == text.encode("utf-8", "backslashreplace")


@pytest.mark.parametrize(("text", "content", "executable"), _VECTORS)
def test_the_vectors_of_the_document_are_our_digests(text: str, content: str, executable: str) -> None:
    fields = decode_object(text)
    assert fields is not None
    assert (content_digest(fields).hex(), exec_digest(fields).hex()) == (content, executable)


def test_the_program_of_the_document_recomputes_the_digests(tmp_path: Path) -> None:
    [program] = re.findall(r"^```python\n(.*?)^```$", _TRUST, re.MULTILINE | re.DOTALL)
    assert len(_VECTORS) >= 6
    for text, content, executable in _VECTORS:
        (tmp_path / "skill.json").write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.split() == ["content", content, "exec", executable]


@pytest.mark.parametrize(
    ("one", "other", "content", "executable"),
    [
        ({"metadata": {"downloads": 1, "author": "a"}}, {"metadata": {"downloads": 2.5, "author": "a"}}, True, True),
        ({"metadata": {"downloads": 1}}, {"metadata": {"downloads": "run this"}}, False, True),
        ({"metadata": {"stars": 1}}, {"metadata": {"stars": True}}, False, True),
        ({"metadata": {"entrypoint": "a"}}, {"metadata": {"entrypoint": "b"}}, False, False),
        ({"metadata": {"author": "a"}}, {"metadata": {"author": "b"}}, False, True),
        ({"ratings": [], "updated_at": 1, "average_rating": 2}, {"rating_count": 7}, True, True),
        ({"description": "a"}, {"description": "b"}, False, True),
        ({"setup": "a"}, {"setup": "b"}, False, False),
        ({"setup": None, "code": "", "x": [], "y": {}, "metadata": {"author": "a"}}, {}, False, True),
        ({"setup": 0}, {}, False, False),
        ({"setup": False}, {}, False, False),
    ],
)
def test_which_fields_are_content_and_which_are_executable(
    one: dict[str, Any], other: dict[str, Any], content: bool, executable: bool
) -> None:
    assert (content_digest(one) == content_digest(other)) is content
    assert (exec_digest(one) == exec_digest(other)) is executable


def test_an_empty_executable_part_is_an_empty_object() -> None:
    assert exec_digest({"skill_id": "a", "name": "A", "metadata": {"likes": 1}}) == sha256(b"{}").digest()
