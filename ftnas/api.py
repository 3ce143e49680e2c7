"""The verbs of the command line as functions on the same typed configuration.

from ftnas import api

found = api.search("experiments/digits.yaml", run="runs/r1")
api.campaign("runs/r1", {"faults": ["weights.bit_flip:1e-3"], "chips": 50}, "runs/c1")
api.train({"net": "resnet20", "training": {"epochs": 5}}, "runs/resnet")
api.compare({"nets": ["runs/r1", "runs/resnet", "mobilenet_v2"]}, "runs/compare")
api.export("runs/r1", ["onnx", "c"], "dist")
api.harden("runs/r1", {"method": "split", "budget": 0.25}, "runs/r1-split", faults=["features.bit_flip:0.01"])

A configuration is an object (``RunConfig``, ``TrainConfig``, ``CompareConfig``, ``ChipOptions``, ``SingleOptions``), a
mapping of the same keys, or, but for a campaign, a YAML file. A net is what ``load_net`` returns, or the text that it
takes. What the command line would refuse in one line is a ``FtnasError`` here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ftnas.campaign import ChipResult, Shard, SingleResult
from ftnas.configuration import read_yaml, validate
from ftnas.consent import allow_code
from ftnas.errors import CampaignError
from ftnas.hardening.methods import HardeningOptions
from ftnas.pipeline.campaigns import ChipOptions, Execution, SingleOptions, measure_chips, measure_single
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.pipeline.config import CompareConfig, RunConfig, TrainConfig, load_config
from ftnas.pipeline.families import SearchFinding, SearchRequest, search_family, search_file
from ftnas.pipeline.fault_maps import remap as place_around
from ftnas.pipeline.hardening import HardenedNet, harden_net
from ftnas.pipeline.layered_training import train_layers
from ftnas.pipeline.layered_training_config import is_layered_training, layered_train_config
from ftnas.pipeline.net_comparison import NetComparison, compare_config, compare_nets
from ftnas.pipeline.nets import load_net, own_net
from ftnas.pipeline.run import RunSummary
from ftnas.pipeline.run import search as run_search
from ftnas.pipeline.shared_training import SharedTrainings
from ftnas.pipeline.shared_training import train_search as train_shared
from ftnas.pipeline.spiking_campaigns import measure_graph_chips
from ftnas.pipeline.spiking_nets import graph_file
from ftnas.pipeline.training import train_net

if TYPE_CHECKING:
    from ftnas.export.proof import Proofs
    from ftnas.faults import Fault

__all__ = [
    "Checkpoint",
    "ChipOptions",
    "CompareConfig",
    "HardeningOptions",
    "RunConfig",
    "SearchFinding",
    "SingleOptions",
    "TrainConfig",
    "campaign",
    "compare",
    "export",
    "harden",
    "load_net",
    "remap",
    "search",
    "train",
    "train_search",
]

Keys = Mapping[str, Any]
Options = TypeVar("Options", ChipOptions, SingleOptions, HardeningOptions)


@overload
def search(config: RunConfig, run: Path | str | None = None) -> RunSummary: ...


@overload
def search(config: Keys | Path | str, run: Path | str | None = None) -> RunSummary | SearchFinding: ...


def search(config: RunConfig | Keys | Path | str, run: Path | str | None = None) -> RunSummary | SearchFinding:
    """Search, train the winner, measure it under faults and compare it, as ``ftnas search`` does.

    Args:
        config: everything that decides what the run computes; its key ``family`` says of which nets.
        run: its folder, ``runs/`` and the configuration's name by default. The same call goes on there.

    Returns:
        Of spiking nets a ``SearchFinding``.
    """
    place = None if run is None else Path(run)
    if isinstance(config, Path | str):
        return search_file(Path(config), run=place)
    if isinstance(config, Mapping):
        return search_family(SearchRequest(config, Path("ftnas search"), place))
    return run_search(config, place or Path("runs", config.name))


def train(config: TrainConfig | Keys | Path | str, out: Path | str) -> dict[str, Any]:
    """Train one net and measure it under its faults, as ``ftnas train`` does.

    Args:
        config: which net, which images, how; of a layered spiking net the keys of a ``LayeredTrainConfig``.
        out: the folder for the trained net, which every other function then takes. The same call goes on there.

    Returns:
        The accuracies and costs, as in ``result.json``.
    """
    content, source = _content(config, "train")
    if isinstance(content, Mapping):
        if is_layered_training(content.get("net")):
            return train_layers(layered_train_config(content, source), Path(out))
        content = validate(TrainConfig, content, source=source)
    _allow(config, content.net)
    return train_net(content, Path(out))


def train_search(config: RunConfig | Path | str, run: Path | str | None = None) -> SharedTrainings:
    """Train what a search needs next in its run folder, as ``ftnas train EXPERIMENT.yaml`` does.

    Args:
        config: of the search.
        run: its folder, ``runs/`` and the configuration's name by default. The same call, and ``search``, go on there.
    """
    chosen = load_config(Path(config)) if isinstance(config, Path | str) else config
    return train_shared(chosen, Path(run) if run is not None else Path("runs", chosen.name))


def compare(config: CompareConfig | Keys | Path | str, out: Path | str) -> NetComparison:
    """Train those nets that need it, attack all on the same chips and write one table, as ``ftnas compare`` does.

    Args:
        config: which nets, which images, which faults. What a mapping or a file leaves out is as in the first run or
            training among its nets.
        out: the folder for trainings, records, tables and the page. The same call goes on there.
    """
    content, source = _content(config, "compare")
    settings = compare_config(content, source=source) if isinstance(content, Mapping) else content
    _allow(config, *settings.nets)
    return compare_nets(settings, Path(out))


def campaign(
    net: Checkpoint | Path | str,
    options: ChipOptions | SingleOptions | Keys,
    out: Path | str,
    *,
    workers: int = 1,
    shard: Shard | None = None,
    batch_size: int | None = None,
) -> ChipResult | SingleResult:
    """Measure a net on faulty chips, or under single faults, and write tables and a figure, as ``ftnas campaign`` does.

    Args:
        net: what is measured, on the test images of its data; a spiking graph by the text that names it.
        options: which faults, and how sure the result is to be. A mapping with ``faults`` is of a campaign over chips,
            one without of single faults.
        out: the folder for records, tables and the figure. The same call goes on there.
        workers: threads.
        shard: do only a part of the campaign.
        batch_size: images of one forward pass.
    """
    execution = Execution(Path(out), workers, shard, batch_size)
    chosen: ChipOptions | SingleOptions
    if isinstance(options, Mapping):
        chosen = _options(ChipOptions, options) if "faults" in options else _options(SingleOptions, options)
    else:
        chosen = options
    if isinstance(chosen, ChipOptions):
        graph = None if isinstance(net, Checkpoint) else graph_file(str(net))
        if graph is not None:
            return measure_graph_chips(graph, chosen, execution)
        return measure_chips(_net(net), chosen, execution)
    return measure_single(_net(net), chosen, execution)


def export(
    net: Checkpoint | Path | str,
    formats: Sequence[str],
    out: Path | str,
    *,
    faults: Sequence[Fault | str] = (),
    chip: int = 0,
) -> Proofs:
    """Write a net in other programs' formats, each proven equal to it on the test images, as ``ftnas export`` does.

    Args:
        net: what is written.
        formats: of ``onnx``, ``pt2``, ``safetensors`` and ``c``.
        out: the folder for the files; nothing is written where a proof fails.
        faults: write the faulty twin of the net that these make.
        chip: of this chip.
    """
    from ftnas.pipeline.exports import export as write

    return write(_net(net), formats, Path(out), faults=faults, chip=chip)


def harden(
    net: Checkpoint | Path | str,
    options: HardeningOptions | Keys,
    out: Path | str,
    *,
    faults: Sequence[str] = (),
    chips: int = 20,
    workers: int = 1,
) -> HardenedNet:
    """Protect the parts of a net that faults harm most, and measure it before and after, as ``ftnas harden`` does.

    Args:
        net: what is hardened.
        options: how: an object, or a mapping of its keys.
        out: the folder for the hardened net, which every other function then takes. The same call goes on there.
        faults: what both nets are measured under, as texts; they also decide how copies are merged.
        chips: how many are measured.
        workers: threads.
    """
    chosen = _options(HardeningOptions, options) if isinstance(options, Mapping) else options
    return harden_net(_net(net), chosen, Path(out), faults=faults, chips=chips, workers=workers)


def remap(net: Checkpoint | Path | str, map: Path | str, out: Path | str, *, bypass: bool = False) -> dict[str, Any]:
    """Place the neurons of a layered spiking net where a chip's faults harm least, as ``ftnas remap`` does.

    Args:
        net: left as it is.
        map: the file that says what is broken, ``.json`` or ``.csv``.
        out: a new folder for the net, which every other function then takes.
        bypass: whether the chip passes its broken synapses by, so that they count as 0.

    Returns:
        Accuracies without faults and on the chip, before and after, as in ``remap.json``.
    """
    return place_around(_net(net), Path(map), Path(out), bypass=bypass)


def _net(net: Checkpoint | Path | str) -> Checkpoint:
    return net if isinstance(net, Checkpoint) else load_net(str(net))


def _content(config: Any, verb: str) -> tuple[Any, str]:
    """Return a configuration, that of a file as a mapping, and what begins the message of an error in it."""
    return (read_yaml(Path(config)), str(config)) if isinstance(config, Path | str) else (config, f"ftnas {verb}")


def _allow(config: Any, *nets: str) -> None:
    """Let the Python files among ``nets`` run, unless a file names them: a caller's own object or mapping does."""
    if isinstance(config, Path | str):
        return
    for own in map(own_net, nets):
        if own is not None and own.name:
            allow_code(own.file)


def _options(kind: type[Options], keys: Keys) -> Options:
    """Return the options that ``keys`` give, lists as tuples.

    Raises:
        CampaignError: a key is unknown.
    """
    known = [field.name for field in fields(kind)]
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise CampaignError(f"{unknown[0]}: unknown key; choose from {', '.join(known)}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in keys.items()}
    return kind(**values)
