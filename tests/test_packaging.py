"""What is declared is what was tested, and outside packages stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import ftnas

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [Requirement(text) for text in [*PROJECT["dependencies"], *EXTRAS["nni"], *EXTRAS["dev"]]]
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()
PINS = [Requirement(line) for line in CONSTRAINTS if line and not line.startswith("#")]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def imported_names(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def test_the_installed_version_is_the_one_in_the_package() -> None:
    assert version("ftnas") == ftnas.__version__


def test_constraints_are_exact_and_torch_comes_first() -> None:
    assert all(str(pin.specifier).startswith("==") for pin in PINS)
    assert PINS[0].name == "torch"


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_the_pinned_version_of_each_dependency_is_allowed(requirement: Requirement) -> None:
    pins = {pin.name.lower(): str(pin.specifier).removeprefix("==") for pin in PINS}
    assert requirement.specifier.contains(pins[requirement.name.lower()])


def test_only_the_logbook_writes_tensorboard_events() -> None:
    # An import-linter contract cannot say this: to it, all of torch is one package.
    users = [
        file for file in (ROOT / "ftnas").rglob("*.py") if "torch.utils.tensorboard" in " ".join(imported_names(file))
    ]
    assert [file.relative_to(ROOT).as_posix() for file in users] == ["ftnas/pipeline/logbook.py"]


def test_the_command_line_starts_without_torch() -> None:
    result = run_python("import sys, ftnas.cli.main; sys.exit('torch' in sys.modules)")
    assert result.returncode == 0, result.stderr or "torch was imported"


def test_everything_but_the_nni_adapter_imports_without_nni_and_torchvision() -> None:
    result = run_python("""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(["nni", "torchvision", "torchaudio"]))
import ftnas
def fail(name): raise ImportError(name)
for module in pkgutil.walk_packages(ftnas.__path__, "ftnas.", onerror=fail):
    if module.name not in {"ftnas.__main__", "ftnas.search.nni_evolution"}:
        importlib.import_module(module.name)
""")
    assert result.returncode == 0, result.stderr
