"""Every reader of ftnas: how to make a valid file for it, which edits know its format, and how to call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import fuzz_folders as folders
import fuzz_nets as nets
import fuzz_texts as texts
from fuzz_edits import json_edited
from fuzz_reader import Reader, plain

from ftnas.configuration import override
from ftnas.pipeline.config import load_config

# Made when it is asked for, since some need seconds.
READERS: Mapping[str, Callable[[], Reader]] = {
    "yaml of a run": lambda: texts.config("experiments/smoke.yaml", load_config),
    "yaml of a training": lambda: texts.config(texts.TRAIN, texts.train_config),
    "yaml of a comparison": lambda: texts.config(texts.COMPARE, texts.compare_config),
    "yaml of an experiment": lambda: texts.config("experiments/flat_minima.yaml", texts.experiment),
    "yaml of hardening": lambda: texts.config("experiments/neuron_splitting.yaml", texts.experiment),
    "yaml of graph experiments": lambda: texts.config("experiments/snn_resilience.yaml", texts.experiment),
    "yaml of spiking graphs": lambda: texts.config("experiments/snn_wine.yaml", texts.family),
    "yaml of spiking layers": lambda: texts.config("experiments/snn_digits.yaml", texts.family),
    "yaml of a search space": lambda: texts.config("search_spaces/darts_feature_faults.yaml", texts.space),
    "text of an override": lambda: texts.text("search.trials=[1, {a: 2}]", lambda text: override({}, [text])),
    "text of a fault": lambda: texts.text("weights.stuck_cell:0.08,1e-3:reach=range_end:scope=all", texts.fault),
    "text of a spiking fault": lambda: texts.text("synapses.flipped:0.05:duration=transient:steps=2", texts.fault),
    "text of a net": lambda: texts.text("models/net.py:Net", texts.net_text),
    "drawing of cells": lambda: texts.text(texts.svg(), texts.drawing),
    "genotype": lambda: Reader(
        folders.make_genotype, lambda f: folders.genotype(f / "file.json"), {"file.json": json_edited}
    ),
    "candidates": lambda: plain(folders.make_candidates, folders.candidates, json_edited),
    "run folder": lambda: folders.of_run(folders.record),
    "report of a run folder": lambda: folders.of_run(folders.report),
    "description of a run folder": lambda: folders.of_run(folders.described_run),
    "exported net of cells": lambda: folders.exported("cells"),
    "exported baseline": lambda: folders.exported("baseline"),
    "exported hardened net": lambda: folders.exported("hardened"),
    "training folder": folders.training,
    "proofs of an export": folders.proofs,
    "spiking graph": nets.spiking_graph,
    "generation of spiking graphs": nets.evolution,
    "spiking layers": nets.spiking_layers,
    "spiking layers as NIR": nets.nir,
    "map of spiking faults": lambda: nets.fault_map("json"),
    "map of spiking faults as CSV": lambda: nets.fault_map("csv"),
    "fault plan": nets.plan,
    "records of a campaign": folders.records,
    "checkpoint": folders.checkpoint,
    "study journal": folders.study,
    "order of proposals": folders.order,
    "lines of JSON": folders.lines,
    "safetensors": nets.tensors,
    "npz": nets.npz,
    "CIFAR-10 batch": lambda: nets.cifar(packed=False),
    "CIFAR-10 archive": lambda: nets.cifar(packed=True),
    "PNG images": lambda: nets.images("png"),
    "GIF images": lambda: nets.images("gif"),
    "JPEG images": lambda: nets.images("jpg"),
    "ONNX": nets.onnx,
    "torch.export program": nets.program,
}
