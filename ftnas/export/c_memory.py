"""Where each value of a net lies in one block of memory: values that are never needed together share a place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ftnas.export.graph import INPUT
from ftnas.export.integer import IntegerNet


@dataclass(frozen=True, slots=True)
class Memory:
    """Offset of each value by name, and the size of all, in codes."""

    offsets: Mapping[str, int]
    size: int


@dataclass(frozen=True, slots=True)
class _Block:
    start: int
    end: int
    last_use: int


def plan_memory(net: IntegerNet) -> Memory:
    """Return the lowest place for each value in turn that nothing still needed holds."""
    last_use = {name: index for index, node in enumerate(net.nodes) for name in (node.name, *node.inputs)}
    last_use[net.output] = len(net.nodes)
    offsets: dict[str, int] = {}
    blocks: list[_Block] = []
    values = [(INPUT, net.input_shape), *((node.name, node.shape) for node in net.nodes)]
    for index, (name, shape) in enumerate(values, start=-1):
        blocks = [block for block in blocks if block.last_use >= index]
        size = math.prod(shape)
        offsets[name] = _lowest_gap(blocks, size)
        blocks.append(_Block(offsets[name], offsets[name] + size, last_use.get(name, index)))
    sizes = [offsets[name] + math.prod(shape) for name, shape in values]
    return Memory(offsets, max(sizes))


def _lowest_gap(blocks: list[_Block], size: int) -> int:
    start = 0
    for block in sorted(blocks, key=lambda block: block.start):
        if start + size <= block.start:
            break
        start = max(start, block.end)
    return start
