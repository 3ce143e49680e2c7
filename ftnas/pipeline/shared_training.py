"""The trainings of a search, without the search: for processes that share each step, as torchrun starts them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ftnas.distributed import first_does, ranks
from ftnas.holding import holding
from ftnas.pipeline.comparison import comparison_jobs
from ftnas.pipeline.config import RunConfig
from ftnas.pipeline.finalists import choose_winner
from ftnas.pipeline.jobs import load_dataset
from ftnas.pipeline.limits import check_cores
from ftnas.pipeline.logbook import Logbook
from ftnas.pipeline.run import check_images
from ftnas.pipeline.run_folder import CONFIG, RunFolder, open_run
from ftnas.pipeline.search_stages import LEADERS, train_supernet
from ftnas.pipeline.workers import run_jobs
from ftnas.runtime import choose_device, use_threads
from ftnas.space import load_space


@dataclass(frozen=True)
class SharedTrainings:
    """What is trained now in a run folder.

    Attributes:
        folder: of the run.
        trained: the supernet, and the names of nets that are trained and measured.
        remains: what ``ftnas search`` does next there.
        processes: how many trained together.
    """

    folder: Path
    trained: tuple[str, ...]
    remains: str
    processes: int


def train_search(config: RunConfig, folder: Path) -> SharedTrainings:
    """Train what the search ``config`` needs next, in its run folder: its supernet; and where its study has chosen its
    leaders, those shortly, and then the winner and all that it is compared with in full.

    The same call, and ``search``, go on where an earlier one was cut off, with any number of processes.

    Raises:
        FtnasError: what the user gave is wrong; nothing is half-written.
    """
    check_cores(config.threads)
    use_threads(config.threads)
    space = load_space(config.space)
    data = load_dataset(config, choose_device(config.device))
    check_images(config, data)

    def open_folder() -> None:
        open_run(folder, config, space)

    with holding(folder, CONFIG):
        first_does(open_folder)
        run = RunFolder(folder, config, space)
        with Logbook(run.file("tensorboard")) if ranks().is_first else nullcontext() as logbook:
            train_supernet(run, data, logbook)
        if not first_does(lambda: run.file(*LEADERS).exists()):
            return SharedTrainings(folder, ("supernet",), "the study, and all that follows", ranks().size)
        winner = choose_winner(run, data)
        jobs = comparison_jobs(run, data, winner, config.comparison)
        results = run_jobs(run, jobs, title="winner and comparison", workers=1)
    names = tuple(result["name"] for result in results)
    return SharedTrainings(folder, ("supernet", *names), "the comparison and its page", ranks().size)
