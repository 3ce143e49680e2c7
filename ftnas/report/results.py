"""The rows of a run's result files, typed. Keys that this version does not know are left alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from ftnas.campaign import Measurement
from ftnas.errors import SpaceError
from ftnas.space import Genotype

Family = Literal["winner", "finalist", "random", "hand", "baseline", "own"]


Fraction = Annotated[float, Field(ge=0, le=1)]
Signed = Annotated[float, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Operations = Annotated[int, Field(gt=0, lt=2**63)]  # drawn on a logarithmic axis
Positive = Annotated[float, Field(ge=0, le=1e9)]


class Row(BaseModel):
    """A part of a result file."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)


def _genotype(content: Any) -> Genotype:
    if not isinstance(content, dict):
        raise ValueError("a genotype is a mapping")
    try:
        return Genotype.from_dict(content)
    except SpaceError as error:
        raise ValueError(str(error)) from None


def _key(content: Any) -> Any:
    return content.get("key") if isinstance(content, dict) else content


AnyGenotype = Annotated[Genotype, PlainValidator(_genotype)]
Key = Annotated[str, BeforeValidator(_key)]  # a genotype's key, alone or as the field ``key`` of a row


class Environment(Row):
    """Where and when a run was made."""

    ftnas: str
    python: str
    torch: str
    optuna: str | None
    numpy: str | None
    platform: str
    cores: Count | None
    threads: Count
    seed: Count
    started: str
    command: str


class SupernetEpoch(Row):
    """One epoch of the shared weights: losses and the architecture weights' entropy in nats, accuracies as shares."""

    epoch: Count
    loss: float
    clean_loss: float | None = None
    faulty_loss: float | None = None
    architecture_loss: float | None = None
    entropy: float | None = None
    validation_clean: Fraction | None = None
    validation_faulty: Fraction | None = None
    seconds: Positive = 0.0


class TrainingEpoch(Row):
    """One epoch of a net trained from scratch; the accuracy is over its training images."""

    epoch: Count
    loss: float
    clean_accuracy: Fraction | None = None
    seconds: Positive = 0.0


class Scored(Row):
    """A candidate with its accuracies on the shared weights; the leaders also have theirs on fresh chips.

    ``genotype`` is ``None`` where only the table of the candidates was kept.
    """

    trial: Count
    key: str
    genotype: AnyGenotype | None = None
    clean: Fraction
    faulty: Fraction
    chips: tuple[Fraction, ...] = ()
    macs: Count
    flops: Operations
    parameters: Count
    weight_bits: Count
    source: str = "sampler"
    fresh_faulty: Fraction | None = None
    fresh_chips: tuple[Fraction, ...] = ()


class RateScore(Row):
    """Accuracy at one fault rate: mean over chips and its interval."""

    rate: Positive
    mean: Fraction
    low: Fraction
    high: Fraction
    chips: tuple[Fraction, ...] = ()


def _rising(scores: tuple[RateScore, ...]) -> tuple[RateScore, ...]:
    return tuple(sorted(scores, key=lambda score: score.rate))


class Difference(Row):
    """Accuracy at one rate minus that of another net on the same chips, as a share, and its interval."""

    rate: Positive
    mean: Signed
    low: Signed
    high: Signed


class Result(Row):
    """What a campaign found of one trained net.

    Attributes:
        failure: how its training went wrong, if it did.
        origin: how the net came to its weights, in one line, where a comparison of nets says so.
        differences: there, to the first net.
    """

    name: str
    label: str
    family: Family
    training: str
    size: str
    macs: Count
    flops: Operations
    parameters: Count
    weight_bits: Count
    seed: Count | None
    clean: Fraction
    fault: str
    rates: Annotated[tuple[RateScore, ...], AfterValidator(_rising)] = Field(min_length=1)
    key: str | None = None
    failure: str | None = None
    origin: str | None = None
    differences: tuple[Difference, ...] = ()

    def at(self, rate: float) -> RateScore | None:
        """Return the score at ``rate``; ``None`` if it was not measured there."""
        return next((score for score in self.rates if math.isclose(score.rate, rate, rel_tol=1e-6)), None)

    @property
    def chips(self) -> int:
        """How many chips stand behind each rate, at least."""
        return min(len(score.chips) for score in self.rates)

    @property
    def title(self) -> str:
        """The label, and whether the net was trained plainly."""
        return f"{self.label}, plain" if self.training == "plain" else self.label


class Comparison(Row):
    """All trained nets side by side. ``rate`` is the rate that they were trained for."""

    fault: str
    rate: Positive
    chips: Count
    confidence: Fraction
    rows: tuple[Result, ...]
    test_images: Count | None = None
    data: str | None = None

    @property
    def winner(self) -> Result | None:
        """The net that the search found, trained in full."""
        found = [row for row in self.rows if row.family == "winner"]
        tolerant = [row for row in found if row.training == "fault-tolerant"]
        return next(iter([*tolerant, *found]), None)

    def family(self, *names: Family) -> tuple[Result, ...]:
        """Return the rows of these families, in the order of the file."""
        return tuple(row for row in self.rows if row.family in names)


class Share(Row):
    """A share of the test images: its mean over chips and the interval."""

    mean: Fraction
    low: Fraction
    high: Fraction
    chips: tuple[Fraction, ...] = ()


class Exposure(Row):
    """What failing does to the winner's answers: the accuracy, and the share of answers that change."""

    accuracy: Share
    changed: Share


class LayerExposure(Exposure):
    """The same where one layer fails alone; its work and size are for one image."""

    name: str
    kind: str
    macs: Count
    weights: Count
    outputs: Count


class Vulnerability(Row):
    """The winner with one layer failing at a time, in the order of its layers, and with all of them failing."""

    fault: str
    rate: Positive
    images: Count
    clean: Fraction
    all: Exposure
    layers: tuple[LayerExposure, ...]


class Correlation(Row):
    """Kendall's tau and its interval."""

    value: Signed
    low: Signed
    high: Signed


class Gain(Row):
    """Faulty accuracy of the searched nets minus that of the random ones, as a share."""

    mean: Signed
    low: Signed
    high: Signed
    n: Count


class RankedNet(Row):
    """One net's accuracies with the shared weights and after its own training."""

    key: str
    supernet_clean: Fraction
    supernet_faulty: Fraction
    final_clean: Fraction
    final_faulty: Fraction
    flops: Operations
    family: Family = "finalist"


class Ranking(Row):
    """How well scores on shared weights foretell final trainings."""

    n: Count
    tau_clean: Correlation | None = None
    tau_faulty: Correlation | None = None
    tau_flops: Correlation | None = None
    tau_parameters: Correlation | None = None
    gain_over_random: Gain | None = None
    points: tuple[RankedNet, ...] = ()


def mean_of(rows: Sequence[Result], label: str) -> Result | None:
    """Return the mean net of ``rows``, its intervals over the nets; ``None`` if there is none.

    Costs and clean accuracy are plain means. Only rates at which every net was measured are kept.
    """
    shared = [score.rate for score in rows[0].rates if all(row.at(score.rate) for row in rows)] if rows else []
    if not shared:
        return None
    scores = tuple(_mean_score(rows, rate) for rate in shared)
    means = {
        name: round(sum(getattr(row, name) for row in rows) / len(rows))
        for name in ("macs", "flops", "parameters", "weight_bits")
    }
    clean = sum(row.clean for row in rows) / len(rows)
    name = f"{rows[0].family}-mean"
    return rows[0].model_copy(
        update={"name": name, "label": label, "rates": scores, "clean": clean, "key": None, "failure": None, **means}
    )


def _mean_score(rows: Sequence[Result], rate: float) -> RateScore:
    means = [score.mean for row in rows if (score := row.at(rate)) is not None]
    over = Measurement.over(means)
    return RateScore(rate=rate, mean=over.mean, low=over.low, high=over.high, chips=over.chips)
