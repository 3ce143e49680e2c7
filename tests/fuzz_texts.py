"""Readers of configurations and of texts that a user types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fuzz_edits
import yaml
from fuzz_reader import Reader

from ftnas.configuration import override, read_yaml, validate
from ftnas.pipeline.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent


def text_file(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "file").write_text(content, encoding="utf-8")


def config(source: str, load: Callable[[Path], object]) -> Reader:
    """Return the reader of a YAML file, which is found in the checkout or given as text."""
    text = (ROOT / source).read_text(encoding="utf-8") if source.endswith(".yaml") else source

    def make(folder: Path) -> None:
        (folder / "file.yaml").write_text(text, encoding="utf-8")

    return Reader(make, lambda folder: load(folder / "file.yaml"), {"file.yaml": fuzz_edits.yaml_edited})


def text(content: str, parse: Callable[[str], object]) -> Reader:
    """Return the reader of a text that a user types or a file holds."""
    return Reader(
        text_file(content),
        lambda folder: parse((folder / "file").read_bytes().decode("utf-8", "surrogateescape")),
        {"file": fuzz_edits.bytes_edited},
    )


def train_config(path: Path) -> object:
    return validate(TrainConfig, read_yaml(path), source=str(path))


def compare_config(path: Path) -> object:
    from ftnas.pipeline.net_comparison import compare_config

    return compare_config(read_yaml(path), source=str(path))


def experiment(path: Path) -> object:
    from ftnas.pipeline.experiments import load_experiment
    from ftnas.pipeline.graph_experiment import is_of_graphs, load_graph_experiment
    from ftnas.pipeline.hardening_experiment import is_of_hardening, load_hardening_experiment

    if is_of_graphs(path):
        return load_graph_experiment(path)
    return load_hardening_experiment(path) if is_of_hardening(path) else load_experiment(path)


def family(path: Path) -> object:
    from ftnas.pipeline.evolution_config import graph_config
    from ftnas.pipeline.layered_config import layered_config

    content = override(read_yaml(path), ())
    return (graph_config if content.get("family") == "snn-graph" else layered_config)(content, path)


def space(path: Path) -> object:
    from ftnas.space import load_space

    return load_space(path).size


def fault(text: str) -> object:
    from ftnas.faults.texts import parse_sweep
    from ftnas.spiking.dense.hardware_faults import parse_any
    from ftnas.spiking.graph.perturbation import parse_perturbations

    if text.startswith(("synapses", "neurons")):
        return str(parse_any(text))
    return [str(fault) for fault in (parse_perturbations(text) if "@" in text else parse_sweep(text))]


def net_text(text: str) -> object:
    from ftnas.pipeline.nets import own_net

    return own_net(text)


def drawing(text: str) -> object:
    from ftnas.report.drawing import genotype_from_svg

    return genotype_from_svg(text).key


def svg() -> str:
    from ftnas.report.drawing import genotype_svg
    from ftnas.space import w_ftt_net

    return genotype_svg(w_ftt_net())


TRAIN = yaml.safe_dump(
    {"net": "resnet20", "width": 0.25, "faults": ["weights.bit_flip:1e-3"], "campaign": {"chips": 20, "rates": [1e-2]},
     "training": {"epochs": 2, "faults": []}, "data": {"name": "digits", "train_images": 200}}
)  # fmt: skip
COMPARE = yaml.safe_dump({**yaml.safe_load(TRAIN), "nets": ["resnet20", "mobilenet_v2"], "sizes": ["own"]})
for key in ("net", "width"):
    COMPARE = "\n".join(line for line in COMPARE.splitlines() if not line.startswith(f"{key}:")) + "\n"
