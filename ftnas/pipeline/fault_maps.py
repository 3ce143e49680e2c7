"""Fault maps of chips: drawn or read, measured on a layered net, and nets whose neurons are placed around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftnas.campaign import accuracy
from ftnas.errors import FaultError, ModelError, RunError
from ftnas.files import write_json
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.pipeline.spiking_nets import TRAINED
from ftnas.spiking.dense.defences import bypassed
from ftnas.spiking.dense.fault_map import FaultMap, draw_map, inject_map
from ftnas.spiking.dense.hardware_faults import SPIKING_FAULTS, divided
from ftnas.spiking.dense.json_file import write_network_json
from ftnas.spiking.dense.map_file import load_map, save_map
from ftnas.spiking.dense.mapping import mapped_around, movable_layers
from ftnas.spiking.dense.network import SpikingNet

IMAGES = 256  # of which the rates of spikes are measured
MAP, RESULT = "map.json", "remap.json"


@dataclass(frozen=True)
class MapMeasured:
    """A fault map, and what a net is worth on its chip.

    Attributes:
        net: name of the net.
        map: what is broken.
        clean: accuracy without faults.
        on_chip: accuracy on the chip.
        bypassed: the same where the chip passes its broken synapses by.
    """

    net: str
    map: FaultMap
    clean: float
    on_chip: float
    bypassed: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        kinds = Counter(f"{fault.part}.{fault.kind}" for fault in self.map.faults)
        worth = {"clean": self.clean, "on_chip": self.on_chip, "bypassed": self.bypassed}
        return {"net": self.net, "faults": len(self.map), "kinds": dict(sorted(kinds.items())), **worth}


def drawn_map(net: Checkpoint, faults: Sequence[str], *, chip: int = 0, study: str = "campaign") -> FaultMap:
    """Draw what is broken on a chip, as a campaign of the same study does.

    Raises:
        FaultError: a fault is impossible, or none of spiking hardware.
        ModelError: the net is no layered spiking one.
    """
    spiking, others = divided(faults)
    if others:
        raise FaultError(f"{others[0]}: is no fault that a map holds; choose from {', '.join(SPIKING_FAULTS)}")
    return draw_map(layered(net), spiking, chip=chip, study=study)


def measure_map(net: Checkpoint, fault_map: FaultMap) -> MapMeasured:
    """Return what ``net`` is worth on the chip of ``fault_map``, on the test images.

    Raises:
        FaultError: the map is of another net.
        ModelError: the net is no layered spiking one.
    """
    model = layered(net)
    clean = accuracy(model, net.data.test_images, net.data.test_labels)
    on_chip, passed = _right(net, model, fault_map), _right(net, model, bypassed(fault_map))
    return MapMeasured(net.name, fault_map, clean, on_chip, passed)


def read_map(net: Checkpoint, path: Path) -> FaultMap:
    """Return the map in ``path``, checked against ``net``.

    Raises:
        FaultError: the file holds none, or one of another net.
        ModelError: the net is no layered spiking one.
    """
    return load_map(path, layered(net))


def remap(net: Checkpoint, path: Path, out: Path, *, bypass: bool = False) -> dict[str, Any]:
    """Place the neurons of ``net`` where the map in ``path`` harms least, and write the net into the folder ``out``.

    Args:
        net: left as it is.
        path: of the fault map.
        out: a new folder, which every other command then takes as a net.
        bypass: whether the chip passes its broken synapses by, so that they count as 0.

    Returns:
        Accuracies without faults and on the chip, before and after, as in ``remap.json``.

    Raises:
        FaultError: the map is of another net.
        ModelError: the net has no neurons that could change places.
        RunError: the folder holds something.
    """
    model = layered(net)
    given = load_map(path, model)
    if not movable_layers(model):
        raise ModelError(f"{net.origin}: has no two fully connected layers in a row whose neurons could change places")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: exists and is not empty; choose another with --out")
    on_chip = bypassed(given) if bypass else given
    moved = mapped_around(model, on_chip, net.data.train_images[:IMAGES])
    found = {
        "net": net.name,
        "data": net.data.name,
        "faults": len(given),
        "bypass": bypass,
        "clean": accuracy(moved, net.data.test_images, net.data.test_labels),
        "before": _right(net, model, on_chip),
        "after": _right(net, moved, on_chip),
    }
    save_map(on_chip, out / MAP)
    write_json(out / RESULT, found)
    write_network_json(moved, out / TRAINED, facts={"data": net.data.name, "source": net.name})
    return found


def layered(net: Checkpoint) -> SpikingNet:
    """Return the model of ``net``.

    Raises:
        ModelError: it is no layered spiking one.
    """
    if not isinstance(net.model, SpikingNet):
        raise ModelError(f"{net.origin}: is no layered spiking net; only such have fault maps")
    return net.model


def _right(net: Checkpoint, model: SpikingNet, fault_map: FaultMap) -> float:
    with inject_map(model, fault_map):
        return accuracy(model, net.data.test_images, net.data.test_labels)
