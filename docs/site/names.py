"""What a module offers in Python, with signatures and docstrings as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Annotated, Any, get_args, get_origin

from ftnas.configuration import Section

DOCUMENTED = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")
WIDTH = 100


def api(module: ModuleType | FunctionType) -> str:
    """Return what ``module`` offers, each name with its signature and its docstring; or of a function, its own."""
    if isinstance(module, FunctionType):
        return _entry(module.__name__, module)
    names = sorted(getattr(module, "__all__", None) or _own_names(module), key=str.lower)
    return "\n\n".join(filter(None, (_entry(name, getattr(module, name)) for name in names)))


def _own_names(module: ModuleType) -> list[str]:
    """Return the public functions and classes that ``module`` itself defines."""
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__ == module.__name__
    ]


def _entry(name: str, thing: Any) -> str:
    if get_origin(thing) is Annotated:
        return f"### `{name}`\n\n`{_annotation(get_args(thing)[0])}`, as a configuration writes it."
    if not callable(thing) or not getattr(thing, "__doc__", None) or get_origin(thing) is not None:
        return f"### `{name}`\n\n`{_short(thing)}`"
    parts = [f"### `{name}`", _head(name, thing), markdown(inspect.getdoc(thing) or "")]
    if inspect.isclass(thing):
        parts += [_methods(thing)]
    return "\n\n".join(filter(None, parts))


def _head(name: str, thing: Any) -> str:
    if inspect.isclass(thing) and issubclass(thing, Section):
        return "Its keys are in the [configuration](../configuration.md)."
    return f"```py\n{_signature(name, thing)}\n```"


def _methods(thing: type) -> str:
    lines = []
    for name, member in vars(thing).items():
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if name.startswith("_") or not (inspect.isfunction(function) or isinstance(function, property)):
            continue
        summary = _ticks((inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " "))
        shown = name if isinstance(function, property) else _signature(name, function, one_line=True)
        lines.append(f"- `.{shown}`: {summary}")
    return "\n".join(lines)


def _signature(name: str, thing: Any, *, one_line: bool = False) -> str:
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return name
    texts: list[str] = []
    star = False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        star = star or parameter.kind is parameter.VAR_POSITIONAL
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            texts, star = [*texts, "*"], True
        texts.append(_parameter(parameter))
    returned = "" if inspect.isclass(thing) else f" -> {_annotation(signature.return_annotation)}"
    line = f"{name}({', '.join(texts)}){returned}"
    if one_line or len(line) <= WIDTH:
        return line
    return f"{name}(\n    " + ",\n    ".join(texts) + f",\n){returned}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = "*" * ((parameter.kind is parameter.VAR_POSITIONAL) + 2 * (parameter.kind is parameter.VAR_KEYWORD))
    typed = "" if parameter.annotation is parameter.empty else f": {_annotation(parameter.annotation)}"
    equals = " = " if typed else "="
    default = "" if parameter.default is parameter.empty else f"{equals}{_short(parameter.default)}"
    return f"{stars}{parameter.name}{typed}{default}"


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return "None"
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _short(value: Any) -> str:
    """Return a value's text; a table's is its keys, since what they stand for has no text that stays."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(repr(key) for key in value) + "}"
    if inspect.isroutine(value) or inspect.isclass(value):
        return str(value.__name__)
    return re.sub(r"\b(?:typing|collections\.abc|ftnas(?:\.\w+)+)\.(?=\w)", "", repr(value))


def markdown(docstring: str) -> str:
    """Return a docstring as Markdown: its sections become lists, its double backticks single ones."""
    lines: list[str] = []
    inside = False
    for line in docstring.splitlines():
        if DOCUMENTED.match(line):
            inside = True
            lines += ["", f"**{line[:-1]}**", ""]
        elif inside and line.startswith("    ") and not line.startswith("     "):
            lines.append(_item(line.strip()))
        else:
            inside = inside and (line.startswith(" ") or not line)
            lines.append(f"  {line.strip()}" if inside and line else line)
    return _ticks("\n".join(lines))


def _item(text: str) -> str:
    name, colon, meaning = text.partition(": ")
    return f"- `{name}`: {meaning}" if colon and " " not in name else f"- {text}"


def _ticks(text: str) -> str:
    return text.replace("``", "`")
