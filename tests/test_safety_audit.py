"""Nothing in ftnas that could run what a file says is called anywhere but where it was audited."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import ftnas

PACKAGE = Path(ftnas.__file__).resolve().parent

# What can run what a file says, and where ftnas calls it for a reason. The first ones count where they are called.
BUILT_IN = {"eval", "exec", "compile", "__import__"}
DANGEROUS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open", "yaml.load",
    "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "torch.load", "torch.jit.load", "torch.export.load",
    "torch.hub.load", "joblib.load", "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads",
    "importlib.import_module", "importlib.util.spec_from_file_location", "runpy.run_path", "os.system", "os.popen",
    "subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_output", "subprocess.check_call",
    "numpy.load", "tarfile.extractall",
}  # fmt: skip
AUDITED = {
    "data/restricted_pickle.py: pickle.Unpickler": "finds no class: every name is answered by a stand-in, or refused",
    "data/npz.py: numpy.load": "with allow_pickle=False, see below",
    "importing/python_file.py: importlib.util.spec_from_file_location": "runs what the user has named, see consent",
    "export/program.py: torch.export.load": "of the file that was written a moment before, to prove it equal",
    "export/c_program.py: subprocess.run": "the C compiler, and the program made of our own source",
    "spiking/dense/nir_file.py: importlib.import_module": "a constant name: nir",
    "spiking/dense/hdf5_check.py: importlib.import_module": "a constant name: h5py",
}
# Rooms of others' in which processes are started: nothing in them comes from a file.
STARTERS = ("cli/doctor.py", "pipeline/launching", "pipeline/dashboard", "pipeline/scoring", "pipeline/storage_server")


@cache
def sources() -> dict[str, list[ast.AST]]:
    """Return every node of every file."""
    return {
        file.relative_to(PACKAGE).as_posix(): list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        for file in sorted(PACKAGE.rglob("*.py"))
    }


def name_of(node: ast.expr) -> str:
    """Return a dotted name, or nothing where it is another expression."""
    if isinstance(node, ast.Name):
        return node.id
    inner = name_of(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner and isinstance(node, ast.Attribute) else ""


def uses() -> Iterator[str]:
    """Yield where in ftnas something dangerous is named, under whatever name it was imported."""
    for file, nodes in sources().items():
        renamed: dict[str, str] = {}
        for node in nodes:
            if isinstance(node, ast.Import):
                renamed |= {alias.asname: alias.name for alias in node.names if alias.asname}
            if isinstance(node, ast.ImportFrom):
                renamed |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.Call) and name_of(node.func) in BUILT_IN:
                yield f"{file}: {name_of(node.func)}"
            name = name_of(node) if isinstance(node, ast.Name | ast.Attribute) else ""
            first, dot, rest = name.partition(".")
            for one in {name, f"{renamed.get(first, first)}{dot}{rest}"} & DANGEROUS:
                yield f"{file}: {one}"


def test_nothing_in_ftnas_unpickles_or_evaluates_but_what_was_audited() -> None:
    found = {place for place in uses() if not (place.startswith(STARTERS) and ": subprocess." in place)}
    assert found == AUDITED.keys()


def test_numpy_is_never_allowed_to_unpickle() -> None:
    calls = [
        (file, keyword)
        for file, nodes in sources().items()
        for node in nodes
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in ("allow_pickle", "weights_only")
    ]
    assert calls and all(
        isinstance(keyword.value, ast.Constant) and keyword.value.value is (keyword.arg == "weights_only")
        for _, keyword in calls
    )
