"""What a fault did to each image, counted under names whose denominators are written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from ftnas.errors import CampaignError

FIRST = 5  # SDC-5 asks for the golden run's first five answers

# Every share is of all images, so that masked + benign + sdc1 + due = 1. Other tools use the images that the golden
# run gets right, or leave DUE out of the denominator, without saying so.
DENOMINATORS: Mapping[str, str] = {
    "masked": "all images",
    "benign": "all images",
    "sdc1": "all images",
    "sdc5": "all images",
    "sdc10_percent": "all images",
    "sdc20_percent": "all images",
    "due": "all images",
    "changed": "all images",
    "correct_before": "all images",
    "correct_after": "all images",
    "accuracy_drop": "all images",
    "critical": "all faults",
}

MEANINGS: Mapping[str, str] = {
    "masked": "all logits equal to the golden ones to the bit",
    "benign": "some logit differs, the first answer does not, all are finite",
    "sdc1": "the first answer differs, all logits are finite",
    "sdc5": "the first answer is not among the golden run's first five, all logits are finite",
    "sdc10_percent": "the golden answer's softmax differs by more than 10 % of itself, all logits are finite",
    "sdc20_percent": "the golden answer's softmax differs by more than 20 % of itself, all logits are finite",
    "due": "a logit is not a number or infinite",
    "changed": "sdc1 or due",
    "correct_before": "the golden run's first answer is the label",
    "correct_after": "the first answer is the label, all logits are finite",
    "accuracy_drop": "correct_before less correct_after",
    "critical": "at least a stated share of the images changed",
}


@dataclass(frozen=True)
class Outcomes:
    """Counts of images under one fault, or of several such counts added up; ``MEANINGS`` says what each is.

    An image is exactly one of ``masked``, ``benign``, ``sdc1`` and ``due``. The classes of silent data corruption are
    those of Li et al., SC 2017; ``changed`` of single faults is what arXiv 2405.01741 calls PVF.

    Attributes:
        images: how many were compared.
        masked: see ``MEANINGS``.
        benign: see ``MEANINGS``.
        sdc1: see ``MEANINGS``.
        due: see ``MEANINGS``.
        sdc5: part of ``sdc1``; None with fewer than six classes, where it could not happen.
        sdc10_percent: an answer less or more certain, whether or not it is still the first; None in records of versions
            that did not count it.
        sdc20_percent: part of ``sdc10_percent``.
        correct_before: see ``MEANINGS``; None without labels.
        correct_after: see ``MEANINGS``; None without labels.
    """

    images: int
    masked: int
    benign: int
    sdc1: int
    due: int
    sdc5: int | None = None
    sdc10_percent: int | None = None
    sdc20_percent: int | None = None
    correct_before: int | None = None
    correct_after: int | None = None

    def __add__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            images=self.images + other.images,
            masked=self.masked + other.masked,
            benign=self.benign + other.benign,
            sdc1=self.sdc1 + other.sdc1,
            due=self.due + other.due,
            sdc5=_sum(self.sdc5, other.sdc5),
            sdc10_percent=_sum(self.sdc10_percent, other.sdc10_percent),
            sdc20_percent=_sum(self.sdc20_percent, other.sdc20_percent),
            correct_before=_sum(self.correct_before, other.correct_before),
            correct_after=_sum(self.correct_after, other.correct_after),
        )

    @property
    def changed(self) -> int:
        """How many images lost their golden answer, to another one or to none."""
        return self.sdc1 + self.due

    @property
    def accuracy_drop(self) -> int | None:
        """How many images fewer are right; negative where faults helped; None without labels."""
        if self.correct_before is None or self.correct_after is None:
            return None
        return self.correct_before - self.correct_after

    def share(self, name: str) -> float | None:
        """Return the count of this name over its denominator, all images; None where there is no count.

        Raises:
            CampaignError: the name is not that of a share of images, or there are no images.
        """
        known = [key for key, of in DENOMINATORS.items() if of == "all images"]
        if name not in known:
            raise CampaignError(f"outcome: {name!r} is unknown; allowed is {', '.join(known)}")
        if not self.images:
            raise CampaignError(f"outcome: {name} of no images; allowed is 1 or more")
        count: int | None = getattr(self, name)
        return None if count is None else count / self.images

    def to_dict(self) -> dict[str, int | None]:
        """Return plain data, ready for JSON."""
        return asdict(self)


def outcomes(golden: NDArray[Any], faulty: NDArray[Any], labels: NDArray[Any] | None = None) -> Outcomes:
    """Compare the logits of a faulty run with those of the golden one, image by image.

    Args:
        golden: logits ``[N, K]`` without faults, all finite.
        faulty: logits ``[N, K]`` of the same images, in the same number format.
        labels: right answers ``[N]``; None where they are not known.

    Raises:
        CampaignError: shapes or formats differ, or the golden run itself is not finite.
    """
    _check(golden, faulty, labels)
    due = ~np.isfinite(faulty).all(1)
    # As integers: 0.0 and -0.0 are not the same bits.
    masked = (_words(golden) == _words(faulty)).all(1)
    before = golden.argmax(1)
    after = np.where(due, -1, np.where(masked, before, faulty.argmax(1)))
    sdc1 = ~due & (after != before)
    drift = _confidence_drift(golden[~due & ~masked], faulty[~due & ~masked])
    return Outcomes(
        images=len(golden),
        masked=int(masked.sum()),
        benign=int((~masked & (after == before)).sum()),
        sdc1=int(sdc1.sum()),
        due=int(due.sum()),
        sdc5=_beyond_first(golden[sdc1], after[sdc1]),
        sdc10_percent=int((drift > 0.1).sum()),
        sdc20_percent=int((drift > 0.2).sum()),
        correct_before=None if labels is None else int((before == labels).sum()),
        correct_after=None if labels is None else int((after == labels).sum()),
    )


def critical(counted: Outcomes, share: float) -> bool:
    """Return whether at least ``share`` of the images changed, by another answer or by none (DUE).

    Raises:
        CampaignError: ``share`` is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise CampaignError(f"critical: {share} is no share of images; allowed is more than 0 and at most 1")
    # By counts: 5 of 500 is 1 %, which 5 / 500 >= 0.01 says only by luck of rounding.
    return counted.changed >= share * counted.images * (1 - 1e-12)


def _beyond_first(golden: NDArray[Any], answer: NDArray[np.int64]) -> int | None:
    """Return how many answers ``[k]`` have five or more classes ahead of them in ``golden`` ``[k, K]``."""
    if golden.shape[1] <= FIRST:
        return None
    own = np.take_along_axis(golden, answer[:, None], 1)
    earlier = np.arange(golden.shape[1]) < answer[:, None]  # among equals the first class leads, as in argmax
    ahead = (golden > own) | ((golden == own) & earlier)
    return int((ahead.sum(1) >= FIRST).sum())


def _confidence_drift(golden: NDArray[Any], faulty: NDArray[Any]) -> NDArray[np.float64]:
    """Return by which share of itself the softmax of the first answer in ``golden`` ``[k, K]`` differs ``[k]``."""
    first = golden.argmax(1)[:, None]
    before, after = (np.take_along_axis(softmax(x.astype(np.float64), 1), first, 1)[:, 0] for x in (golden, faulty))
    drift: NDArray[np.float64] = np.abs(after - before) / before
    return drift


def _words(x: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")


def _check(golden: NDArray[Any], faulty: NDArray[Any], labels: NDArray[Any] | None) -> None:
    if golden.ndim != 2 or golden.shape != faulty.shape or golden.shape[1] < 1:
        raise CampaignError(f"logits: golden {golden.shape}, faulty {faulty.shape}; allowed is [images, classes] twice")
    if golden.dtype != faulty.dtype or golden.dtype.kind != "f":
        raise CampaignError(f"logits: golden {golden.dtype}, faulty {faulty.dtype}; allowed is one float format")
    if labels is not None and labels.shape != golden.shape[:1]:
        raise CampaignError(f"labels: shape {labels.shape} for {len(golden)} images; allowed is one each")
    broken = int((~np.isfinite(golden).all(1)).sum())
    if broken:
        raise CampaignError(
            f"logits: {broken} of {len(golden)} golden rows are not finite; a campaign needs a sound net"
        )


def _sum(mine: int | None, theirs: int | None) -> int | None:
    return None if mine is None or theirs is None else mine + theirs
