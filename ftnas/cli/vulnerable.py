"""``ftnas vulnerability``. Torch is imported inside the command only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.options import Bits, Data, DataDirectory, Net, Weights
from ftnas.cli.output import Json, console, print_json, print_table, print_warning, right, table

if TYPE_CHECKING:
    from ftnas.pipeline.vulnerability_analysis import Analysis

Out = Annotated[Path, Option("--out", help="The folder for tables and heat map; an earlier analysis is replaced.")]
Estimator = Annotated[
    Literal["default", "first_order", "range_search", "exhaustive"],
    Option(
        "--estimator",
        help="first_order: gradients, seconds. exhaustive: every flip of every neuron. range_search: the smallest "
        "deviations that fail, for wide formats. default: first_order, the worst channels measured.",
    ),
]
Images = Annotated[int | None, Option("--images", help="Analyse so many training images; by default 400.")]
MOST_LAYERS = 20


def vulnerability(
    net: Net,
    out: Out,
    estimator: Estimator = "default",
    images: Images = None,
    data: Data = None,
    data_dir: DataDirectory = None,
    bits: Bits = None,
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Find the neurons, channels, layers and bits of a trained net whose single flips change its answers."""
    with one_line_errors():
        from ftnas.pipeline.nets import load_net
        from ftnas.pipeline.vulnerability_analysis import analyse

        loaded = load_net(net, data=data, data_directory=data_dir, bits=bits, weights=weights)
        _print(analyse(loaded, out, estimator=estimator, images=images), out, as_json=as_json)


def _print(analysis: Analysis, out: Path, *, as_json: bool) -> None:
    if as_json:
        return print_json({"results": str(out), **analysis.to_dict()})
    output = console()
    shown = sorted(analysis.layers.values(), key=lambda layer: -layer.factor)[:MOST_LAYERS]
    names = ("channels", "answers changed %", "worst channel %", "highest bit %", "lowest bit %", "channels measured")
    layers = table("layer", "format", *map(right, names))
    for layer in shown:
        shares = (layer.factor, float(layer.channels.max()), float(layer.bits[-1]), float(layer.bits[0]))
        cells = (str(len(layer.channels)), *(f"{100 * share:.3g}" for share in shares), str(int(layer.confirmed.sum())))
        layers.add_row(layer.name, str(layer.number), *cells)
    print_table(output, layers, f"{analysis.net}: single flips in outputs, {analysis.images} training images")
    if len(shown) < len(analysis.layers):
        output.print(f"the {len(shown)} most vulnerable of {len(analysis.layers)} layers; all are in {out}")
    if analysis.warning is not None:
        print_warning(output, analysis.warning)
    output.print(f"results: {out}", soft_wrap=True)
