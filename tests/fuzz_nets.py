"""Readers of nets and of data sets."""

from __future__ import annotations

import gzip
import io
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_binary_edits
import fuzz_edits
import numpy as np
import torch
from fuzz_reader import Reader, plain
from PIL import Image
from test_data_cifar10 import make_folder

from ftnas.data import load_data
from ftnas.faults import draw_plan, load_plan, save_plan
from ftnas.files import read_tensors, write_json, write_tensors


def spiking_graph() -> Reader:
    from test_spiking_graph_files import NETWORK

    from ftnas.spiking.graph.network_file import read_network, write_network

    return plain(lambda path: write_network(path, NETWORK), read_network, fuzz_edits.json_edited)


def evolution() -> Reader:
    from test_spiking_graph_files import NETWORK

    from ftnas.search.candidates import Score
    from ftnas.spiking.graph.evolution import Generation, read_generation
    from ftnas.spiking.graph.selection import Individual

    one = Individual(NETWORK.genome, Score(0.9, 0.8, (0.7, 0.9)))
    content = Generation(3, (one, one), (one,), ({"generation": 0, "fitness": 0.5},)).to_dict()
    return plain(
        lambda path: write_json(path, content),
        lambda path: read_generation(path, NETWORK.processor),
        fuzz_edits.json_edited,
    )


@cache
def spiking_net() -> Any:
    from spiking_nets import small_net

    return small_net(channels=(3,))


def spiking_layers() -> Reader:
    from ftnas.spiking.dense.json_file import facts_of, read_network_json, write_network_json

    def read(path: Path) -> object:
        return facts_of(path), read_network_json(path)

    return plain(lambda path: write_network_json(spiking_net(), path), read, fuzz_edits.json_edited)


def nir() -> Reader:
    from ftnas.spiking.dense.nir_file import read_nir, write_nir

    return plain(lambda path: write_nir(spiking_net(), path), read_nir, fuzz_binary_edits.hdf5_edited)


def fault_map(ending: str) -> Reader:
    from ftnas.spiking.dense.fault_map import draw_map
    from ftnas.spiking.dense.hardware_faults import parse_spiking_fault
    from ftnas.spiking.dense.map_file import load_map, save_map

    def make(path: Path) -> None:
        faults = [parse_spiking_fault(text) for text in ("synapses.flipped:0.05", "neurons.threshold:0.3")]
        save_map(draw_map(spiking_net(), faults), path)

    codec = fuzz_edits.json_edited if ending == "json" else fuzz_edits.csv_edited
    name = f"map.{ending}"
    return Reader(
        lambda folder: make(folder / name), lambda folder: load_map(folder / name, spiking_net()), {name: codec}
    )


@cache
def faulty_net() -> Any:
    from faulty_net import trained_net

    return trained_net()


def plan() -> Reader:
    def make(path: Path) -> None:
        save_plan(draw_plan(faulty_net(), ["weights.bit_flip:0.01", "weights.gaussian:0.01"]), path)

    return plain(make, lambda path: load_plan(path, faulty_net()), fuzz_binary_edits.safetensors_edited)


def npz() -> Reader:
    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        images, labels = rng.integers(0, 256, (6, 8, 8), dtype=np.uint8), np.arange(6) % 2
        np.savez(folder / "file.npz", x_train=images, y_train=labels, x_test=images[:2], y_test=labels[:2])

    def read(folder: Path) -> object:
        return load_data("npz", directory=folder / "file.npz")

    return Reader(make, read, {"file.npz": fuzz_binary_edits.zip_edited})


def cifar(*, packed: bool) -> Reader:
    def make(folder: Path) -> None:
        batches = make_folder(folder)
        if packed:
            made = io.BytesIO()
            with tarfile.open(fileobj=made, mode="w") as archive:
                archive.add(batches, arcname=batches.name)
            (folder / "cifar.tar").write_bytes(made.getvalue())

    def read(folder: Path) -> object:
        if not packed:
            return load_data("cifar10", directory=folder)
        (folder / "cifar.tar.gz").write_bytes(gzip.compress((folder / "cifar.tar").read_bytes(), 1))
        return load_data("cifar10", directory=folder / "cifar.tar.gz")

    return Reader(make, read, {("cifar.tar" if packed else "cifar-10-batches-py/test_batch"): fuzz_edits.bytes_edited})


def images(ending: str) -> Reader:
    def make(folder: Path) -> None:
        rng = np.random.default_rng(0)
        for label in ("cat", "dog"):
            for number in range(2):
                place = folder / label / f"{number}.{ending}"
                place.parent.mkdir(exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(place)

    def read(folder: Path) -> object:
        return load_data("folder", directory=folder)

    return Reader(make, read, {f"cat/0.{ending}": fuzz_binary_edits.png_edited})


def onnx() -> Reader:
    from test_importing_onnx import IMAGES, helper, net_of, weight

    from ftnas.importing.onnx_file import load_onnx

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Reshape", ["g", "s"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], transB=1),
    ]
    constants = {"w": weight(4, 3, 3, 3), "b": weight(4), "s": np.array([0, -1]), "v": weight(5, 4)}
    return plain(
        lambda path: net_of(nodes, constants, path),
        lambda path: load_onnx(path, image_shape=IMAGES),
        fuzz_binary_edits.onnx_edited,
    )


def program() -> Reader:
    from test_importing_program import save

    from ftnas.importing.exported_program import load_program

    def make(folder: Path) -> None:
        net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2),
            torch.nn.Flatten(), torch.nn.Linear(12, 4),
        ).eval()  # fmt: skip
        save(net, torch.zeros(2, 1, 8, 8), folder / "file.pt2")

    return Reader(make, lambda folder: load_program(folder / "file.pt2"), {"file.pt2": fuzz_binary_edits.zip_edited})


def tensors() -> Reader:
    def make(path: Path) -> None:
        write_tensors(path, {"a": torch.ones(3, 2), "b": torch.arange(4)}, {"key": [1, {"x": None}]})

    return plain(make, read_tensors, fuzz_binary_edits.safetensors_edited)
