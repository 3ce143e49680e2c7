"""The command line from within: what a command prints, and that a refused one changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from click.testing import Result
from typer.testing import CliRunner

from ftnas.cli.main import app
from ftnas.holding import OWN_FILES
from ftnas.pipeline.config import load_config
from ftnas.pipeline.run_folder import open_run
from ftnas.space import bundled_spaces, load_space

SMOKE = Path(__file__).parents[1] / "experiments" / "smoke.yaml"
SPACE = yaml.safe_load(bundled_spaces()["tiny"].read_text(encoding="utf-8"))


def ftnas(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below ``folder`` but those that say who uses it, and the list of checksums."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in OWN_FILES]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refused(folder: Path, *arguments: object) -> str:
    """Check that a mistake is told in one line and changes nothing below ``folder``; return that line."""
    before = contents(folder)
    result = ftnas(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), (result.output, result.exception)
    assert contents(folder) == before
    (line,) = result.stderr.splitlines()
    assert line.startswith("ftnas: ")
    return line


def search(folder: Path, *arguments: object, config: Path = SMOKE) -> str:
    """Return the line with which a search into ``folder``/run is refused, without making it."""
    line = refused(folder, "search", config, "--run", folder / "run", *arguments)
    assert not (folder / "run").exists()
    return line


def lacking(line: str, words: Sequence[object]) -> list[str]:
    return [str(word) for word in words if str(word) not in line]


def make_run(path: Path) -> Path:
    """Make the folder of a smoke run that has only begun."""
    config = load_config(SMOKE)
    open_run(path, config, load_space(config.space))
    return path
