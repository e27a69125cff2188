"""The policy file: its syntax, and which rule decides."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from atom_saas_sync.core.gate.policy_file import parse_rules
from atom_saas_sync.core.gate.rules import ruling
from atom_saas_sync.core.gate.types import ADMISSIONS, Admission, Policy
from atom_saas_sync.errors import ConfigError

FIELDS: dict[str, Any] = {
    "name": "Tool",
    "category": "Dev",
    "skill_type": "shell",
    "metadata": {"author": "Acme-Labs"},
}


def rules(text: str) -> Any:
    return parse_rules(text.encode(), "policy.toml")


def admission(text: str, settings: Admission = "review", *, new: bool = False, **fields: Any) -> str:
    return ruling(Policy(settings, rules=rules(text)), "acme/tool", {**FIELDS, **fields}, new=new).admission


def test_the_example_of_the_documentation_is_valid() -> None:
    found = rules("""
        # the first rule that matches decides
        [[rule]]
        publisher = "acme-*"
        admission = "open"
        new = true

        [[rule]]
        skill_type = ["shell", "nodejs"]
        admission = "age"
        min_age = "7d"

        [[rule]]
        publisher = "known-bad"
        admission = "deny"
    """)
    assert [(rule.number, rule.admission, rule.new) for rule in found] == [
        (1, "open", True),
        (2, "age", False),
        (3, "deny", False),
    ]
    assert found[1].min_age == timedelta(days=7)
    assert parse_rules(b"", "policy.toml") == ()
    assert parse_rules(b'\xef\xbb\xbf[[rule]]\nid = "a"\nadmission = "deny"\n', "policy.toml")[0].admission == "deny"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[rule]]\nadmission = "open"', "rule 1: no condition"),
        ('[[rule]]\npublisher = "a"', "rule 1: admission is missing"),
        ('[[rule]]\npublishers = "a"\nadmission = "open"', "rule 1: unknown key 'publishers'"),
        ('[[rule]]\nid = 7\nadmission = "open"', "rule 1: id: invalid value 7: expected a string"),
        ('[[rule]]\nid = []\nadmission = "open"', "rule 1: id: invalid value []"),
        ('[[rule]]\nid = ["a", 1]\nadmission = "open"', "rule 1: id: invalid value"),
        ('[[rule]]\nid = "a"\nadmission = "Open"', "rule 1: admission: invalid value 'Open': expected open, age, re"),
        ('[[rule]]\nid = "a"\nadmission = ["open"]', "rule 1: admission: invalid value"),
        ('[[rule]]\nid = "a"\nadmission = "open"\nmin_age = "7d"', 'rule 1: min_age: expected only with admission = "'),
        (
            '[[rule]]\nid = "a"\nadmission = "age"\nmin_age = "91d"',
            "rule 1: min_age: invalid value '91d': expected a w",
        ),
        ('[[rule]]\nid = "a"\nadmission = "age"\nmin_age = 7', "rule 1: min_age: invalid value 7"),
        ('[[rule]]\nid = "a"\nadmission = "age"\nmin_age = false', "rule 1: min_age: invalid value False"),
        ('[[rule]]\nid = "a"\nadmission = "open"\nnew = 1', "rule 1: new: invalid value 1: expected true or false"),
        ('[rule]\nid = "a"\nadmission = "open"', "rule: expected tables, each under [[rule]]"),
        ("rule = [1]", "rule: expected tables"),
        ('[[rules]]\nid = "a"\nadmission = "open"', "unknown key 'rules': expected [[rule]]"),
        ('admission = "open"', "unknown key 'admission'"),
        ("[[rule]]\nid = a", "not valid TOML: Invalid value (at line 2, column 6)"),
    ],
    ids=lambda text: text[:20] if text.startswith("rule") else "",
)
def test_an_invalid_file_names_the_rule_or_line_and_the_key(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        rules(text)
    assert raised.value.message.startswith("policy.toml: ")
    assert message in raised.value.message


def test_all_problems_are_listed_and_bytes_that_are_not_utf_8_have_their_line() -> None:
    with pytest.raises(ConfigError) as raised:
        rules('[[rule]]\nadmission = "open"\n[[rule]]\nid = "a"\nadmission = "x"')
    assert [line.split(":")[1] for line in raised.value.message.splitlines()] == [" rule 1", " rule 2"]
    with pytest.raises(ConfigError, match="line 2: not valid UTF-8"):
        parse_rules(b"[[rule]]\nid = '\xff'", "policy.toml")
    with pytest.raises(ConfigError, match="nested too deeply"):
        rules("x = " + "[" * 5000)


@pytest.mark.parametrize(
    ("condition", "matches"),
    [
        ('publisher = "acme-*"', True),
        ('publisher = "ACME-LABS"', True),
        ('publisher = "acme"', False),
        ('id = "acme/*"', True),
        ('id = "Acme/Tool"', True),
        ('name = "to?l"', True),
        ('category = "[dx]ev"', True),
        ('skill_type = ["nodejs", "shell"]', True),
        ('skill_type = "nodejs"', False),
        ('publisher = "acme-*"\nskill_type = "nodejs"', False),
    ],
)
def test_conditions_are_shell_patterns_without_case(condition: str, *, matches: bool) -> None:
    assert (admission(f'[[rule]]\n{condition}\nadmission = "deny"') == "deny") is matches


def test_invisible_characters_and_lists_evade_no_rule() -> None:
    deny = '[[rule]]\npublisher = "bad"\nadmission = "deny"\n[[rule]]\nskill_type = "shell"\nadmission = "deny"'
    assert admission(deny, skill_type="x", metadata={"author": " b\u200bad"}) == "deny"
    assert admission(deny, skill_type=["python", "Shell"], metadata={}) == "deny"
    assert admission(deny, skill_type={"a": 1}, metadata="bad") == "review"
    assert admission('[[rule]]\npublisher = ""\nadmission = "deny"', metadata={}) == "deny"


def test_the_first_rule_that_matches_decides() -> None:
    both = '[[rule]]\nid = "*"\nadmission = "age"\nmin_age = "1h"\n[[rule]]\nid = "acme/tool"\nadmission = "deny"'
    found = ruling(Policy("review", rules=rules(both)), "acme/tool", FIELDS, new=False)
    assert (found.admission, found.min_age, found.rule) == ("age", timedelta(hours=1), 1)


@pytest.mark.parametrize("settings", ADMISSIONS[:4])
@pytest.mark.parametrize("of_rule", ADMISSIONS)
def test_a_looser_rule_does_not_apply_to_a_new_skill(settings: Admission, of_rule: Admission) -> None:
    text = f'[[rule]]\npublisher = "acme-*"\nadmission = "{of_rule}"\n'
    looser = ADMISSIONS.index(of_rule) < ADMISSIONS.index(settings)
    assert admission(text, settings) == of_rule
    assert admission(text, settings, new=True) == (settings if looser else of_rule)
    assert admission(text + "new = true", settings, new=True) == of_rule


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        ('id = "acme/tool"', True),
        ('id = ["x", "acme/tool"]', True),
        ('id = "acme/*"', False),
        ('id = "ACME/tool"', False),
    ],
)
def test_a_rule_that_names_a_new_skill_in_full_may_be_looser(condition: str, *, applies: bool) -> None:
    text = f'[[rule]]\n{condition}\nadmission = "open"'
    assert (admission(text, new=True) == "open") is applies


def test_an_id_that_looks_like_a_pattern_is_not_written() -> None:
    policy = Policy("review", rules=rules('[[rule]]\nid = "acme/*"\nadmission = "open"'))
    assert ruling(policy, "acme/*", FIELDS, new=True).admission == "review"


def test_a_shorter_age_is_looser_and_a_skipped_rule_gives_way_to_the_next() -> None:
    text = '[[rule]]\npublisher = "*"\nadmission = "age"\nmin_age = "0"\n[[rule]]\nid = "*"\nadmission = "deny"'
    policy = Policy("age", min_age=timedelta(hours=72), rules=rules(text))
    assert ruling(policy, "a", FIELDS, new=False).min_age == timedelta()
    assert ruling(policy, "a", FIELDS, new=True).admission == "deny"


def test_rules_that_say_lock_need_the_lock_file() -> None:
    assert Policy("lock").needs_lock
    assert Policy("open", rules=rules('[[rule]]\nid = "a"\nadmission = "lock"')).needs_lock
    assert not Policy("review", rules=rules('[[rule]]\nid = "a"\nadmission = "deny"')).needs_lock
