"""``ftnas harden``. Torch is imported inside the command only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from ftnas.cli.completing import complete_faults
from ftnas.cli.mistakes import one_line_errors
from ftnas.cli.options import BatchSize, Bits, Data, DataDirectory, Images, Net, Threads, Weights
from ftnas.cli.output import Json, console, print_json, print_table, print_warning, right, table

if TYPE_CHECKING:
    from ftnas.pipeline.hardening import HardenedNet

Out = Annotated[Path, Option("--out", help="The folder for the hardened net, which is a NET for every other command.")]
Way = Annotated[
    Literal["split", "split_weights", "duplicate_min", "tmr", "guard", "bound"],
    Option("--method", help="Halves of codes or of weights, two or three copies, or ranges of outputs or of weights."),
]
Budget = Annotated[
    float | None, Option("--budget", help="What protection may cost, as a share of the net: 0.25. Else all is taken.")
]
BudgetIn = Annotated[
    Literal["macs", "parameters", "activation_bytes"], Option("--budget-in", help="What the budget is a share of.")
]
Ratios = Annotated[
    list[str] | None,
    Option("--ratio", help="Protect this share of a layer's channels: 'stem=0.5', 'cells.*=0.25'. Repeatable."),
]
Select = Annotated[
    Literal["nvf", "l1", "random"],
    Option("--select", help="Which channels come first: by vulnerability, by their weights, or by chance."),
]
RuleOption = Annotated[
    Literal["min", "mean", "sum", "majority", "median", "zero", "clip"] | None,
    Option("--rule", help="How copies are merged, or values restricted; by default as suits the faults."),
]
Faults = Annotated[
    list[str] | None,
    Option(
        "--faults",
        help="What is to be borne, and is measured before and after: features.bitflip:0.01. Repeatable.",
        autocompletion=complete_faults,
    ),
]
Chips = Annotated[int, Option("--chips", min=2, help="How many chips are measured.")]
Analysed = Annotated[int, Option("--analysed", min=1, help="Training images that vulnerability is analysed on.")]
Seed = Annotated[int, Option("--seed", help="Of a choice by chance.")]


def harden(
    net: Net,
    out: Out,
    method: Way = "split",
    budget: Budget = None,
    budget_in: BudgetIn = "macs",
    ratio: Ratios = None,
    select: Select = "nvf",
    rule: RuleOption = None,
    faults: Faults = None,
    chips: Chips = 20,
    analysed: Analysed = 400,
    seed: Seed = 0,
    data: Data = None,
    data_dir: DataDirectory = None,
    images: Images = None,
    bits: Bits = None,
    weights: Weights = None,
    batch_size: BatchSize = None,
    workers: Threads = 1,
    as_json: Json = False,
) -> None:
    """Protect the parts of a trained net that faults harm most, at a known price, and measure what it is worth."""
    with one_line_errors():
        from ftnas.hardening.methods import HardeningOptions
        from ftnas.pipeline.hardening import harden_net
        from ftnas.pipeline.nets import load_net

        options = HardeningOptions(method, budget, budget_in, tuple(ratio or ()), select, rule, analysed, seed)
        loaded = load_net(net, data=data, data_directory=data_dir, images=images, bits=bits, weights=weights)
        found = harden_net(
            loaded, options, out, faults=faults or (), chips=chips, workers=workers, batch_size=batch_size
        )
        _print(found, as_json=as_json)


def _print(found: HardenedNet, *, as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(found.folder), **found.content})
        return
    output = console()
    costs = table("", *map(right, ("before", "after", "extra")))
    before, after, shares = found.overhead.before.to_dict(), found.overhead.after.to_dict(), found.overhead.shares
    for name, words in _COSTS.items():
        share = f"{100 * shares[name]:+.1f} %" if name in shares else ""
        costs.add_row(words, f"{before[name]:,.0f}", f"{after[name]:,.0f}", share)
    print_table(output, costs, "what it costs")
    gained = table("accuracy", *map(right, ("before", "after", "gain", "95 % interval")))
    for one in found.accuracies:
        ends = f"{100 * one.low:+.2f} to {100 * one.high:+.2f}" if one.faults else ""
        numbers = f"{100 * one.before:.2f} %", f"{100 * one.after:.2f} %", f"{100 * one.gain:+.2f}", ends
        gained.add_row(" + ".join(one.faults) or "without faults", *numbers)
    print_table(output, gained, "what it is worth")
    if found.note:
        print_warning(output, found.note)
    protected = sum(len(protection["channels"]) for protection in found.content["plan"].values())
    layers = len(found.content["plan"])
    what = f"{protected} channels in {layers} layers" if protected else f"the weights of {layers} layers"
    output.print(f"{found.content['options']['method']} protects {what}; net: {found.folder}", soft_wrap=True)


_COSTS = {
    "macs": "MACs",
    "parameters": "parameters",
    "weight_bits": "bits of weights",
    "activation_bytes": "bytes of activations",
    "unit_operations": "operations of units",
}
