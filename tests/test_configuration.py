"""Configuration files and overrides: what is right becomes typed values, what is wrong one clear line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError

from ftnas.configuration import Section, override, read_yaml, validate
from ftnas.errors import ConfigError


class Search(Section):
    trials: int = Field(10, gt=0)
    rate: float = 0.1


class Experiment(Section):
    name: str
    search: Search = Search()
    fallback: Search | None = None
    several: tuple[Search, ...] = ()


CONTENT: dict[str, Any] = {"name": "one", "search": {"trials": 3}}


def mistake(content: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(Experiment, content, source="one.yaml")
    return str(caught.value)


# Files


def test_a_file_is_read_as_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("name: über\nsearch: {trials: 3}\n", encoding="utf-8")
    assert read_yaml(tmp_path / "one.yaml") == {"name": "über", "search": {"trials": 3}}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\S+one.yaml: cannot be read \(No such file or directory\)$"):
        read_yaml(tmp_path / "one.yaml")


@pytest.mark.parametrize(
    "content", [b"name: [1,\n  2", b"a: b: c", b"\xff\xfe\x00", b"a: !!python/object:os.system {}"]
)
def test_a_file_that_is_not_yaml_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"\A\S+one.yaml: is not YAML \(.+\)\Z"):
        read_yaml(tmp_path / "one.yaml")


@pytest.mark.parametrize(("content", "found"), [("", "NoneType"), ("- 1", "list"), ("hello", "str")])
def test_a_file_without_keys_is_named(content: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(content)
    with pytest.raises(ConfigError, match=rf"one.yaml: a mapping of keys is needed, found {found}$"):
        read_yaml(tmp_path / "one.yaml")


# Overrides


@pytest.mark.parametrize(
    ("assignment", "value"),
    [("7", 7), ("0.5", 0.5), ("true", True), ("null", None), ("text", "text"), ("[1, 2]", [1, 2]), ("a=b", "a=b")],
)
def test_an_override_is_read_as_yaml(assignment: str, value: Any) -> None:
    assert override({}, [f"key={assignment}"]) == {"key": value}


def test_an_override_changes_one_key_and_keeps_its_neighbours() -> None:
    assert override(CONTENT, ["search.rate=0.2"]) == {"name": "one", "search": {"trials": 3, "rate": 0.2}}


def test_an_override_makes_the_sections_that_are_missing() -> None:
    assert override({}, ["search.deep.trials=5"]) == {"search": {"deep": {"trials": 5}}}


def test_the_last_override_of_a_key_counts() -> None:
    assert override(CONTENT, ["name=two", "name=three"])["name"] == "three"


def test_an_override_leaves_the_content_it_was_given() -> None:
    content = copy.deepcopy(CONTENT)
    override(content, ["search.trials=5"])
    assert content == CONTENT


@pytest.mark.parametrize("assignment", ["search.trials", "=5", ""])
def test_an_override_without_key_or_value_is_shown_how(assignment: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--set {assignment}: expected KEY=VALUE, such as search.trials=50$"):
        override(CONTENT, [assignment])


def test_an_override_below_a_value_names_it() -> None:
    with pytest.raises(ConfigError, match=r"^--set name.first=x: name is a value, not a section$"):
        override(CONTENT, ["name.first=x"])


def test_an_override_that_is_not_yaml_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^--set name=\[1: '\[1' is not a YAML value$"):
        override(CONTENT, ["name=[1"])


# Validation


def test_right_content_becomes_typed_values() -> None:
    assert validate(Experiment, CONTENT, source="one.yaml") == Experiment(name="one", search=Search(trials=3))


def test_a_number_that_yaml_takes_for_text_is_still_a_number() -> None:
    # YAML 1.1 wants a point: it reads 1e-3 as text.
    content = override(CONTENT, ["search.rate=1e-3"])
    assert validate(Experiment, content, source="one.yaml").search.rate == 1e-3


def test_values_never_change() -> None:
    with pytest.raises(ValidationError):
        validate(Experiment, CONTENT, source="one.yaml").name = "two"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"nam": 1}, "one.yaml: nam: unknown key; choose from fallback, name, search, several"),
        ({"search": {"trial": 1}}, "one.yaml: search.trial: unknown key; choose from rate, trials"),
        ({"fallback": {"trial": 1}}, "one.yaml: fallback.trial: unknown key; choose from rate, trials"),
        ({"several": [{}, {"trial": 1}]}, "one.yaml: several.1.trial: unknown key; choose from rate, trials"),
        ({"search": {"trials": 0}}, "one.yaml: search.trials: Input should be greater than 0, got 0"),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_what_is_allowed(change: dict[str, Any], line: str) -> None:
    assert mistake(CONTENT | change) == line


def test_a_wrong_type_names_the_value() -> None:
    line = mistake(CONTENT | {"search": {"trials": "many"}})
    assert line.startswith("one.yaml: search.trials: ") and line.endswith("got 'many'")


def test_a_missing_key_is_named() -> None:
    assert mistake({}) == "one.yaml: name: this key is required"


def test_every_mistake_has_a_line_that_begins_with_the_file() -> None:
    lines = mistake({"search": {"trials": -1, "trial": 1}}).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("one.yaml: ") for line in lines)


def test_a_key_that_is_no_text_is_one_line() -> None:
    assert mistake({**CONTENT, 3: 1}).startswith("one.yaml: 3")  # type: ignore[dict-item]
