"""The faults that single-fault campaigns draw from: every bit of every value of every site, all alike.

A population is numbered site by site, within a site element by element, within an element bit by bit, within a bit
kind by kind. So a site's share of the draws is its share of the bits: drawing the site first, as other tools do,
gives small layers up to 30 times too many faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ftnas.errors import CampaignError

KINDS = ("flip", "stuck_at_0", "stuck_at_1")
STRATA = ("network", "layer", "bit", "layer_bit")
LARGEST = 2**40
CHUNK = 1024

By = Literal["network", "layer", "bit", "layer_bit"]
Integers = NDArray[np.int64]


class Place(NamedTuple):
    """Where faults are, each ``[k]``: index of the site, element of its tensor, bit (0 lowest), index of the kind."""

    site: Integers
    element: Integers
    bit: Integers
    kind: Integers


@dataclass(frozen=True)
class Stratum:
    """A part of a population.

    Attributes:
        site: its site's name; None for all sites.
        bit: its bit, 0 the least significant; None for all bits.
        size: how many faults it holds.
    """

    site: str | None
    bit: int | None
    size: int

    @property
    def name(self) -> str:
        """What a table calls it."""
        parts = [self.site or "", "" if self.bit is None else f"bit {self.bit}"]
        return " ".join(part for part in parts if part) or "network"


@dataclass(frozen=True)
class Population:
    """All single faults of some sites.

    Attributes:
        sites: name, how many values, and bits of a value, of each site.
        kinds: what can happen to a bit; each counts as a fault of its own.
    """

    sites: tuple[tuple[str, int, int], ...]
    kinds: tuple[str, ...] = ("flip",)

    def __post_init__(self) -> None:
        names = [name for name, _, _ in self.sites]
        if not names or len(set(names)) < len(names):
            raise CampaignError(f"sites: {names}; allowed is one or more, each with a name of its own")
        for name, values, bits in self.sites:
            if values < 1 or not 1 <= bits <= 64:
                raise CampaignError(
                    f"sites: {name} has {values} values of {bits} bits; allowed is 1 or more of 1 to 64"
                )
        if not self.kinds or len(set(self.kinds)) < len(self.kinds) or not set(self.kinds) <= set(KINDS):
            raise CampaignError(f"kinds: {list(self.kinds)}; allowed is one or more of {', '.join(KINDS)}, each once")
        if self.size > LARGEST:
            raise CampaignError(f"sites: {self.size:,} faults; allowed is at most {LARGEST:,}")

    @cached_property
    def size(self) -> int:
        """How many faults there are."""
        return sum(values * bits for _, values, bits in self.sites) * len(self.kinds)

    @cached_property
    def _bits(self) -> Integers:
        return np.array([bits for _, _, bits in self.sites], np.int64)

    @cached_property
    def _ends(self) -> Integers:
        """The number after each site's last fault ``[sites]``."""
        return np.cumsum([values * bits * len(self.kinds) for _, values, bits in self.sites], dtype=np.int64)

    def describe(self) -> str:
        """Return one line that says what is drawn from."""
        values = sum(values for _, values, _ in self.sites)
        low, high = int(self._bits.min()), int(self._bits.max())
        bits = f"{low} bit{'s' * (low > 1)}" if low == high else f"{low} to {high} bits"
        kinds = f" x {len(self.kinds)} kinds" if len(self.kinds) > 1 else ""
        sites = f"{len(self.sites)} site{'s' * (len(self.sites) > 1)}"
        what = f"{values:,} weights x {bits}{kinds} of {sites} = {self.size:,} faults"
        return f"{what} ({', '.join(self.kinds)}), every bit alike"

    def strata(self, by: By = "network") -> tuple[Stratum, ...]:
        """Return the parts of the population, which share no fault and leave none out.

        Raises:
            CampaignError: ``by`` is none of ``STRATA``.
        """
        _check_by(by)
        kinds, most = len(self.kinds), int(self._bits.max())
        if by == "network":
            return (Stratum(None, None, self.size),)
        if by == "layer":
            return tuple(Stratum(name, None, values * bits * kinds) for name, values, bits in self.sites)
        if by == "bit":
            sizes = [sum(values for _, values, bits in self.sites if bits > bit) * kinds for bit in range(most)]
            return tuple(Stratum(None, bit, size) for bit, size in enumerate(sizes))
        return tuple(Stratum(name, bit, values * kinds) for name, values, bits in self.sites for bit in range(bits))

    def locate(self, index: ArrayLike) -> Place:
        """Return where the faults of these numbers ``[k]`` are.

        Raises:
            CampaignError: a number is not of this population.
        """
        number = np.asarray(index, np.int64)
        if number.size and not (number.min() >= 0 and number.max() < self.size):
            raise CampaignError(f"index: {number.min()} to {number.max()}; allowed is 0 to {self.size - 1}")
        site = np.searchsorted(self._ends, number, side="right")
        starts = np.concatenate(([0], self._ends[:-1]))
        value, kind = np.divmod(number - starts[site], len(self.kinds))
        element, bit = np.divmod(value, self._bits[site])
        return Place(site, element, bit, kind)

    def stratum_of(self, index: ArrayLike, by: By) -> Integers:
        """Return, for the faults of these numbers ``[k]``, the place of their stratum in ``strata(by)``."""
        _check_by(by)
        place = self.locate(index)
        if by == "network":
            return np.zeros_like(place.site)
        if by == "layer":
            return place.site
        firsts = np.cumsum(self._bits) - self._bits
        return place.bit if by == "bit" else firsts[place.site] + place.bit

    def draw(
        self, stratum: Stratum, n: int, generator: np.random.Generator, exclude: Sequence[int] | Integers = ()
    ) -> Integers:
        """Draw the numbers of ``n`` different faults of ``stratum``, each set of ``n`` as likely as any other.

        What is drawn first does not depend on ``n``: the draw of m is the first m of the draw of n, if the generator
        starts alike. Memory and time follow ``n``, never the size of the population.

        Args:
            stratum: one of ``strata``.
            n: how many.
            generator: keyed by the caller; it advances.
            exclude: numbers that must not come, such as those of an earlier draw.

        Raises:
            CampaignError: the stratum is not of this population, or holds fewer than ``n`` that are left.
        """
        members = _Members.of(self, stratum)
        barred = {int(number) for number in exclude}
        inside = int(members.holds(np.fromiter(barred, np.int64, len(barred))).sum())
        if not 0 <= n <= stratum.size - inside:
            raise CampaignError(f"n: {n} faults of {stratum.name}; allowed is 0 to {stratum.size - inside}")
        drawn = members.number(_shuffled_head(stratum.size, n + inside, generator))
        if barred:
            drawn = drawn[~np.isin(drawn, list(barred))]
        return drawn[:n]


@dataclass(frozen=True)
class _Members:
    """The faults of one stratum: runs of consecutive values, of which one bit or all bits count.

    Attributes:
        first: number of the first fault of each of its sites ``[s]``.
        bits: of a value of each site ``[s]``.
        ends: how many members up to and with each site ``[s]``.
        bit: the one that counts; None for all.
        kinds: how many.
    """

    first: Integers
    bits: Integers
    ends: Integers
    bit: int | None
    kinds: int

    @classmethod
    def of(cls, population: Population, stratum: Stratum) -> _Members:
        kinds = len(population.kinds)
        rows = [
            (int(end) - values * bits * kinds, bits, values * kinds * (bits if stratum.bit is None else 1))
            for (name, values, bits), end in zip(population.sites, population._ends, strict=True)
            if stratum.site in (None, name) and (stratum.bit is None or 0 <= stratum.bit < bits)
        ]
        first, bits_of, sizes = np.array(rows, np.int64).reshape(-1, 3).T
        if int(sizes.sum()) != stratum.size or not rows:
            raise CampaignError(f"stratum: {stratum.name} of {stratum.size} faults is not one of this population")
        return cls(first, bits_of, np.cumsum(sizes), stratum.bit, kinds)

    def number(self, member: Integers) -> Integers:
        """Return the numbers in the population of these members ``[k]``, counted from 0."""
        site = np.searchsorted(self.ends, member, side="right")
        inside = member - np.concatenate(([0], self.ends[:-1]))[site]
        if self.bit is None:
            return self.first[site] + inside
        element, kind = np.divmod(inside, self.kinds)
        return self.first[site] + (element * self.bits[site] + self.bit) * self.kinds + kind

    def holds(self, number: Integers) -> NDArray[np.bool_]:
        """Return which of these numbers ``[k]`` are members."""
        site = np.searchsorted(self.first, number, side="right") - 1
        place = site.clip(0)
        inside = number - self.first[place]
        span = np.diff(self.ends, prepend=0) * (1 if self.bit is None else self.bits)
        right: NDArray[np.bool_] = (site >= 0) & (inside < span[place])
        if self.bit is not None:
            right &= inside // self.kinds % self.bits[place] == self.bit
        return right


def _shuffled_head(size: int, n: int, generator: np.random.Generator) -> Integers:
    """Return the first ``n`` of ``range(size)`` in random order: Fisher and Yates, keeping only what was moved."""
    moved: dict[int, int] = {}
    head = np.empty(n, np.int64)
    for start in range(0, n, CHUNK):
        # Always a whole chunk, as far as the population goes, so that n does not change what the generator gives.
        here = np.arange(start, min(start + CHUNK, size))
        for place, other in zip(here[: n - start].tolist(), generator.integers(here, size).tolist(), strict=False):
            head[place] = moved.get(other, other)
            moved[other] = moved.pop(place, place)
    return head


def _check_by(by: str) -> None:
    if by not in STRATA:
        raise CampaignError(f"by: {by!r} is no way to divide a population; allowed is {', '.join(STRATA)}")
