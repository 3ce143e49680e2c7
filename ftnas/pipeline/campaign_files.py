"""What a campaign over chips is asked for, and what it writes: the same for every family of nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftnas import campaign
from ftnas.campaign import ChipResult, Shard
from ftnas.errors import CampaignError
from ftnas.files import write_json, write_text
from ftnas.holding import is_new
from ftnas.pipeline.checkpoints import Checkpoint
from ftnas.report.campaign_figures import accuracy_figure
from ftnas.report.raster import write_png

RESULTS, TABLE, ACCURACY = "results.json", "results.csv", "accuracy"


@dataclass(frozen=True)
class Execution:
    """Where results go and how they are worked off; see ``campaign.run``."""

    out: Path
    workers: int = 1
    shard: Shard | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class ChipOptions:
    """A campaign over chips; see ``campaign.run``.

    ``export_chip``: also write the faults and the weights of this chip, for those who build the hardware.
    ``map``: of a layered spiking net, a file with what is broken on every chip beside ``faults``.
    """

    faults: tuple[str, ...]
    margin: float | None = None
    chips: int | None = None
    max_chips: int = 1000
    confidence: float = campaign.CONFIDENCE
    study: str = "campaign"
    export_chip: int | None = None
    map: Path | None = None


def data_facts(net: Checkpoint) -> dict[str, Any]:
    """Return what results say of the data that ``net`` was measured on."""
    return {"name": net.data.name, "test_images": len(net.data.test_labels)}


def write_chips(out: Path, result: ChipResult, options: ChipOptions, *, net: str, data: Mapping[str, Any]) -> None:
    """Write tables and figure of a campaign in which no part is left to other shards."""
    if result.missing:
        return
    rows = campaign.rows(result)
    write_results(out, net, data, campaign.document(result), rows)
    names = " + ".join(text.partition(":")[0] for text in result.rates[0].faults)
    draw(out, ACCURACY, accuracy_figure(rows, clean=result.accuracy, title=f"{net}: {names}"))


def write_results(
    out: Path, net: str, data: Mapping[str, Any], document: Mapping[str, Any], rows: Sequence[campaign.Row]
) -> None:
    """Write a campaign's results as JSON and CSV."""
    write_json(out / RESULTS, {"net": net, "data": dict(data), **document})
    write_text(out / TABLE, campaign.to_csv(rows))


def draw(out: Path, name: str, drawing: str) -> None:
    """Write a figure as SVG and PNG."""
    write_text(out / f"{name}.svg", drawing)
    write_png(drawing, out / f"{name}.png")


def check_folder(out: Path) -> None:
    """Refuse a folder that holds something else than a campaign.

    Raises:
        CampaignError: it does.
    """
    if not is_new(out) and not (out.is_dir() and any(out.glob("records*.jsonl"))):
        raise CampaignError(f"{out}: exists and holds no campaign; choose another with --out")
