"""Layered spiking nets that lie in files: what a search found, as JSON or NIR."""

from __future__ import annotations

import json
from pathlib import Path

from ftnas.data import load_data
from ftnas.errors import ModelError, RunError
from ftnas.files import read_json
from ftnas.pipeline.checkpoints import Checkpoint, limited
from ftnas.pipeline.layered_search import CONFIG, RESULTS
from ftnas.runtime import choose_device, use_threads
from ftnas.spiking.dense.json_file import FORMAT, facts_of, read_network_json
from ftnas.spiking.dense.nir_file import read_nir

SUFFIX = ".nir"


def spiking_file(text: str) -> Path | None:
    """Return the file of the spiking net that ``text`` means: a file of one, or the run folder of a search for them.

    Raises:
        RunError: the search is not finished.
    """
    path = Path(text)
    if (path / CONFIG).exists():
        if not (path / RESULTS).exists():
            raise RunError(f"{path}: has no net yet; finish the search")
        return path / "nets" / f"{read_json(path / RESULTS)['nets'][0]['name']}.json"
    return path if path.suffix == SUFFIX or _is_network(path) else None


def load_spiking(file: Path, *, data: str | None, data_directory: Path | None, images: int | None) -> Checkpoint:
    """Return the net in ``file``, in evaluation mode, with data to measure it on: by default those it was trained on.

    Raises:
        ModelError: the file is damaged, or of a net for other data; or it does not say which, and ``data`` is missing.
        DataError: the data set is unknown or damaged.
    """
    net = read_nir(file) if file.suffix == SUFFIX else read_network_json(file)
    own = None if file.suffix == SUFFIX else facts_of(file).get("data")
    if data is None and own is None:
        raise ModelError(f"--data: {file} does not say which data set it is for; name one")
    loaded = limited(load_data(data or str(own), directory=data_directory), images)
    if (loaded.image_shape, loaded.classes) != (net.image_shape, net.classes):
        shape = "x".join(map(str, loaded.image_shape))
        raise ModelError(f"{file}: is of a net for other data than {loaded.name} ({shape}, {loaded.classes} classes)")
    use_threads(1)
    device = choose_device("auto")
    return Checkpoint(file.stem, net.to(device).eval(), loaded.to(device), origin=str(file))


def _is_network(path: Path) -> bool:
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT
