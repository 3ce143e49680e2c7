"""Training jobs in one or several processes, with a bar that counts their epochs."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

from ftnas.distributed import ranks
from ftnas.errors import RunError
from ftnas.pipeline.jobs import Result, TrainingJob, run_job
from ftnas.pipeline.progress import progress_bar
from ftnas.pipeline.run_folder import Workplace
from ftnas.runtime import use_threads
from ftnas.stopping import Stopped, end_with_parent, leave, notice_in_worker

# Does something that can be sent to another process, and calls what it is given after each epoch.
Task = Callable[[Callable[[], None]], Result]


def run_jobs(work: Workplace, jobs: Sequence[TrainingJob], *, title: str, workers: int) -> list[Result]:
    """Do all ``jobs``, on so many processes, and return their results in order."""
    tasks = [partial(run_job, work.path, job) for job in jobs]
    epochs = sum(job.epochs for job in jobs)
    return run_tasks(tasks, title=title, epochs=epochs, workers=workers, threads=work.config.threads)


def run_tasks(tasks: Sequence[Task], *, title: str, epochs: int, workers: int, threads: int) -> list[Result]:
    """Do all ``tasks``, which end ``epochs`` epochs in all, on so many processes, and return their results in order."""
    with progress_bar(title, epochs) as advance:
        if workers == 1 or len(tasks) < 2 or ranks().size > 1:  # those that train together do so one net at a time
            return [task(advance) for task in tasks]
        return _run_in_processes(tasks, advance, workers=workers, threads=threads)


def _run_in_processes(
    tasks: Sequence[Task], advance: Callable[[], None], *, workers: int, threads: int
) -> list[Result]:
    context = multiprocessing.get_context("spawn")
    epochs = context.Queue()
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _begin_worker, (threads, epochs))
    with pool:
        futures = [pool.submit(_work, task) for task in tasks]
        try:
            _watch(futures, epochs, advance)
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            _end(set(multiprocessing.active_children()) - others)
            if isinstance(error, BrokenProcessPool):
                raise RunError(
                    "workers: a worker process was ended from outside, perhaps for want of memory; nothing is "
                    "half-written, and the same command goes on"
                ) from None
            raise
        return [future.result() for future in futures]


def _end(workers: set[BaseProcess]) -> None:
    """End ``workers`` and wait for them: what is in the middle of a step finishes and saves it first.

    An interruption meanwhile, as by a second Ctrl-C, ends them at once.
    """
    for worker in workers:
        worker.terminate()
    try:
        for worker in workers:
            worker.join()
    except BaseException:
        for worker in workers:
            worker.kill()
        raise


_EPOCHS: Any = None  # the queue of finished epochs, in a worker process


def _begin_worker(threads: int, epochs: Any) -> None:
    """Prepare a worker process: it leaves Ctrl-C to its parent and does not outlive it."""
    global _EPOCHS
    _EPOCHS = epochs
    notice_in_worker()
    end_with_parent()
    use_threads(threads)


def _work(task: Task) -> Result:
    try:
        return task(lambda: _EPOCHS.put(1))
    except Stopped as stop:
        leave(stop)


def _watch(futures: Sequence[Future[Result]], epochs: Any, advance: Callable[[], None]) -> None:
    waiting = True
    while waiting:
        done, open_ones = wait(futures, timeout=0.5)
        for future in done:
            future.result()  # an error of any worker ends the run at once
        waiting = bool(open_ones)
        while True:
            try:
                epochs.get_nowait()
            except queue.Empty:
                break
            advance()
