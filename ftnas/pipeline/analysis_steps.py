"""The steps of an analysis of vulnerability, kept as records until it is finished, with a progress bar."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ftnas import __version__
from ftnas.campaign.records import SCHEMA, Content, RecordFile, open_records, read_records
from ftnas.campaign.subject import model_hash
from ftnas.files import remove
from ftnas.hardening.steps import Steps
from ftnas.pipeline.progress import Advance, progress_bar
from ftnas.stopping import check, finishing_steps

FILE = "unfinished.jsonl"


class KeptSteps(Steps):
    """Steps that are written down; those that are known are not done again."""

    def __init__(self, records: RecordFile, stack: ExitStack, title: str) -> None:
        self._records, self._stack, self._title = records, stack, title
        self._advance: Advance = lambda: None

    def expect(self, count: int) -> None:
        """Begin a progress bar of ``count`` steps."""
        self._advance = self._stack.enter_context(progress_bar(self._title, count))

    def done(self, name: str, work: Callable[[], Tensor]) -> Tensor:
        """Return what the step ``name`` gives, from the records if they have it."""
        known = self._records.known.get(name)
        if known is None:
            values = work()
            # A float32 is a float exactly, and comes back from its text as it was.
            known = {"unit": name, "shape": list(values.shape), "values": values.flatten().tolist()}
            self._records.append([known])
            check(f"step {name}")
        self._advance()
        return torch.tensor(known["values"], dtype=torch.float32).view(known["shape"])


@contextmanager
def kept_steps(folder: Path, model: nn.Module, images: Tensor, *, estimator: str, title: str) -> Iterator[KeptSteps]:
    """Open the records of an analysis in ``folder``, where another one's are dropped; they go when the block ends.

    Args:
        folder: of the analysis.
        model: that is analysed.
        images: the analysis set.
        estimator: by which.
        title: of the progress bar.

    Raises:
        CampaignError: the records are damaged, or another process writes them.
    """
    path = folder / FILE
    header = {
        "schema": SCHEMA,
        "kind": "vulnerability",
        "ftnas": __version__,
        "torch": torch.__version__,
        "hash": model_hash(model),
        "estimator": estimator,
        "images": [len(images), f"{zlib.crc32(images.cpu().numpy().tobytes()):08x}"],
    }
    if path.exists() and not _is_of(path, header):
        remove(path)
    with finishing_steps(), ExitStack() as stack:
        yield KeptSteps(stack.enter_context(open_records(path, header)), stack, title)
    remove(path)


def _is_of(path: Path, header: Content) -> bool:
    """Return whether ``path`` holds records that begin with ``header``, damaged or not."""
    there = read_records(path)
    return there.problem is not None or there.header == header
