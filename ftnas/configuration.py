"""YAML files and ``a.b=c`` overrides, validated into typed sections with one clear line an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftnas.errors import ConfigError, one_line

LARGEST = 2**18  # bytes of a YAML file, whose parser takes seconds for them
MOST_PARTS = 100_000  # of its content, each alias counted with all that it stands for
MOST_MISTAKES = 20  # that are told of one file

# What becomes the name of a folder: no path, and nothing that is hidden.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$", max_length=100)]


class Section(BaseModel):
    """A part of a configuration: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


AnySection = TypeVar("AnySection", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, holds no mapping, or more than a configuration ever does.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe could wait without end
            raise ConfigError(f"{path}: cannot be read (it is not a file)")
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path}: holds more than {LARGEST} bytes, which no configuration needs")
        content = _loaded(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a mapping of keys is needed, found {type(content).__name__}")
    return content


def _loaded(text: str) -> Any:
    """Return plain data: text in YAML names no types but its own, and runs nothing.

    Raises:
        ValueError: it is no YAML, or a few aliases stand for more than the memory holds.
    """
    try:
        content = yaml.safe_load(text)
        _parts(content, {})
    except RecursionError:
        raise ValueError("it is nested too deeply, or a part of it holds itself") from None
    # Of numbers, dates and the like that are none, the parser says whatever Python says.
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(str(error)) from None
    return content


def _parts(content: Any, known: dict[int, int]) -> int:
    """Return of how many parts ``content`` is made; ``known`` are those of what was counted, by identity.

    Raises:
        ValueError: it has too many, a text that no file's name and no terminal takes, or a number beyond all use.
    """
    if isinstance(content, str):
        if "\0" in content or (not content.isascii() and any("\ud800" <= letter <= "\udfff" for letter in content)):
            raise ValueError("a text in it holds a zero, or half of a character")
        return 1
    if isinstance(content, int) and not -(2**63) <= content < 2**63:
        raise ValueError("a whole number in it has more than 64 bits")
    if not isinstance(content, dict | list | tuple | set):
        return 1
    if id(content) not in known:
        inner = [*content, *content.values()] if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_parts(part, known) for part in inner)
        if known[id(content)] > MOST_PARTS:
            raise ValueError(f"it has more than {MOST_PARTS} parts, which no configuration needs")
    return known[id(content)]


def override(content: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return ``content`` with each ``a.b=value`` put in its place; the value is read as YAML."""
    result = _copy(content)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {assignment}: expected KEY=VALUE, such as search.trials=50")
        *parents, last = path.split(".")
        place = result
        for key in parents:
            child = place.setdefault(key, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--set {assignment}: {key} is a value, not a section")
            place = child
        try:
            place[last] = _loaded(text)
        except ValueError:
            raise ConfigError(f"--set {assignment}: {text!r} is not a YAML value") from None
    return result


def validate(section: type[AnySection], content: Mapping[str, Any], *, source: str) -> AnySection:
    """Return ``content`` as a ``section``; ``source`` (a file) begins every error line."""
    try:
        return section.model_validate(content)
    except ValidationError as error:
        mistakes = _mistakes(error)
        lines = [one_line(f"{source}: {_place(e['loc'])}: {_reason(section, e)}") for e in mistakes[:MOST_MISTAKES]]
        if len(mistakes) > MOST_MISTAKES:
            lines.append(f"{source}: {len(mistakes) - MOST_MISTAKES} more mistakes like these")
        raise ConfigError("\n".join(lines)) from None


def _copy(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in content.items()}


def _mistakes(error: ValidationError) -> list[Any]:
    """Return the errors without those that follow from another: a list short of an item that is wrong."""
    errors = error.errors()

    def follows(short: Any) -> bool:
        depth = len(short["loc"])
        return short["type"] == "too_short" and any(e["loc"][:depth] == short["loc"] != e["loc"] for e in errors)

    return [e for e in errors if not follows(e)]


def _place(location: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in location) or "(whole file)"


def _reason(section: type[BaseModel], error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown key; choose from {', '.join(_keys_at(section, error['loc'][:-1]))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        return "this key is required"
    if error["type"] == "too_short":
        return f"at least {error['ctx']['min_length']} needed, got {error['ctx']['actual_length']}"
    given = error.get("input")
    if ", got " in message:
        return message
    return f"{message}, got {given!r}" if isinstance(given, (str, int, float, bool)) else message


def _keys_at(section: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Return the keys that the section at ``location`` knows."""
    current: Any = section
    for part in location:
        fields = getattr(current, "model_fields", {})
        if not isinstance(part, str) or part not in fields:
            continue
        current = _section_in(fields[part].annotation)
    return sorted(getattr(current, "model_fields", {}))


def _section_in(annotation: Any) -> Any:
    """Return the section class inside ``annotation`` (``Section``, ``Section | None``, ``list[Section]``)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_in(argument)
        if found is not None:
            return found
    return None
