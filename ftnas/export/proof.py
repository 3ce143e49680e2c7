"""How equal a file is to the net: the same answers, the same logits, and why a logit differs where one does.

Logits lie on a grid. A runtime that adds float32 numbers in another order than torch is off in the last bits, and
where such a value lies on a rounding step the two round it to neighbouring codes. That is no mistake of the file, and
it is proven here to be the reason: each code of either net, computed anew in float64 from what that net itself had
computed before it, must be the nearest one but for a small share of a step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftnas.errors import ExportError
from ftnas.export.frozen import FrozenNet
from ftnas.export.graph import INPUT, Correct, Graph, Halve, Node
from ftnas.faults import Fault, inject
from ftnas.quantization import quantized_layers

BATCH = 64
EQUAL = 1e-5  # logits this near are the same
# Of a step of an 8-bit grid, and as much of the range of a wider one: float32 sums are off by that and less.
NEAR_STEP = 1e-3

Values = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Proof:
    """What running a file on all test images showed.

    Attributes:
        format: of the file.
        runtime: what ran it.
        files: their names.
        images: how many there were.
        same: how many got the answer that the PyTorch net gives.
        largest: the largest difference of two logits.
        beyond: images with a logit that differs by more than 1e-5; ``None`` where logits are on another grid.
        remarks: what else was checked.
    """

    format: str
    runtime: str
    files: tuple[str, ...]
    images: int
    same: int
    largest: float
    beyond: int | None
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Proof:
        """Read what ``to_dict`` wrote."""
        return cls(**{**content, "files": tuple(content["files"]), "remarks": tuple(content["remarks"])})

    def with_remark(self, *remarks: str) -> Proof:
        """Return this proof with more ``remarks``."""
        return replace(self, remarks=(*self.remarks, *remarks))


def compare(format: str, runtime: str, files: Sequence[str], *, found: Tensor, expected: Tensor) -> Proof:
    """Return how ``found`` logits ``[N, classes]`` agree with those ``expected``.

    Raises:
        ExportError: they are not as many, or not finite.
    """
    if found.shape != expected.shape:
        raise ExportError(f"{format}: {runtime} returns {list(found.shape)} logits, the net {list(expected.shape)}")
    if not found.isfinite().all():
        raise ExportError(f"{format}: {runtime} returns logits that are not finite")
    apart = (found.double() - expected.double()).abs().amax(1)
    return Proof(
        format,
        runtime,
        tuple(files),
        images=len(found),
        same=int((found.argmax(1) == expected.argmax(1)).sum()),
        largest=float(apart.max()),
        beyond=int((apart > EQUAL).sum()),
    )


@dataclass(frozen=True, slots=True)
class Proofs:
    """What was exported, and how equal it is.

    Attributes:
        folder: where the files are.
        net: name of the net.
        facts: what the files say of it: versions, data, which chip.
        proofs: one for each format, those of earlier exports of the same net into the folder too.
    """

    folder: Path
    net: str
    facts: Mapping[str, str]
    proofs: tuple[Proof, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {"net": self.net, "facts": dict(self.facts), "proofs": [proof.to_dict() for proof in self.proofs]}


def differing(found: Tensor, expected: Tensor) -> Tensor:
    """Return the numbers of the images with a logit that differs by more than 1e-5."""
    return ((found - expected).abs().amax(1) > EQUAL).nonzero().flatten()


class Reference:
    """The PyTorch net that a file must equal, on the CPU, faulty where the file is a faulty twin's.

    Args:
        model: with quantised layers; it is copied.
        faults: permanent ones of weights.
        chip: which is attacked.
        study: of the chip.
    """

    def __init__(self, model: nn.Module, *, faults: Sequence[Fault] = (), chip: int = 0, study: str = "") -> None:
        self._model = copy.deepcopy(model).cpu().eval()
        self._faults, self._chip, self._study = tuple(faults), chip, study

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits ``[N, classes]`` of ``images`` ``[N, C, H, W]``."""
        with inject(self._model, self._faults, chip=self._chip, study=self._study):
            return torch.cat([self._model(batch) for batch in images.cpu().split(BATCH)])

    def values(self, graph: Graph, images: Tensor) -> Values:
        """Return what the net's layers return for ``images``, by the name that ``graph`` has for it.

        A layer that is called more often than it has nodes, as one whose result nobody reads may be, is left out.
        """
        with _watched(self._model) as seen:
            self.logits(images)
        nodes: dict[str, list[Node]] = {}
        for node in graph.nodes:
            if node.number is not None and node.name not in unstored(graph):
                nodes.setdefault(node.path, []).append(node)
        calls = -(-len(images) // BATCH)
        return {
            node.name: torch.cat(seen[path][place :: len(same)])
            for path, same in nodes.items()
            for place, node in enumerate(same)
            if len(seen.get(path, ())) == len(same) * calls
        }


@contextmanager
def _watched(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Collect the outputs of the quantised layers of ``model`` by path, in the order of the calls."""
    seen: dict[str, list[Tensor]] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            seen.setdefault(path, []).append(output.detach().clone())

        return hook

    hooks = [layer.register_forward_hook(note(path)) for path, layer in quantized_layers(model).items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True, slots=True)
class Rounding:
    """How near to rounding steps two nets part.

    Attributes:
        codes: how many there are in all images.
        apart: how many of them differ.
        miss: by how much, in steps of an 8-bit grid, a code is farther from the exact value than half a step.
        worst: the node where.
    """

    codes: int
    apart: int
    miss: float
    worst: str


def compare_roundings(graph: Graph, images: Tensor, *, one: Values, other: Values) -> Rounding:
    """Check every code of two nets that compute ``graph``, given as what they computed for ``images``."""
    net = FrozenNet(graph).double()
    misses = [_largest_miss(net, images, values) for values in (one, other)]
    shared = one.keys() & other.keys()
    return Rounding(
        codes=sum(one[name].numel() for name in shared),
        apart=sum(int((one[name] != other[name]).sum()) for name in shared),
        miss=max(miss for miss, _ in misses),
        worst=max(misses)[1],
    )


def unstored(graph: Graph) -> set[str]:
    """Return the names of values that a layer rounds and then stores in another form, as halves."""
    paths = {node.name: node.path for node in graph.nodes}
    return {
        node.inputs[0]
        for node in graph.nodes
        if isinstance(node.operation, Halve | Correct) and paths.get(node.inputs[0]) == node.path
    }


@torch.no_grad()
def _largest_miss(net: FrozenNet, images: Tensor, values: Mapping[str, Tensor]) -> tuple[float, str]:
    """Return by how much a code among ``values`` misses the exact rounding, and the node with the largest miss."""
    worst, inner = (0.0, ""), unstored(net.graph)
    reals: Values = {}
    for start in range(0, len(images), BATCH):
        held = {INPUT: images[start : start + BATCH].double()}
        for node in net.graph.nodes:
            exact = net.compute(node, held)
            if node.number is None:
                held[node.name] = exact
                continue
            number = node.number
            steps = (exact / number.scale_of(exact)).clamp(number.low, number.high)
            if node.name in inner:
                reals[node.name] = steps
            elif node.inputs and node.inputs[0] in reals:
                steps = net.before_rounding(node, reals[node.inputs[0]])
            codes = steps.round()
            if node.name in values:
                codes = (values[node.name][start : start + BATCH].double() / number.scale_of(exact)).round()
                # On a wider grid a step is a smaller part of the range, and rounding errors are relative.
                miss = (float((codes - steps).abs().max()) - 0.5) / 2 ** max(0, number.bits - 8)
                worst = max(worst, (miss, node.name))
            held[node.name] = codes * number.scale_of(exact)
    return worst


def check_equal(proof: Proof) -> Proof:
    """Return ``proof`` if every logit is the net's.

    Raises:
        ExportError: one is not.
    """
    if proof.beyond or proof.same < proof.images:
        raise ExportError(f"{_unequal(proof)}; allowed is {EQUAL:g}")
    return proof


def explained(proof: Proof, rounding: Rounding) -> Proof:
    """Return ``proof`` with the reason why logits differ.

    Raises:
        ExportError: rounding does not explain it.
    """
    if rounding.miss > NEAR_STEP:
        miss = f"{rounding.worst} is {rounding.miss:.2g} of a step farther from a value than its nearest code"
        raise ExportError(f"{_unequal(proof)}; {miss}, allowed is {NEAR_STEP:g}")
    return proof.with_remark(
        f"{_images(proof.beyond)} with other logits, where {rounding.apart:,} of {rounding.codes:,} codes differ: "
        "float32 sums in another order end on the other side of a rounding step; every code is within "
        f"{rounding.miss:.1g} of a step of being the nearest"
    )


def _unequal(proof: Proof) -> str:
    return (
        f"{proof.format}: {proof.beyond} of {proof.images} images have other logits than the net, by up to "
        f"{proof.largest:.3g}, and {proof.images - proof.same} another answer"
    )


def _images(count: int | None) -> str:
    return "1 image" if count == 1 else f"{count or 0:,} images"
