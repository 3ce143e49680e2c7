"""Files that are whole or absent: each is written beside its place and moved there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ftnas.errors import RunError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in ``path``'s folder that takes its place when the block ends without an error.

    Raises:
        RunError: the folder is not there and cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path.parent}: cannot be made ({error.strerror}); choose another place") from None
    # Always the same name, so that what a kill leaves behind is written over when the run goes on.
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.chmod(0o644)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write plain data to ``path`` as JSON."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read plain data.

    Raises:
        RunError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise RunError(f"{path}: is not whole JSON ({error}); delete it to compute it again") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Write ``tensors`` to ``path`` as safetensors; ``metadata`` (plain data) travels in its header."""
    whole = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as part:
        save_file(whole, part, metadata={"ftnas": json.dumps(metadata or {})})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors and the metadata that ``write_tensors`` wrote.

    Raises:
        RunError: the file is missing, truncated or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("ftnas", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(f"{path}: is not a whole safetensors file ({error}); delete it to compute it again") from None
