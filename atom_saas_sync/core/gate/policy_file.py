"""The policy file: TOML with rules. The first rule that matches decides."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from atom_saas_sync.core.durations import AGE_TAKES, read_age
from atom_saas_sync.core.gate.rules import CONDITIONS
from atom_saas_sync.core.gate.types import ADMISSIONS, Rule
from atom_saas_sync.errors import ConfigError

_HINT = "nothing was changed; correct the policy file: `atom-sync policy check` reads it again"
_KEYS = {*CONDITIONS, "admission", "min_age", "new"}


def parse_rules(data: bytes, name: str) -> tuple[Rule, ...]:
    """Return the rules of the policy file `name`. Raises ConfigError with all problems, each with rule and key."""
    document = _decode(data, name)
    problems = [f"{name}: unknown key {key!r}: expected [[rule]]" for key in document if key != "rule"]
    tables = document.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.append(f"{name}: rule: expected tables, each under [[rule]]")
        tables = []
    rules = []
    for number, table in enumerate(tables, 1):
        found = list(_problems(table))
        problems += [f"{name}: rule {number}: {problem}" for problem in found]
        if not found:
            rules.append(_rule(number, table))
    if problems:
        raise ConfigError("\n".join(problems), hint=_HINT)
    return tuple(rules)


def _decode(data: bytes, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}: line {line}: not valid UTF-8", hint=_HINT) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"{name}: not valid TOML: {reason}", hint=_HINT) from error


def _problems(table: Mapping[str, Any]) -> Iterator[str]:
    expected = f"expected {', '.join((*CONDITIONS, 'admission', 'min_age'))} or new"
    yield from (f"unknown key {key!r}: {expected}" for key in table if key not in _KEYS)
    for key in CONDITIONS:
        if key in table and not _is_patterns(table[key]):
            yield f"{key}: invalid value {table[key]!r}: expected a string or a list of strings"
    if not any(key in table for key in CONDITIONS):
        yield f"no condition: expected at least one of {', '.join(CONDITIONS)}"
    admission = table.get("admission")
    if "admission" not in table:
        yield "admission is missing"
    elif admission not in ADMISSIONS:
        yield f"admission: invalid value {admission!r}: expected {', '.join(ADMISSIONS[:-1])} or {ADMISSIONS[-1]}"
    if "min_age" in table:
        if admission in ADMISSIONS and admission != "age":
            yield 'min_age: expected only with admission = "age"'
        if _age(table["min_age"]) is None:
            yield f"min_age: invalid value {table['min_age']!r}: expected {AGE_TAKES}"
    if not isinstance(table.get("new", False), bool):
        yield f"new: invalid value {table['new']!r}: expected true or false"


def _is_patterns(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)
    )


def _age(value: object) -> timedelta | None:
    if value == 0 and type(value) is int:
        return timedelta()
    try:
        return read_age(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _rule(number: int, table: Mapping[str, Any]) -> Rule:
    return Rule(
        number=number,
        admission=table["admission"],
        conditions={
            key: (table[key],) if isinstance(table[key], str) else tuple(table[key])
            for key in CONDITIONS
            if key in table
        },
        min_age=_age(table["min_age"]) if "min_age" in table else None,
        new=table.get("new", False),
    )
