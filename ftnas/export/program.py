"""A net as a ``torch.export`` program: plain ATen operations, which load and run where there is no ftnas."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from ftnas.errors import ExportError
from ftnas.export.frozen import FrozenNet
from ftnas.export.graph import Graph

BATCH = 64
_EXAMPLE = 2  # images; one would make the batch a constant


def write_program(graph: Graph, path: Path) -> None:
    """Write ``graph`` to ``path`` (``.pt2``), for batches of any size.

    Raises:
        ExportError: torch cannot export it.
    """
    net = FrozenNet(graph).eval()
    images = torch.zeros(_EXAMPLE, *graph.input_shape)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own parts
            batch = {0: torch.export.Dim("batch", min=1)}
            program = torch.export.export(net, (images,), dynamic_shapes={"images": batch}, strict=False)
            torch.export.save(program, path, extra_files=dict(graph.facts))
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{graph.name}: torch.export refuses it: {first}") from error


@torch.no_grad()
def run_program(path: Path, images: Tensor) -> Tensor:
    """Return the logits ``[N, classes]`` that the program at ``path`` computes for ``images`` ``[N, C, H, W]``."""
    program = torch.export.load(path).module()
    return torch.cat([program(batch) for batch in images.split(BATCH)])
