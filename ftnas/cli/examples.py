"""What ``--help`` shows below the options: examples of each command, and what the exit codes mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "search": (
        "ftnas search experiments/digits.yaml",
        "ftnas search experiments/digits.yaml --run runs/mine --set search.trials=80",
        "ftnas search experiments/digits.yaml --workers 2 --storage grpc://localhost:13000",
        "ftnas search experiments/digits.yaml --run runs/again --replay runs/digits",
        "ftnas search experiments/cifar10_small_feature_faults.yaml --data-dir cifar-10-batches-py",
        "ftnas search experiments/snn_wine.yaml --set evolution.method=scalar --run runs/scalar",
    ),
    "compare": (
        "ftnas compare runs/r1 resnet18 vgg16 --size own --size scaled",
        "ftnas compare runs/r1 --training plain --training fault-tolerant",
        "ftnas compare runs/r1 my_models.py:MyNet --data digits --faults weights.bitflip:1e-3,1e-2",
    ),
    "train": (
        "ftnas train resnet20 --data digits --faults features.mac_bit_bias:3e-3 --out runs/t1",
        "ftnas train genotype.json --space digits --data digits --out runs/t2",
        "ftnas train my_models.py:MyNet --data digits --epochs 5 --out runs/t3",
        "ftnas train experiments/digits.yaml --run runs/r1",
        "ftnas train runs/snn_digits --map chip3.csv --epochs 4 --out runs/t4",
    ),
    "experiment": (
        "ftnas experiment experiments/flat_minima.yaml",
        "ftnas experiment experiments/flat_minima.yaml --workers 2 --out runs/flat",
        "ftnas experiment experiments/snn_resilience.yaml",
    ),
    "launch": (
        "ftnas launch experiments/finals.yaml --service local --concurrency 2 --accept-open-web-server",
        "ftnas launch finals.yaml --service-config machines.yaml --accept-open-web-server --out runs/finals",
        "ftnas launch finals.yaml --view --accept-open-web-server",
    ),
    "worker": (
        "ftnas worker runs/r1",
        "ftnas worker runs/r1 --storage grpc://head:13000 --data-dir /data/cifar-10-batches-py",
        "ftnas worker runs/r1 --storage postgresql://me@head/ftnas --wait 3600",
    ),
    "storage-server": (
        "ftnas storage-server runs/r1 --port 13000",
        "ftnas storage-server runs/r1 --port 13000 --host 0.0.0.0",
    ),
    "dashboard": ("ftnas dashboard runs/r1", "ftnas dashboard runs/r1 --port 8080 --no-tensorboard"),
    "spikes": (
        "ftnas spikes runs/snn_wine/winner/network.json --faults weights.gaussian:0.1,0.2 --out dist",
        "ftnas spikes network.json --task wine --sample 3 --out dist --json",
    ),
    "faultmap": (
        "ftnas faultmap runs/snn_digits --faults synapses.flipped:0.05 --chip 3 --out chip3.csv",
        "ftnas faultmap runs/snn_digits --map chip3.csv",
    ),
    "remap": ("ftnas remap runs/snn_digits --map chip3.csv --out runs/placed",),
    "report": ("ftnas report runs/r1", "ftnas report runs/r1 runs/r2 --out report.html"),
    "campaign": (
        "ftnas campaign runs/r1 --faults weights.bitflip:1e-4,1e-3 --margin 0.005 --out runs/c1",
        "ftnas campaign runs/r1 --single weights --by layer --margin 0.01 --out runs/c2",
        "ftnas campaign net.onnx --data digits --faults weights.bitflip:1e-3 --chips 50 --out runs/c3",
        "ftnas campaign runs/snn_digits --faults neurons.dead:0.02,0.1 --chips 50 --out runs/c4",
    ),
    "sites": ("ftnas sites runs/r1", "ftnas sites runs/r1 '*.weight'", "ftnas sites my_models.py:MyNet --data digits"),
    "vulnerability": (
        "ftnas vulnerability runs/r1 --out runs/v1",
        "ftnas vulnerability runs/r1 --estimator first_order --images 1000 --out runs/v2",
        "ftnas vulnerability my_models.py:MyNet --data digits --estimator exhaustive --out runs/v3",
    ),
    "export": (
        "ftnas export runs/r1 --format onnx pt2 safetensors c --out dist",
        "ftnas export runs/r1 --format c --faults weights.bitflip:1e-3 --chip 3 --out dist/chip3",
        "ftnas export my_models.py:MyNet --data digits --weights net.safetensors --format onnx --out dist",
    ),
    "harden": (
        "ftnas harden runs/r1 --method split --budget 0.25 --faults features.bitflip:0.01 --out runs/r1-split",
        "ftnas harden runs/r1 --method tmr --ratio 'cells.*=0.5' --ratio classifier=1 --out runs/r1-tmr",
        "ftnas harden my_models.py:MyNet --data digits --method bound --faults weights.bitflip:0.01 --out runs/bound",
    ),
    "spaces": ("ftnas spaces", "ftnas spaces --json"),
    "primitives": ("ftnas primitives", "ftnas primitives --json"),
    "faults": ("ftnas faults", "ftnas faults --json"),
    "baselines": ("ftnas baselines", "ftnas baselines --json"),
    "show": (
        "ftnas show runs/r1",
        "ftnas show runs/r1/trainings/resnet20-scaled-ftt",
        "ftnas show dist",
        "ftnas show genotype.json --space digits --data digits",
        "ftnas show my_models.py:MyNet --data digits",
        "ftnas show runs/r1 --json",
    ),
    "doctor": ("ftnas doctor", "ftnas doctor --json"),
}

EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "a bug in ftnas, with its traceback",
    2: "a mistake in what you gave, in one line; of doctor: something needed is missing",
    130: "interrupted with Ctrl-C; the same command goes on",
    143: "ended by SIGTERM; the same command goes on",
}


def examples_of(command: str, *, plain: bool) -> str | None:
    """Return the examples of a command as the end of its help; nothing if there are none."""
    return _block("Examples:", EXAMPLES[command], plain=plain) if command in EXAMPLES else None


def exit_codes(*, plain: bool) -> str:
    """Return the exit codes as the end of the program's help."""
    return _block("Exit codes:", [f"{code:>3}  {meaning}" for code, meaning in EXIT_CODES.items()], plain=plain)


def _block(title: str, lines: Sequence[str], *, plain: bool) -> str:
    """Return lines that stay lines: plain help joins them unless a backspace stands before them."""
    return "\n".join([*(["\b"] if plain else []), title, *(f"  {line}" for line in lines)])
