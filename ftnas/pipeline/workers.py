"""Training jobs in one or several processes, with a bar that counts their epochs."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from ftnas.pipeline.jobs import Result, TrainingJob, run_job
from ftnas.pipeline.progress import progress_bar
from ftnas.pipeline.run_folder import RunFolder
from ftnas.runtime import use_threads


def run_jobs(run: RunFolder, jobs: Sequence[TrainingJob], *, title: str) -> list[Result]:
    """Do all ``jobs``, on as many processes as the configuration says, and return their results in order."""
    with progress_bar(title, sum(job.epochs for job in jobs)) as advance:
        if run.config.workers == 1 or len(jobs) == 1:
            return [run_job(run.path, job, advance) for job in jobs]
        return _run_in_processes(run, jobs, advance)


def _run_in_processes(run: RunFolder, jobs: Sequence[TrainingJob], advance: Callable[[], None]) -> list[Result]:
    context = multiprocessing.get_context("spawn")
    epochs = context.Queue()
    pool = ProcessPoolExecutor(run.config.workers, context, _begin_worker, (run.config.threads, epochs))
    with pool:
        futures = [pool.submit(_work, run.path, job) for job in jobs]
        try:
            _watch(futures, epochs, advance)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
        return [future.result() for future in futures]


_EPOCHS: Any = None  # the queue of finished epochs, in a worker process


def _begin_worker(threads: int, epochs: Any) -> None:
    """Prepare a worker process: it leaves Ctrl-C to its parent and does not outlive it."""
    global _EPOCHS
    _EPOCHS = epochs
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_threads(threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(folder: Path, job: TrainingJob) -> Result:
    return run_job(folder, job, lambda: _EPOCHS.put(1))


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
