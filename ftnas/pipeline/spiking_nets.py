"""Layered spiking nets that lie in files: what a search found, as JSON or NIR."""

from __future__ import annotations

import json
from pathlib import Path

from ftnas.data import load_data
from ftnas.errors import ModelError, RunError
from ftnas.files import read_json
from ftnas.pipeline.checkpoints import Checkpoint, limited
from ftnas.pipeline.evolution import RESULTS as GRAPH_RESULTS
from ftnas.pipeline.evolution import WINNER, is_evolution
from ftnas.pipeline.layered_search import CONFIG, RESULTS
from ftnas.runtime import choose_device, use_threads
from ftnas.spiking.dense.json_file import FORMAT, facts_of, read_network_json
from ftnas.spiking.dense.nir_file import read_nir
from ftnas.spiking.graph.network_file import FORMAT as GRAPH_FORMAT

SUFFIX = ".nir"
GRAPH = "network.json"
TRAINING, TRAINED = "spiking_training.yaml", "net.json"  # of one training: how, and the net


def spiking_file(text: str) -> Path | None:
    """Return the file of the layered spiking net that ``text`` means: a file of one, the run folder of a search for
    them, or a folder that holds one as ``net.json``, as trainings and exports do.

    Raises:
        RunError: the search or training is not finished.
    """
    path = Path(text)
    if (path / CONFIG).exists():
        if not (path / RESULTS).exists():
            raise RunError(f"{path}: has no net yet; finish the search")
        return path / "nets" / f"{read_json(path / RESULTS)['nets'][0]['name']}.json"
    if (path / TRAINING).exists() and not (path / TRAINED).exists():
        raise RunError(f"{path}: has no net yet; the same ftnas train goes on with it")
    if _is_network(path / TRAINED):
        return path / TRAINED
    return path if path.suffix == SUFFIX or _is_network(path) else None


def graph_file(text: str) -> Path | None:
    """Return the file of the spiking graph that ``text`` means: a file of one, a folder that holds it as
    ``network.json`` or ``net.json``, or the run folder of an evolution, for its winner.

    Raises:
        RunError: the evolution is not finished.
    """
    path = Path(text)
    if is_evolution(path):
        if not (path / GRAPH_RESULTS).exists():
            raise RunError(f"{path}: has no winner yet; the same ftnas search goes on with it")
        return path / WINNER / GRAPH
    files = (path / GRAPH, path / TRAINED) if path.is_dir() else (path,)
    return next((file for file in files if _format_of(file) == GRAPH_FORMAT), None)


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
    return Checkpoint(name_of(file), net.to(device).eval(), loaded.to(device), origin=str(file))


def name_of(file: Path) -> str:
    """Return what the net in ``file`` is called: by its folder, where each folder's net has the same name."""
    return file.resolve().parent.name if file.name == TRAINED else file.stem


def _is_network(path: Path) -> bool:
    return _format_of(path) == FORMAT


def _format_of(path: Path) -> str | None:
    """Return what kind of net a .json file says that it holds."""
    if path.suffix != ".json" or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return str(content.get("format")) if isinstance(content, dict) else None
