"""``ftnas spaces``, ``primitives``, ``faults`` and ``baselines``: what there is, a line each."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass

from ftnas.cli import catalogue
from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.output import Json, console, print_json, print_table, right, shows, table

# Images and classes of CIFAR-10, the size that papers give their counts for.
_IMAGE, _CLASSES = (3, 32, 32), 10


@dataclass(frozen=True, slots=True)
class Growth:
    """How a count grows with the channels C: ``squared`` times C² plus ``linear`` times C."""

    squared: int
    linear: int

    def __str__(self) -> str:
        square = "C²" if shows("²", sys.stdout) else "C^2"
        terms = [(self.squared, square), (self.linear, "C")]
        return " + ".join(f"{'' if times == 1 else times}{name}" for times, name in terms if times) or "0"


def spaces(as_json: Json = False) -> None:
    """List the search spaces that come with ftnas."""
    with one_line_errors():
        from ftnas.space import bundled_spaces, load_space

        found = {name: load_space(name) for name in bundled_spaces()}
        if as_json:
            rows = [
                {"name": name, "architectures": space.size, "operators": list(space.operators), "nodes": space.nodes,
                 "quantization": [str(numbers) for numbers in space.quantization], "description": space.description}
                for name, space in found.items()
            ]  # fmt: skip
            return print_json(rows)
        listed = table("space", right("architectures"), right("operators"), "what it is for")
        for name, space in found.items():
            listed.add_row(name, f"{space.size:.2g}", str(len(space.operators)), space.description)
        print_table(console(), listed)


def primitives(as_json: Json = False) -> None:
    """List the operators that an edge of a cell may apply, with their cost.

    The cost is that for C channels, its multiply-accumulates (MACs) those of one position of the output. A search space
    names the operators that it allows.
    """
    with one_line_errors():
        counts = {name: _cost(name, stride=1) for name in catalogue.OPERATORS}
        strided = {name: _cost(name, stride=2) for name in catalogue.OPERATORS}
        if as_json:
            rows = [
                {"name": name, "what": what, "stride_1": _plain(counts[name]), "stride_2": _plain(strided[name])}
                for name, what in catalogue.OPERATORS.items()
            ]
            return print_json(rows)
        listed = table("operator", "MACs a position", "parameters", "what it is")
        for name, what in catalogue.OPERATORS.items():
            cells = [_both(one, two) for one, two in zip(counts[name], strided[name], strict=True)]
            listed.add_row(name, *cells, what)
        print_table(console(), listed)


def faults(as_json: Json = False) -> None:
    """List the fault models: what fails, in which hardware, and who described it.

    Written as NAME:RATE, options after further colons, such as weights.bit_flip:1e-3:adjacent=2.
    """
    with one_line_errors():
        if as_json:
            return print_json([{"name": name, **asdict(words)} for name, words in catalogue.FAULTS.items()])
        listed = table("fault", "what fails", "hardware", "source")
        for name, words in catalogue.FAULTS.items():
            listed.add_row(name, words.what, words.hardware, words.source)
        print_table(console(), listed)


def baselines(as_json: Json = False) -> None:
    """List the networks to compare with, and their cost at CIFAR-10's size."""
    with one_line_errors():
        from ftnas.cost import measure
        from ftnas.networks import build_baseline

        costs = {
            name: measure(build_baseline(name, image_shape=_IMAGE, classes=_CLASSES), _IMAGE)
            for name in catalogue.BASELINES
        }
        if as_json:
            rows = [
                {"name": name, **asdict(words), "flops": costs[name].flops, "parameters": costs[name].parameters,
                 "image": list(_IMAGE), "classes": _CLASSES}
                for name, words in catalogue.BASELINES.items()
            ]  # fmt: skip
            return print_json(rows)
        listed = table("baseline", right("MFLOPs"), right("parameters"), "what it is", "source")
        for name, words in catalogue.BASELINES.items():
            cost = costs[name]
            listed.add_row(name, f"{cost.flops / 1e6:,.1f}", f"{cost.parameters:,}", words.what, words.source)
        print_table(console(), listed)


def _cost(operator: str, *, stride: int) -> tuple[Growth, Growth]:
    """Return the multiply-accumulates for one output position, and the parameters, of an operator."""
    from ftnas.cost import operator_work

    two, four = (operator_work(operator, channels, (stride, stride), stride) for channels in (2, 4))
    return _growth(two.macs, four.macs), _growth(two.parameters, four.parameters)


def _growth(at_two: int, at_four: int) -> Growth:
    """Return the growth that has these values at 2 and 4 channels."""
    squared = (at_four - 2 * at_two) // 8
    return Growth(squared, (at_two - 4 * squared) // 2)


def _plain(counts: tuple[Growth, Growth]) -> dict[str, dict[str, int]]:
    return {"macs": asdict(counts[0]), "parameters": asdict(counts[1])}


def _both(plain: Growth, strided: Growth) -> str:
    return str(plain) if plain == strided else f"{plain} (stride 2: {strided})"
