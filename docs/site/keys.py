"""The typed configuration as tables of keys."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from meanings import MEANINGS
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ftnas.configuration import Section
from ftnas.faults import FAULTS
from ftnas.quantization import Quantization
from ftnas.training.schedules import Schedule

ELSEWHERE: Mapping[type, str] = {
    Quantization: "[a quantisation](#quantisation)",
    Schedule: "[a number or a schedule](#schedule)",
}
NAMED = re.compile(r"((?:``\w+``(?:,\s+|\s+and\s+)?)+): (.*?)(?=(?:``\w+``(?:,\s+|\s+and\s+)?)+: |\Z)", re.DOTALL)
ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)
WORDS: Mapping[type, str] = {int: "a whole number", float: "a number", bool: "`true`, `false`", str: "text"}


def keys(section: type[Section]) -> str:
    """Return the table of a section's keys, those it shares with others last."""
    lines = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    own = vars(section)["__annotations__"]
    for key in [*own, *(key for key in section.model_fields if key not in own)]:
        field = section.model_fields[key]
        cells = (f"`{key}`", default_of(field), allowed(field), meaning(section, key))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sections(*tops: type[Section]) -> str:
    """Return every section inside ``tops`` with a heading, the keys that hold it, and its table."""
    held: dict[type[Section], list[str]] = {}
    for top in tops:
        for path, section in inside(top):
            held.setdefault(section, []).append(f"`{path}`")
    return "\n\n".join(
        f"### {section.__name__}\n\nHeld by {', '.join(dict.fromkeys(paths))}. {summary(section)}\n\n{keys(section)}"
        for section, paths in held.items()
    )


def inside(section: type[Section], path: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Yield (key path, section) of every section inside ``section``."""
    for key, field in section.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if _is_section(kind):
                yield f"{path}{key}", kind
                yield from inside(kind, f"{path}{key}.")


def summary(section: type[Section]) -> str:
    """Return what a section's docstring says before it comes to keys."""
    text = inspect.cleandoc(section.__doc__ or "")
    return _one_line(re.split(r"\n\n|Attributes:|(?:\s|^)(?=(?:``\w+``(?:,\s+|\s+and\s+)?)+:)", text)[0])


def meaning(section: type[Section], key: str) -> str:
    """Return what a key means, said by the docstring of a class that has it or else by ``MEANINGS``."""
    for owner in section.__mro__:
        said = explained(owner).get(key) or MEANINGS.get(owner.__name__, {}).get(key)
        if said:
            return said
    return ""


def explained(section: type) -> Mapping[str, str]:
    """Return the keys that a docstring explains: ``key``: text, or a line of its ``Attributes``."""
    text = inspect.cleandoc(section.__doc__ or "")
    found: dict[str, str] = {}
    for names, said in NAMED.findall(text):
        said = _one_line(said.partition("\n\n")[0]).rstrip(" ;.")
        found |= dict.fromkeys(re.findall(r"\w+", re.sub(r"\band\b", "", names)), _sentence(said))
    _, _, attributes = text.partition("Attributes:\n")
    for name, said in ATTRIBUTE.findall(attributes):
        found[name] = _sentence(_one_line(said).rstrip("."))
    return found


def _sentence(text: str) -> str:
    """Return ``text`` as a sentence of the reference; a symbol such as a_l stays as it is."""
    text = text.replace("`None`", "`null`")
    return (text if text[1:2] == "_" else text[:1].upper() + text[1:]) + "."


def default_of(field: FieldInfo) -> str:
    """Return a field's default as it is written in YAML."""
    if field.default is PydanticUndefined:
        return "required"
    if _is_section(field.annotation):
        return "`{}`"
    if field.default == "":
        return "empty"
    plain = TypeAdapter(Annotated[field.annotation, "key", *field.metadata]).dump_python(field.default, mode="json")
    return f"`{_yaml(plain)}`"


def allowed(field: FieldInfo) -> str:
    """Return in words what a field may be: its type, its limits, and names where only some are known."""
    return _kind(field.annotation, [*field.metadata])


def _kind(annotation: Any, limits: list[Any]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (*ELSEWHERE,):
        return ELSEWHERE[annotation]
    if origin is Annotated:
        return _kind(arguments[0], [*arguments[1:], *limits])
    if origin in (Union, UnionType):
        return " or ".join(_kind(argument, limits if argument is not type(None) else []) for argument in arguments)
    if annotation is type(None):
        return "`null`"
    if origin is Literal:
        return ", ".join(f"`{_yaml(value)}`" for value in arguments)
    if origin is tuple:
        return f"a list{_at_least_one(limits)}: {_kind(arguments[0], [])}"
    if _is_section(annotation):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return _names(annotation, limits) or _limited(annotation, limits)


def _names(annotation: Any, limits: list[Any]) -> str:
    """Return the names that a validator knows: what its refusal of an impossible one says."""
    if not limits or annotation in (int, float, bool):
        return ""
    try:
        TypeAdapter(Annotated[annotation, *limits]).validate_python("?")
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
    else:
        return ""
    known = re.search(r"choose from (.*)$", message)
    if known:
        names = known[1].split(", ")
        return "[faults](faults.md)" if names == [*FAULTS] else ", ".join(f"`{name}`" for name in names)
    return "" if "match pattern" in message else message.partition(" is needed")[0].partition(" such as")[0]


def _limited(annotation: Any, limits: list[Any]) -> str:
    bounds = {type(limit): limit for limit in _flat(limits)}
    low, above = bounds.get(annotated_types.Ge), bounds.get(annotated_types.Gt)
    high, below = bounds.get(annotated_types.Le), bounds.get(annotated_types.Lt)
    word = WORDS.get(annotation, "text")
    if not bounds or word == "text":
        return word
    start = f" from {low.ge}" if low else f" above {above.gt}" if above else ""
    end = f" to {high.le}" if high else f" and below {below.lt}" if below else " up" if low else ""
    return f"{word}{start}{end}"


def _flat(limits: list[Any]) -> Iterator[Any]:
    for limit in limits:
        yield from _flat(limit.metadata) if isinstance(limit, FieldInfo) else [limit]


def _at_least_one(limits: list[Any]) -> str:
    return " of one or more" if any(isinstance(limit, annotated_types.MinLen) for limit in limits) else ""


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    if value == Quantization().to_dict():
        return "{}"
    return json.dumps(value) if isinstance(value, bool | int | float | None) else str(value)


def _is_section(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, Section)


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")
