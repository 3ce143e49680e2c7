"""Memory against the size of a supernet, and time against images and chips. Started by ``scaling.py``."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import torch
from scaling_support import SPACE, Options, Row, scorer_of, timed
from timing import print_rows

from ftnas.networks import CellNetwork
from ftnas.runtime import keyed_generator, seeded, use_threads
from ftnas.search.scoring import Scorer

MEMORY = """
import sys
sys.path.insert(0, sys.argv[1])
import scaling_sizes
print(*scaling_sizes.memory_of_supernet(int(sys.argv[2])))
"""


def memory(options: Options) -> Row:
    """Measure the memory of a process that scores with a supernet of so many channels."""
    found = {}
    for channels in (0, 8, 16, 32, 64, 128):
        command = [sys.executable, "-c", MEMORY, str(Path(__file__).parent), str(channels)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        parameters, peak = map(int, text.split())
        found[channels] = {"parameters": parameters, "peak": peak}
    rows = [(str(c) if c else "(none)", f"{m['parameters']:,}", f"{m['peak'] / 2**20:.0f}") for c, m in found.items()]
    print_rows(("channels", "parameters of the supernet", "MiB at most"), rows, "one process that scores one candidate")
    return {"supernets": found}


def memory_of_supernet(channels: int) -> tuple[int, int]:
    """Return the parameters of a supernet, and the most memory that scoring one candidate took, in bytes."""
    import resource

    use_threads(1)
    parameters = 0
    if channels:
        sizes = SPACE.search.model_copy(update={"channels": channels})
        with seeded("scaling"):
            supernet = CellNetwork(SPACE, sizes, image_shape=(1, 8, 8), classes=10)
        images = torch.rand(300, 1, 8, 8, generator=keyed_generator("images"))
        labels = torch.zeros(300, dtype=torch.long)
        Scorer(supernet, images, labels, images[:256], faults=(), chips=1, study="scaling")(
            SPACE.sample(keyed_generator("scaling", 0))
        )
        parameters = sum(parameter.numel() for parameter in supernet.parameters())
    return parameters, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cost(options: Options) -> Row:
    """Measure the seconds of a candidate against images and chips."""
    found: list[Row] = []
    for images in (75, 150, 300):
        for chips in (2, 4, 8, 16):
            scorer, genotypes = scorer_of(options.run, images=images, chips=chips)
            seconds = statistics.median(timed(scorer, genotype) for genotype in genotypes)
            found.append({"images": images, "chips": chips, "seconds": seconds})
    points = torch.tensor([[1.0, row["images"], row["images"] * row["chips"], row["chips"]] for row in found])
    times = torch.tensor([row["seconds"] for row in found])
    fit = torch.linalg.lstsq(points.double(), times.double()[:, None]).solution[:, 0].tolist()
    names = ("fixed", "image", "image_and_chip", "chip")
    rows = [(f"{row['images']} x {row['chips']}", f"{1000 * row['seconds']:.0f}") for row in found]
    words = ", ".join(f"{name} {1e6 * value:.1f} us" for name, value in zip(names, fit, strict=True))
    print_rows(("images x chips", "ms"), rows, f"of a candidate, one thread; fitted: {words}")
    return {"rows": found, "fit": dict(zip(names, fit, strict=True))}
