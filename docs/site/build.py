"""Build the documentation as a site: `python docs/site/build.py` writes build/documentation/site/index.html."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SITE = Path(__file__).parent.resolve()
DOCS = SITE.parent
ROOT = DOCS.parent
BESIDE_DOCS = ("README.md", "CHANGELOG.md", "LICENSE", "benchmarks/README.md", "experiments/README.md")


def stage(pages: Path) -> None:
    """Copy what the site shows to ``pages``, at the places it has in the repository."""
    inside = [path.relative_to(ROOT) for kind in ("*.md", "*.css", "*.js") for path in DOCS.rglob(kind)]
    for place in [*map(Path, BESIDE_DOCS), *inside]:
        target = pages / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / place, target)


def build(folder: Path) -> int:
    """Stage the pages in ``folder`` and let zensical build ``folder/site``; return its exit code.

    A warning, such as a link that leads nowhere, is an error.
    """
    shutil.rmtree(folder, ignore_errors=True)
    stage(folder / "pages")
    shutil.copyfile(SITE / "zensical.toml", folder / "zensical.toml")
    paths = os.pathsep.join([str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(folder / "zensical.toml")]
    return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode


if __name__ == "__main__":
    sys.exit(build(ROOT / "build" / "documentation"))
