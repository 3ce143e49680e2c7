"""The readers of binary files under atheris (libFuzzer), which keeps the inputs that reach new branches.

    python tests/fuzz_binary.py npz /tmp/corpus 10000

begins with a valid file and tries so many changed ones; a crash, a traceback, 10 seconds or 1 GiB end it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

NAMES = (
    "safetensors", "npz", "CIFAR-10 batch", "PNG images", "ONNX", "torch.export program", "spiking layers as NIR",
    "fault plan",
)  # fmt: skip
# What takes the bytes apart in Python, whose branches are followed.
FOLLOWED = ("ftnas.files", "ftnas.data", "ftnas.importing", "ftnas.faults.plans", "ftnas.spiking.dense", "numpy.lib",
            "zipfile", "pickletools", "json", "PIL")  # fmt: skip
GROWTH = 1024  # MiB above what torch and the others take


def main(name: str, corpus: Path, inputs: int) -> None:
    """Fuzz one reader."""
    import atheris

    # Numba compiles the bytecode of the loops over faults, and cannot compile what atheris makes of it.
    loops = ["ftnas.faults.kernels"]
    with atheris.instrument_imports(include=list(FOLLOWED), exclude=loops, enable_loader_override=False):
        from fuzz_guard import Target, check_refusal, peak, quiet
        from fuzz_readers import READERS

    from ftnas.errors import FtnasError

    with tempfile.TemporaryDirectory() as folder:
        target = Target(READERS[name](), Path(folder))
        [(file, valid)] = target.valid.items()
        corpus.mkdir(parents=True, exist_ok=True)
        (corpus / "valid").write_bytes(valid)

        def one(content: bytes) -> None:
            (target.folder / file).write_bytes(content)
            try:
                with quiet():
                    target.reader.read(target.folder)
            except FtnasError as error:
                check_refusal(error)

        limit = (peak() >> 20) + GROWTH
        options = [f"-runs={inputs}", f"-rss_limit_mb={limit}", f"-malloc_limit_mb={limit}", "-timeout=10"]
        size = f"-max_len={max(4096, 2 * len(valid))}"
        atheris.Setup([sys.argv[0], *options, size, f"-artifact_prefix={corpus}/", str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
