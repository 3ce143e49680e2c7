"""What the documentation shows, works: Python blocks run, `ftnas` commands parse, keys and defaults are true."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pydantic_core import PydanticUndefined

from ftnas.configuration import Section
from ftnas.pipeline.config import RunConfig
from ftnas.quantization import Quantization
from ftnas.space.search_space import SearchSpace
from ftnas.space.sections import Preprocess, Sizes, Stem

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^##+ (?P<title>[^\n]*)\n(?P<text>.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)


def blocks(page: Path, info: str) -> list[tuple[int, str]]:
    """Return (line number, text) of the fenced blocks whose opening line is exactly ``info``."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, fence.start("body")), fence["body"])
        for fence in FENCE.finditer(text)
        if fence["info"].strip() == info
    ]


def commands() -> Iterator[tuple[str, str]]:
    """Yield (page:line, command) of each `$ ftnas ...` line; a backslash continues it."""
    for page in PAGES:
        for line, body in blocks(page, "console"):
            for command in re.findall(r"^\$ (ftnas .*)$", body.replace("\\\n", " "), re.MULTILINE):
                yield f"{page.name}:{line}", command


def sections(section: type[Section], path: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Yield (title in the documentation, section) of ``section`` and of every section inside it."""
    yield f"`{path}`" if path else "The run", section
    for key, field in section.model_fields.items():
        if isinstance(field.default, Section) or field.annotation in Section.__subclasses__():
            yield from sections(field.annotation, f"{path}.{key}".lstrip("."))


def row(key: str, default: object) -> str:
    """Return how the line of ``key`` begins."""
    if default is PydanticUndefined:
        return f"| `{key}` | required |"
    if isinstance(default, tuple):
        return f"| `{key}` | `[{', '.join('{}' if item == Quantization() else item for item in default)}]` |"
    if isinstance(default, bool | int | float | None):
        return f"| `{key}` | `{json.dumps(default)}` |"
    return f"| `{key}` | `{default}` |" if isinstance(default, str) and default else f"| `{key}` |"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, body in blocks(page, "python"):
        # The padding makes a traceback name the page's own line.
        exec(compile("\n" * line + body, str(page), "exec"), namespace)


@pytest.mark.parametrize(("place", "command"), list(commands()))
def test_a_documented_command_parses(place: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftnas.cli.main import app

    monkeypatch.chdir(ROOT)
    group = typer.main.get_group(app)
    words = shlex.split(command, comments=True)[1:]
    try:
        context = group.make_context("ftnas", words)
        name, subcommand, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        assert subcommand is not None
        subcommand.make_context(name, rest, parent=context)
    except typer.Exit as exit_:  # --help and --version have done their work
        assert exit_.exit_code == 0, place


@pytest.mark.parametrize(
    ("title", "section"),
    [
        *sections(RunConfig),
        ("Space", SearchSpace),
        ("Sizes", Sizes),
        ("Stem", Stem),
        ("Preprocess", Preprocess),
    ],
)
def test_the_keys_of_a_section_and_their_defaults_are_documented(title: str, section: type[Section]) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    [text] = [found["text"] for found in HEADING.finditer(page) if title in found["title"].split(", ")]
    rows = [
        row(key, field.default)
        for key, field in section.model_fields.items()
        if section is SearchSpace or field.annotation not in Section.__subclasses__()
    ]
    assert [line for line in rows if line not in text] == []
