"""Answers of a long stage, kept as they come: a kill takes at most the last seconds of them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ftnas.campaign import chip_accuracies
from ftnas.campaign.records import SCHEMA, Content, open_records, read_records
from ftnas.campaign.subject import tensors_hash
from ftnas.faults import Fault
from ftnas.files import set_aside
from ftnas.stopping import check, finishing_steps, stop_asked

SECONDS_BETWEEN_SAVES = 15.0


class Answers:
    """What is known of the units of a stage; see ``keeping_answers``."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path, self._header = path, {"schema": SCHEMA, **identity}
        self._unsaved: list[Content] = []
        self._saved = time.monotonic()
        rows = self._read() if path.exists() else ()
        self._known = {str(row["unit"]): row["answer"] for row in rows}

    def of(self, unit: str, compute: Callable[[], Any]) -> Any:
        """Return what is known of ``unit``, plain data, or ``compute`` it.

        Raises:
            Stopped: a signal asks for it, and all answers are kept.
        """
        if unit not in self._known:
            self._known[unit] = compute()
            self._unsaved.append({"unit": unit, "answer": self._known[unit]})
        if stop_asked() or time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
            self._save()
        check(unit)
        return self._known[unit]

    def __contains__(self, unit: str) -> bool:
        return unit in self._known

    def _read(self) -> tuple[Content, ...]:
        """Return what the file holds; of a damaged one what stands before the damage, of another stage's nothing."""
        there = read_records(self._path)
        same = there.header == self._header
        if same and there.problem is None:
            return there.units
        kept = set_aside(self._path)
        problem = (there.problem or f"{self._path}: is of another net").partition(";")[0]
        warnings.warn(f"{problem}; it is kept as {kept.name}, and what it lacks is computed", stacklevel=2)
        self._unsaved = list(there.units) if same else []
        return tuple(self._unsaved)

    def _save(self) -> None:
        with open_records(self._path, self._header) as records:
            records.append(self._unsaved)
        self._unsaved, self._saved = [], time.monotonic()


@contextmanager
def keeping_answers(path: Path, identity: Mapping[str, Any]) -> Iterator[Answers]:
    """Keep the answers of a stage in ``path`` until the block ends, which writes the result and needs them no more.

    Args:
        path: of a file of records, which is there only if the stage takes longer than some seconds.
        identity: what the answers are functions of, besides the unit.

    Raises:
        CampaignError: the file cannot be read.
    """
    with finishing_steps():
        yield Answers(path, identity)
    path.unlink(missing_ok=True)
    path.with_name(f".{path.name}.lock").unlink(missing_ok=True)


def kept_chip_accuracies(
    path: Path,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    faults: Sequence[Fault],
    chips: int,
    study: str,
) -> list[float]:
    """Return the accuracy of ``model`` on each of the first ``chips`` of ``study``, kept in ``path`` as they come."""
    identity = {"net": tensors_hash(model), "faults": list(map(str, faults)), "study": study}

    def of_chip(chip: int) -> float:
        return chip_accuracies(model, images, labels, faults=faults, chips=[chip], study=study)[0]

    with keeping_answers(path, identity) as answers:
        return [answers.of(f"chip {chip}", partial(of_chip, chip)) for chip in range(chips)]
