"""One training of a layered spiking net, on a sound chip or on one whose faults are known.

    spiking_training.yaml -> checkpoint -> net.json, map.json -> result.json

A part whose file is there is skipped, and a training goes on from its checkpoint.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ftnas.campaign import Measurement, accuracy
from ftnas.data import Dataset
from ftnas.errors import ModelError
from ftnas.files import read_json, write_json
from ftnas.holding import holding
from ftnas.pipeline.jobs import load_dataset
from ftnas.pipeline.layered_training_config import LayeredTrainConfig, specification, with_thresholds
from ftnas.pipeline.limits import check_training
from ftnas.pipeline.progress import progress_bar
from ftnas.pipeline.spiking_folder import open_folder
from ftnas.pipeline.spiking_nets import TRAINED, TRAINING, spiking_file
from ftnas.runtime import choose_device, seeded, use_threads
from ftnas.spiking.dense.defences import bypassed
from ftnas.spiking.dense.fault_map import FaultMap, inject_map
from ftnas.spiking.dense.hardware_faults import divided
from ftnas.spiking.dense.json_file import read_network_json, write_network_json
from ftnas.spiking.dense.map_file import load_map, save_map
from ftnas.spiking.dense.measurement import spiking_chip_accuracies
from ftnas.spiking.dense.network import SpikingNet, spikes_per_image, with_spec
from ftnas.spiking.dense.nir_file import read_nir
from ftnas.spiking.dense.scoring import trained
from ftnas.training import remove_checkpoint, train

MAP, RESULT, BEFORE, CHECKPOINT = "map.json", "result.json", "before.json", "checkpoint.safetensors"
Row = dict[str, Any]


def train_layers(config: LayeredTrainConfig, folder: Path) -> Row:
    """Train the net of ``config`` and measure it; ``folder`` then is a net for every other command.

    The same call goes on where an earlier one was cut off.

    Args:
        config: which net, which images, which chip.
        folder: for the net, the map and ``result.json``, whose content is returned.

    Raises:
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    use_threads(config.threads)
    data = load_dataset(config.recipe, choose_device(config.device))
    check_training(config.recipe, data)
    there = _there(config, data)
    start = _start(config, data, there)
    given = FaultMap() if config.map is None else load_map(Path(config.map), start)
    with holding(folder, TRAINING):
        return _training(config, folder, data, there=there, start=start, given=given)


def _training(
    config: LayeredTrainConfig,
    folder: Path,
    data: Dataset,
    *,
    there: SpikingNet | None,
    start: SpikingNet,
    given: FaultMap,
) -> Row:
    open_folder(folder, config, TRAINING, recipe=config.recipe, option="--out", kind="a training of a spiking net")
    if not (folder / RESULT).exists():
        if config.map is not None:
            _keep_map(config, data, there, given, folder)
        _train(config, data, start, folder)
        write_json(folder / RESULT, _result(config, data, given, folder))
        remove_checkpoint(folder / CHECKPOINT)
    return dict(read_json(folder / RESULT))


def _there(config: LayeredTrainConfig, data: Dataset) -> SpikingNet | None:
    """Return the net that the configuration names, if that is one and no YAML file.

    Raises:
        ModelError: it is damaged, or for other data.
    """
    file = spiking_file(config.net)
    if file is None:
        return None
    net = read_nir(file) if file.suffix == ".nir" else read_network_json(file)
    if (data.image_shape, data.classes) != (net.image_shape, net.classes):
        size = "x".join(map(str, data.image_shape))
        raise ModelError(f"{file}: is of a net for other data than {data.name} ({size}, {data.classes} classes)")
    return net.to(data.train_images.device).eval()


def _start(config: LayeredTrainConfig, data: Dataset, there: SpikingNet | None) -> SpikingNet:
    """Return the net before its training."""
    spec = specification(config) if there is None else with_thresholds(there.spec, config)
    if there is not None and config.start in (None, "weights"):
        # A net of a file keeps the grid of that file; training may need a wider one.
        return with_spec(there, **spec.model_dump()).eval()
    with seeded("initialisation", config.seed):
        return SpikingNet(spec, data.image_shape, data.classes).to(data.train_images.device).eval()


def _keep_map(
    config: LayeredTrainConfig, data: Dataset, there: SpikingNet | None, given: FaultMap, folder: Path
) -> None:
    """Write the map that is trained on, and what the net that was there is worth on its chip."""
    on_chip = bypassed(given) if config.bypass else given
    save_map(on_chip, folder / MAP)
    found = {}
    if there is not None:
        found = {"on_chip": _right(there, data, given)}
        found |= {"bypassed": _right(there, data, on_chip)} if config.bypass else {}
    write_json(folder / BEFORE, found)


def _train(config: LayeredTrainConfig, data: Dataset, net: SpikingNet, folder: Path) -> None:
    """Train ``net``, on the chip of the map in ``folder`` if there is one, and write it."""
    if (folder / TRAINED).exists():
        return
    on_chip = load_map(folder / MAP, net) if config.map is not None else FaultMap()
    faults = divided(config.levels[0].faults)[1] if config.levels and config.kind != "plain" else ()
    for stage in net.stages:
        stage.neurons.threshold.requires_grad_(net.spec.learn_threshold)
    with progress_bar("training", config.training.epochs) as advance:
        if config.start == "converted":
            net = trained(
                net.spec,
                "converted",
                data.train_images,
                data.train_labels,
                classes=data.classes,
                settings=config.training,
                faults=faults,
                seed=config.seed,
                checkpoint=folder / CHECKPOINT,
                on_epoch=lambda record: advance(),
            )
        else:
            with inject_map(net, on_chip) if on_chip else nullcontext():
                train(
                    net,
                    data.train_images,
                    data.train_labels,
                    settings=config.training,
                    faults=faults,
                    key=f"training {config.start or 'net'} {config.seed}",
                    checkpoint=folder / CHECKPOINT,
                    on_epoch=lambda record: advance(),
                )
    write_network_json(net, folder / TRAINED, facts={"data": data.name, "source": config.net})


def _right(net: SpikingNet, data: Dataset, on_chip: FaultMap) -> float:
    with inject_map(net, on_chip):
        return accuracy(net, data.test_images, data.test_labels)


def _result(config: LayeredTrainConfig, data: Dataset, given: FaultMap, folder: Path) -> Row:
    """Measure the net that was written, without faults, on its own chip, and on that with more faults."""
    net = read_network_json(folder / TRAINED).to(data.test_images.device)
    on_chip = load_map(folder / MAP, net) if given else given
    chip = (
        {**read_json(folder / BEFORE), "trained": _right(net, data, on_chip), "faults": len(given)} if given else None
    )
    rates = []
    for level in config.levels:
        chips = range(config.campaign.chips)
        study = f"campaign {config.seed}"
        found = spiking_chip_accuracies(
            net, data.test_images, data.test_labels, faults=level.faults, chips=chips, study=study, given=on_chip
        )
        texts = [str(fault) for fault in level.faults]
        rates.append({"rate": level.rate, "faults": texts, **Measurement.over(found).to_dict()})
    return {
        "label": folder.name,
        "family": net.spec.family,
        "training": config.kind if config.faults else "plain",
        "data": data.name,
        "seed": config.seed,
        "epochs": config.training.epochs,
        "clean": accuracy(net, data.test_images, data.test_labels),
        "chip": chip,
        "rates": rates,
        "synapses": net.synapses,
        "neurons": net.neurons,
        "spikes": spikes_per_image(net, data.test_images),
        "thresholds": [float(stage.neurons.threshold_on_grid().detach()) for stage in net.stages],
        "specification": net.spec.model_dump(mode="json"),
    }
