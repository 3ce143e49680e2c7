"""What a run tells while it goes on: TensorBoard events, and the same as JSON lines for tests and scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ftnas.campaign.records import checked, encoded
from ftnas.errors import RunError
from ftnas.files import writing

Probabilities = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]  # kind of cell, role, [edges][options]
Value = bool | int | float | str
Point = tuple[float, float]  # FLOPs, accuracy as a share


class Logbook:
    """Writes TensorBoard events into ``folder``, and ``metrics.jsonl`` beside them, one JSON object a line.

    The lines are flushed as they are written. A line that a kill cut short is removed when the book is opened again,
    and what is logged again after that, with the same tag and step, is no second line; so an interrupted run writes the
    lines of an uninterrupted one, but for times. Values that are not finite are written as null.

    Raises:
        RunError: nothing can be written any more, by this thread or by TensorBoard's own.
    """

    def __init__(self, folder: Path) -> None:
        # TensorBoard takes two seconds to import, and nothing else here needs it.
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / "metrics.jsonl"
        with writing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            _mend(self._path)
            self._known = {(row["tag"], row["step"]) for row in _known(self._path)}
            self._lines = self._path.open("ab", buffering=0)
        self._folder, self._events = folder, SummaryWriter(str(folder))

    def __enter__(self) -> Logbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:  # which says more than what closing may add to it
            with suppress(RunError):
                self.close()

    def scalar(self, tag: str, value: float, *, step: int) -> None:
        """Log one number."""
        with writing(self._folder):
            self._events.add_scalar(tag, value, step)
        self._line(tag, step, value)

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        """Log several numbers, each under its own tag."""
        for tag, value in values.items():
            self.scalar(tag, value, step=step)

    def histogram(self, tag: str, values: Sequence[float], *, step: int) -> None:
        """Log the distribution of ``values``; the lines get them all, the events the finite ones."""
        import numpy

        finite = [value for value in values if math.isfinite(value)]
        if finite:  # TensorBoard ends a run over a histogram of nothing, as a diverged supernet's would be
            with writing(self._folder):
                self._events.add_histogram(tag, numpy.asarray(finite, dtype=float), step)
        self._line(tag, step, list(values))

    def architecture_weights(
        self, probabilities: Probabilities, *, step: int, names: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Log what the architecture weights lean to: for each kind of cell and role, such as operators, the mean
        probability of each option over the edges, the mean entropy, and the distribution of all of them.

        Args:
            probabilities: ``{kind: {role: [edges][options]}}``, each row summing to one.
            step: the epoch.
            names: of the options of each role; without them they are numbered.
        """
        for kind, roles in probabilities.items():
            for role, rows in roles.items():
                tag = f"architecture/{kind}/{role}"
                self._options(tag, rows, (names or {}).get(role), step=step)

    def _options(self, tag: str, rows: Sequence[Sequence[float]], names: Sequence[str] | None, *, step: int) -> None:
        for option, column in enumerate(zip(*rows, strict=True)):
            name = names[option] if names else str(option)
            self.scalar(f"{tag}/{name}", sum(column) / len(column), step=step)
        self.scalar(f"{tag}/entropy", sum(map(_entropy, rows)) / len(rows), step=step)
        self.histogram(f"{tag}/probabilities", [p for row in rows for p in row], step=step)

    def front(self, candidates: Sequence[Point], *, winner: Point | None = None, step: int = 0) -> None:
        """Log candidates, and where the trained winner is, as a figure of accuracy against FLOPs."""
        figure = _front_figure(candidates, winner)
        with writing(self._folder):
            self._events.add_figure("front", figure, step)
        self._line("front", step, {"candidates": [list(point) for point in candidates], "winner": winner})

    def hparams(self, parameters: Mapping[str, Value], metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Log the settings of the run with what came of them, for TensorBoard's table of runs.

        Written into the book's own events: ``SummaryWriter.add_hparams`` would open a run folder of its own for them.
        """
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(dict(parameters), dict.fromkeys((f"result/{name}" for name in metrics), 0.0)):
            with writing(self._folder):
                self._events._get_file_writer().add_summary(summary, step)
        self._line("hparams", step, {**parameters})
        self.scalars({f"result/{name}": value for name, value in metrics.items()}, step=step)

    def close(self) -> None:
        """Write out everything; a second call does nothing."""
        self._lines.close()
        with writing(self._folder):
            self._events.close()

    def _line(self, tag: str, step: int, value: Any) -> None:
        if (tag, step) in self._known:
            return
        self._known.add((tag, step))
        with writing(self._path):
            left = encoded({"tag": tag, "step": step, "value": _finite(value)})
            while left:
                left = left[self._lines.write(left) :]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a ``metrics.jsonl``.

    Raises:
        RunError: the file is missing, or a line is not JSON or has another checksum than it says.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    return [_parsed(path, number, line) for number, line in enumerate(lines, start=1)]


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """Return what a line says; one without a checksum, as older versions wrote, is taken as it is."""
    try:
        return dict(checked(line) or json.loads(line))
    except (ValueError, TypeError) as error:
        problem = "is damaged (its checksum is another)" if "checksum" in str(error) else "is not a JSON object"
        raise RunError(f"{path}: line {number} {problem}; move the file away to go on without it") from None


def _mend(path: Path) -> None:
    """Cut off a last line without its end."""
    if path.exists():
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            path.write_bytes(whole)


def _known(path: Path) -> list[dict[str, Any]]:
    return read_metrics(path) if path.exists() else []


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    number = float(value)
    return number if math.isfinite(number) else None


def _entropy(row: Sequence[float]) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)


def _front_figure(candidates: Sequence[Point], winner: Point | None) -> Any:
    """Return a matplotlib figure, made without pyplot: no window, no global state, nothing to close."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    x, y = [flops / 1e6 for flops, _ in candidates], [100 * share for _, share in candidates]
    axes.scatter(x, y, s=18, color="#8b919a", alpha=0.7, label="candidates (shared weights)")
    if winner is not None:
        axes.scatter([winner[0] / 1e6], [100 * winner[1]], s=140, marker="*", color="#e0532f", label="winner (trained)")
    axes.set(xlabel="MFLOPs per image", ylabel="Accuracy under faults (%)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, loc="best")
    return figure
