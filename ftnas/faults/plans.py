"""Plans: all that fails on one chip, drawn ahead, kept in a file, checked against a network and replayed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ftnas.errors import FaultError, RunError
from ftnas.faults.chips import Chip, SitePlan, applies_to, sample_site
from ftnas.faults.events import BIT, KIND, KIND_NAMES, VALUE, WITH_AMOUNT, Events, what
from ftnas.faults.models import Fault, Listed, duration
from ftnas.faults.sites import Site, layer_paths, sites
from ftnas.faults.texts import parse_fault, parse_faults
from ftnas.files import read_tensors, write_tensors
from ftnas.quantization import Number, assume_ranges, tapped

SCHEMA = 2
COLUMNS = ("element", "bit", "kind", "value", "amount")
LISTED = {"weights.listed": Listed("weights"), "features.listed": Listed("features")}


@dataclass(frozen=True, slots=True)
class Plan:
    """All that fails on one chip at the sites of one network.

    Attributes:
        study: with ``number`` the chip's name.
        number: of the chip in the study.
        faults: the fault models, in the order in which they act.
        images: those whose output faults are planned, counted in the data set; empty where only weights fail.
        sites: by site name and index of the fault model.
    """

    study: str
    number: int
    faults: tuple[Fault, ...]
    images: range
    sites: Mapping[tuple[str, int], SitePlan]

    def site_plan(self, site: Site, fault: int, images: range | None = None) -> SitePlan:
        """Return what was planned for ``site``.

        Raises:
            FaultError: the plan was drawn for another network, number format or other images.
        """
        planned = self.sites.get((site.name, fault))
        if planned is None:
            raise FaultError(f"the plan has no site {site.name}; draw it with the output shapes of this network")
        _check_same(planned, site)
        return planned if images is None else planned.of_images(_within(images, self.images))


def output_shapes(
    model: nn.Module, example: Tensor, *, run: Callable[[nn.Module, Tensor], object] | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the output shape of one image at each site that a forward pass of ``example`` ``[N, ...]`` reaches.

    Args:
        model: left as it is; a copy in evaluation mode runs.
        example: a batch of any size.
        run: how the model is called, where ``model(example)`` is not enough.
    """
    twin = copy.deepcopy(model).eval()
    assume_ranges(twin)
    recorder = _Recorder(layer_paths(twin))
    with torch.random.fork_rng(devices=()), torch.no_grad(), tapped(recorder):
        run(twin, example) if run else twin(example)
    return recorder.shapes


def draw_plan(
    model: nn.Module,
    faults: Fault | str | Sequence[Fault | str],
    *,
    images: range = range(0),
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    chip: int = 0,
    study: str = "ftnas",
) -> Plan:
    """Draw all that ``inject`` with the same arguments would inject.

    Args:
        model: gives sites and number formats.
        faults: fault models or their texts, in the order in which they act.
        images: which images of the data set to plan output faults for.
        shapes: from ``output_shapes``; needed where features fail. Sites that it leaves out never run.
        chip: number of the chip in the study.
        study: name of the study.
    """
    device = Chip(study, chip, parse_faults(faults))
    for fault in device.faults:
        if fault.target == "weights" and duration(fault) != "permanent":
            raise FaultError(f"{fault}: a plan holds faults of weights that last; duration must be permanent")
    if any(fault.target == "features" for fault in device.faults) and (not shapes or not images):
        raise FaultError("feature faults need images=range(FIRST, LAST + 1) and shapes=output_shapes(model, example)")
    plans = {}
    known = [site for site in sites(model, shapes=shapes) if site.shape is not None]
    for site in sorted(known, key=lambda site: site.kind == "output"):  # weights first
        for index, fault in enumerate(device.faults):
            if applies_to(fault, site):
                of = images if site.kind == "output" else None
                plans[site.name, index] = sample_site(device, site, fault=index, images=of)
    return Plan(study, chip, device.faults, images, plans)


def check_plan(plan: Plan, model: nn.Module) -> None:
    """Refuse a plan that was drawn for another network than ``model``."""
    known = {site.name: site for site in sites(model)}
    for planned in plan.sites.values():
        if planned.site not in known:
            raise FaultError(f"the plan is for another network: this one has no site {planned.site}")
        if known[planned.site].shape is not None:
            _check_same(planned, known[planned.site])


def save_plan(plan: Plan, path: Path) -> None:
    """Write ``plan`` as one safetensors file with its description, as JSON, in the header."""
    tensors: dict[str, Tensor] = {}
    labels = []
    for index, planned in enumerate(plan.sites.values()):
        columns = zip(COLUMNS, _columns(planned.events), strict=True)
        tensors |= {f"{index}.{name}": torch.from_numpy(column) for name, column in columns}
        labels.append([planned.site, planned.fault, list(planned.shape), planned.bits])
    description = {
        "schema": SCHEMA,
        "study": plan.study,
        "chip": plan.number,
        "faults": [str(fault) for fault in plan.faults],
        "images": [plan.images.start, plan.images.stop],
        "sites": labels,
    }
    write_tensors(path, tensors, {"plan": description})


def load_plan(path: Path, model: nn.Module) -> Plan:
    """Read the plan in ``path``.

    Raises:
        FaultError: the file holds no whole plan, or that of another network than ``model``.
    """
    try:
        tensors, metadata = read_tensors(path)
        plan = _plan(metadata["plan"], tensors)
    except RunError as error:
        raise FaultError(str(error).partition(";")[0]) from None
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise FaultError(f"{path}: holds no fault plan of schema {SCHEMA} ({error!r})") from None
    check_plan(plan, model)
    return plan


def _plan(content: Any, tensors: Mapping[str, Tensor]) -> Plan:
    if content["schema"] != SCHEMA:
        raise ValueError(f"schema {content['schema']}")
    study, chip, images = content["study"], content["chip"], range(*_whole_numbers(content["images"]))
    if not isinstance(study, str) or not isinstance(chip, int) or len(content["images"]) != 2:
        raise ValueError(f"study {study!r}, chip {chip!r}, images {content['images']!r}")
    plans = {}
    for index, (name, fault, shape, bits) in enumerate(content["sites"]):
        if not isinstance(name, str) or fault not in range(len(content["faults"])):
            raise ValueError(f"fault {fault!r} at {name!r}")
        _whole_numbers([*shape, bits])
        columns = [tensors[f"{index}.{column}"].numpy() for column in COLUMNS]
        if any(column.ndim != 1 for column in columns) or len({len(column) for column in columns[:-1]}) > 1:
            raise ValueError(f"events of different numbers at {name}")
        plans[name, fault] = SitePlan(name, fault, tuple(shape), bits, _events(*columns))
        if not _is_sound(plans[name, fault], columns, images):
            raise ValueError(f"impossible events at {name}")
    faults = tuple(LISTED[text] if text in LISTED else parse_fault(text) for text in map(str, content["faults"]))
    return Plan(study, chip, faults, images, plans)


def _whole_numbers(values: Any) -> list[int]:
    """Return ``values`` if they are whole numbers from 0.

    Raises:
        ValueError: one is something else.
    """
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 2**62 for value in values):
        raise ValueError(f"whole numbers are needed, got {values!r}")
    return values


def _columns(events: Events) -> tuple[NDArray[np.int64] | NDArray[np.int32] | NDArray[np.int8], ...]:
    """Return element, bit, kind, value and amount of each event."""
    return events.element, *(column[events.what].astype(np.int8) for column in (BIT, KIND, VALUE)), events.amount


def _events(
    element: NDArray[np.int64],
    bit: NDArray[np.int8],
    kind: NDArray[np.int8],
    value: NDArray[np.int8],
    amount: NDArray[np.int32],
) -> Events:
    number = what(kind.astype(np.int64), bit.astype(np.int64), value > 0)
    return Events(element, (number % len(KIND)).astype(np.uint16), amount)


def _is_sound(planned: SitePlan, columns: Sequence[NDArray[Any]], images: range) -> bool:
    """Return whether the events read from ``columns`` say the same, ascend, and lie within tensor and code."""
    whole = all(
        read.dtype == kept.dtype and np.array_equal(read, kept)
        for read, kept in zip(columns, _columns(planned.events), strict=True)
    )
    events = planned.events
    amounts = len(events.element) if np.isin(KIND[events.what], WITH_AMOUNT).any() else 0
    copies = images.stop if planned.site.endswith("output") else 1
    steps = np.diff(planned.events.element, prepend=0, append=math.prod(planned.shape) * copies - 1)
    return (
        whole
        and len(events.amount) == amounts
        and bool(np.all(KIND[events.what] < len(KIND_NAMES)))
        and bool(np.all(steps >= 0) and np.all(BIT[events.what] < planned.bits))
    )


def _check_same(planned: SitePlan, site: Site) -> None:
    if planned.shape != site.shape:
        raise FaultError(f"the plan is for another network: {site.name} is {planned.shape} there, {site.shape} here")
    if planned.bits != site.bits:
        raise FaultError(f"the plan is for {planned.bits} bit codes at {site.name}, which now has {site.bits}")


def _within(images: range, planned: range) -> range:
    if images.start < planned.start or images.stop > planned.stop:
        asked, known = (f"{some.start}..{some.stop - 1}" for some in (images, planned))
        raise FaultError(f"the plan covers images {known}, asked for {asked}")
    return images


class _Recorder:
    """A tap that changes nothing and notes the shape of each output."""

    def __init__(self, paths: Mapping[nn.Module, str]) -> None:
        self.paths = paths
        self.shapes: dict[str, tuple[int, ...]] = {}

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        """Return ``weight``."""
        return weight

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> None:
        """Note the shape of ``features``."""
        path = self.paths[layer]
        name, shape = f"{path}.output" if path else "output", tuple(features.shape[1:])
        if self.shapes.setdefault(name, shape) != shape:
            raise FaultError(f"{name} has two shapes in one pass, {self.shapes[name]} and {shape}; plan it live")
