"""What the documentation shows, works: Python blocks run, `ftnas` commands parse, tables say what the code says."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from ftnas.configuration import Section
from ftnas.faults import FAULTS
from ftnas.pipeline.config import CompareConfig, RunConfig, TrainConfig
from ftnas.space import SearchSpace

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = DOCS / "site"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
WITH_PYTHON = [page for page in PAGES if "\n```python\n" in page.read_text(encoding="utf-8")]
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


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
                yield f"{name_of(page)}:{line}", command


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scripts that make the site be imported."""
    monkeypatch.syspath_prepend(str(SITE))


def script(name: str) -> Any:
    return __import__(name)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_the_python_blocks_of_a_page_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if any("onnxruntime" in body for _, body in blocks(page, "python")):
        pytest.importorskip("onnxruntime", reason="pip install 'ftnas[export]'")
    namespace: dict[str, object] = {"__name__": "__main__"}
    with torch.random.fork_rng():
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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    targets = [link["target"] for link in LINK.finditer(text) if ":" not in link["target"]]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_says_what_the_code_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert script("reference").filled(text) == text, f"{name_of(page)} is out of date: python docs/site/reference.py"


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("top", [RunConfig, TrainConfig, CompareConfig, SearchSpace], ids=lambda top: top.__name__)
def test_every_key_is_explained_in_one_place(top: type[Section]) -> None:
    keys, meanings = script("keys"), script("meanings").MEANINGS
    for section in {top, *(section for _, section in keys.inside(top))}:
        for key in section.model_fields:
            explained = [owner.__name__ for owner in section.__mro__ if key in keys.explained(owner)]
            said = [owner.__name__ for owner in section.__mro__ if key in meanings.get(owner.__name__, {})]
            assert explained or said, f"{section.__name__}.{key}: no docstring says what it means"
            assert not set(explained) & set(said), f"{section.__name__}.{key}: its docstring says what it means already"


@pytest.mark.usefixtures("site")
def test_the_meanings_beside_the_code_are_of_keys_that_there_are() -> None:
    keys = script("keys")
    tops = (RunConfig, TrainConfig, CompareConfig, SearchSpace)
    sections = {owner for top in tops for _, inside in [("", top), *keys.inside(top)] for owner in inside.__mro__}
    known = {section.__name__: set(getattr(section, "model_fields", {})) for section in sections}
    for name, said in script("meanings").MEANINGS.items():
        assert set(said) <= known.get(name, set()), name


@pytest.mark.usefixtures("site")
def test_every_fault_model_is_in_the_catalogue() -> None:
    assert set(script("catalogue").TITLES) == {name.partition(".")[2] for name in FAULTS}


def test_every_page_can_be_found_in_the_navigation() -> None:
    config = (SITE / "zensical.toml").read_text(encoding="utf-8")
    assert [name for page in PAGES if f'"{(name := name_of(page))}"' not in config] == []
    assert tomllib.loads(config)["project"]["docs_dir"] == "pages"


@pytest.mark.usefixtures("site")
def test_the_site_builds_without_a_warning_and_fetches_nothing_from_a_network(tmp_path: Path) -> None:
    for needed in ("zensical", "latex2mathml"):
        pytest.importorskip(needed, reason="pip install 'ftnas[docs]'")
    assert script("build").build(tmp_path) == 0
    html = {page: page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")}
    fetched = re.compile(r"<(?:script|img|link)[^>]*(?:src|href)=[\"']?(?:https?:)?//", re.IGNORECASE)
    assert (tmp_path / "site" / "docs" / "concepts.html") in html
    assert [page.name for page, text in html.items() if fetched.search(text)] == []


@pytest.mark.usefixtures("site")
def test_every_formula_is_drawn_and_code_is_left_alone() -> None:
    pytest.importorskip("latex2mathml", reason="pip install 'ftnas[docs]'")
    markdown = pytest.importorskip("markdown", reason="pip install 'ftnas[docs]'")
    formulas = script("formulas").Formulas()
    text = "`$x$` costs $5 or $6, $a_l$ does not.\n\n$$\nx^2\n$$\n\n```text\n$$\ny\n$$\n```\n"
    html = markdown.markdown(text, extensions=[formulas, "fenced_code"])
    assert html.count("<math") == 2
    assert "<code>$x$</code> costs $5 or $6" in html
    assert "$$\ny\n$$" in html
    drawn = markdown.markdown((DOCS / "concepts.md").read_text(encoding="utf-8"), extensions=[formulas, "fenced_code"])
    assert "$" not in re.sub(r"<pre>.*?</pre>", "", drawn, flags=re.DOTALL)
