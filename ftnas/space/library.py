"""Search spaces as files: the bundled ones by name, others by path."""

from __future__ import annotations

from pathlib import Path

from ftnas.configuration import read_yaml, validate
from ftnas.errors import SpaceError
from ftnas.space.search_space import SearchSpace

_PACKAGE = Path(__file__).resolve().parent.parent
_SUFFIXES = (".yaml", ".yml")


def bundled_spaces() -> dict[str, Path]:
    """Return the search spaces that come with ftnas: name to file."""
    packaged = _PACKAGE / "_search_spaces"
    folder = packaged if packaged.is_dir() else _PACKAGE.parent / "search_spaces"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_space(name_or_path: str | Path, relative_to: Path | None = None) -> SearchSpace:
    """Load a search space by the bare name of a bundled one, or by the path of a YAML file.

    Args:
        relative_to: the folder that a relative path starts from, by default the working one.

    Raises:
        SpaceError: there is no bundled space of that name.
        ConfigError: the file cannot be read or is wrong; one line an error.
    """
    path = _path(name_or_path, relative_to or Path())
    return validate(SearchSpace, read_yaml(path), source=str(path))


def _path(name_or_path: str | Path, folder: Path) -> Path:
    path = Path(name_or_path)
    if path.suffix in _SUFFIXES or len(path.parts) > 1:
        return folder / path
    bundled = bundled_spaces()
    if str(name_or_path) not in bundled:
        raise SpaceError(
            f"unknown search space {str(name_or_path)!r}; "
            f"choose from {', '.join(bundled)}, or give the path of a YAML file"
        )
    return bundled[str(name_or_path)]
