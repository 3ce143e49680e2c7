"""In which order the quantised layers of a model run, and who reads what they return.

Between two layers stand operations that own no fault sites, such as activations and pooling. What they connect is one
group: where no layer reads a group any more that has to compute, nothing in it needs values, only shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ftnas.errors import CampaignError
from ftnas.quantization import Number, tapped

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Dataflow:
    """How one forward pass went.

    Attributes:
        layers: the quantised layers in the order of their calls.
        needed_until: for each call the last call that needs the values of what it returns, directly or through other
            operations; infinite where the model's own output, or anything but a layer, needs them.
        edited: calls whose output the model changed in place afterwards.
    """

    layers: tuple[nn.Module, ...]
    needed_until: tuple[float, ...]
    edited: frozenset[int]

    @property
    def may_lack_values(self) -> bool:
        """Whether any output stops being needed."""
        return any(map(math.isfinite, self.needed_until))

    def with_all_values(self) -> Dataflow:
        """Return this dataflow with every output needed for ever."""
        return replace(self, needed_until=(math.inf,) * len(self.layers))

    def with_edited(self, calls: Sequence[int]) -> Dataflow:
        """Return this dataflow with the outputs of ``calls`` edited, too."""
        return replace(self, edited=self.edited.union(calls))

    def of_layers(self, layers: tuple[nn.Module, ...]) -> Dataflow:
        """Return what is known of a pass through ``layers``: of another order than watched, nothing."""
        return self if layers == self.layers else Dataflow(layers, (math.inf,) * len(layers), self.edited)


def watch(forward: Forward, x: Tensor) -> Dataflow:
    """Return how ``forward`` of a small batch ``x`` ``[N, ...]`` goes.

    Raises:
        CampaignError: a layer mixes several quantisations, as those of a supernet do.
    """
    watcher = _Watcher()
    with torch.no_grad(), tapped(watcher), watcher:
        watcher.finish(forward(x))
    return Dataflow(tuple(watcher.layers), watcher.needed_until(), watcher.edited())


class _Watcher(TorchDispatchMode):
    """A tap that also sees every operation; a storage is a node, and operations outside layers join theirs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[nn.Module] = []
        self._outputs: list[_Output] = []
        self._inside = False
        self._groups = _Groups()
        self._reads: list[tuple[int, int]] = []  # (call, storage)
        self._alive: list[Tensor] = []  # so that no storage's address is used again

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare the import of the compiler, which takes seconds (torch asks this of every mode)."""
        return False

    def skip(self, layer: nn.Module) -> None:
        """Note that ``layer`` begins; it computes."""
        if self._inside:
            raise _mixture(self.layers[-1])
        self.layers.append(layer)
        self._inside = True

    def weight(self, layer: nn.Module, weight: Tensor, number: Number) -> Tensor:
        """Return ``weight``."""
        return weight

    def output(self, layer: nn.Module, features: Tensor, number: Number) -> None:
        """Note that ``layer`` ends and returns ``features``."""
        if not self._inside:
            raise _mixture(layer)
        self._outputs.append(_Output(features, features.clone(), features._version))
        self._groups.add(_storage(features))
        self._inside = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        read, made = self._storages((args, kwargs)), self._storages(result)
        if self._inside:
            self._reads += [(len(self.layers) - 1, storage) for storage in read]
        else:
            self._groups.operation(read, made)
        return result

    def finish(self, result: Any) -> None:
        """Note what the model returned."""
        for storage in self._storages(result):
            self._groups.pin(storage)

    def edited(self) -> frozenset[int]:
        """Return the calls whose output the model changed."""
        # A version counter misses edits through ``.data``, a comparison those that happen to change nothing.
        return frozenset(
            call
            for call, (now, then, version) in enumerate(self._outputs)
            if now._version != version or not torch.equal(now, then)
        )

    def needed_until(self) -> tuple[float, ...]:
        """Return until which call each output must have values."""
        made = [_storage(output.features) for output in self._outputs]
        until = self._groups.until([*enumerate(made), *self._reads])
        return tuple(until[self._groups.root(storage)] for storage in made)

    def _storages(self, tree: Any) -> list[int]:
        tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
        self._alive += tensors
        return [_storage(tensor) for tensor in tensors]


class _Output(NamedTuple):
    features: Tensor
    copy: Tensor
    version: int


class _Groups:
    """Storages joined by operations (union-find). A pinned group needs its values whatever the layers do."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}
        self._pinned: set[int] = set()

    def add(self, storage: int) -> None:
        """Begin a group, where ``storage`` is in none."""
        self._parent.setdefault(storage, storage)

    def pin(self, storage: int) -> None:
        """Demand the values of the group of ``storage``."""
        self.add(storage)
        self._pinned.add(storage)

    def root(self, storage: int) -> int:
        """Return what stands for the group of ``storage``."""
        while (parent := self._parent[storage]) != storage:
            storage = parent
        return storage

    def operation(self, read: Sequence[int], made: Sequence[int]) -> None:
        """Join what one operation read and made. Values from elsewhere, and values that leave torch, are pinned."""
        for storage in read if made else ():
            if storage not in self._parent:
                self.pin(storage)
        for storage in read if not made else made if not read else ():
            self.pin(storage)
        for storage in (*read, *made):
            self.add(storage)
            self._parent[self.root(storage)] = self.root((*read, *made)[0])

    def until(self, uses: Sequence[tuple[int, int]]) -> dict[int, float]:
        """Return the last call of ``uses`` (call, storage) for each group; a pinned one is used for ever."""
        last: dict[int, float] = {}
        for call, storage in uses:
            if storage in self._parent:
                root = self.root(storage)
                last[root] = max(last.get(root, 0.0), call)
        return last | {self.root(storage): math.inf for storage in self._pinned}


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _mixture(layer: nn.Module) -> CampaignError:
    return CampaignError(
        f"{type(layer).__name__}: a mixture of quantisations has no single fault; measure the derived net instead"
    )
