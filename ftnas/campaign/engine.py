"""Working off the units of a campaign: what is on record is not computed again, what is computed is recorded in order.

Results are functions of the unit alone, so workers, shards and kills change neither a result nor its place.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from ftnas.campaign.records import Content, RecordFile, check_header, open_records, read_records
from ftnas.campaign.units import check_unit
from ftnas.errors import CampaignError
from ftnas.stopping import check, finishing_steps
from ftnas.untrusted import understood

RECORDS = "records.jsonl"
SHARD_FILE = re.compile(r"records-\d+-of-\d+\.jsonl")

# (title, steps) -> a context that yields what is called after each step, as ``ftnas.pipeline.progress.progress_bar``.
Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


class Unit(Protocol):
    """A chip, or a single fault."""

    @property
    def name(self) -> str:
        """What sets it apart from all other units of the campaign."""


U = TypeVar("U", bound=Unit)

# (units, check) -> their results; ``check`` is to be called often, and raises where the campaign has been given up.
Work = Callable[[Sequence[U], Callable[[], None]], list[Content]]


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``count`` equal parts of a campaign, counted from 0.

    Attributes:
        index: which.
        count: of how many.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise CampaignError(f"shard: {self.index}/{self.count}; allowed is 0/{self.count} and up, below the count")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``0/2``.

        Raises:
            CampaignError: it is something else.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if not found:
            raise CampaignError(f"shard: {text!r}; write the first of two as 0/2")
        return cls(int(found[1]), int(found[2]))

    @property
    def file(self) -> str:
        """Name of its file of records."""
        return f"records-{self.index}-of-{self.count}.jsonl"


class Engine(Generic[U]):
    """Does units with ``work``, ``chunk`` of them at a time, on ``workers`` threads."""

    def __init__(
        self,
        records: RecordFile,
        elsewhere: Mapping[str, Content],
        work: Work[U],
        *,
        chunk: int,
        workers: int,
        shard: Shard | None,
        progress: Progress,
    ) -> None:
        self._records, self._elsewhere, self._work, self._progress = records, elsewhere, work, progress
        self._chunk, self._workers, self._shard = chunk, workers, shard
        self._given_up = threading.Event()

    def results(self, units: Sequence[U], *, title: str, share: bool = True) -> list[Content]:
        """Return the records of ``units``, in order; without those that other shards have to do.

        Args:
            units: distinct.
            title: of the progress bar.
            share: whether a shard does its part only; else it does all.
        """
        mine = units[self._shard.index :: self._shard.count] if share and self._shard else units
        missing = [unit for unit in mine if unit.name not in self._records.known]
        chunks = [missing[first : first + self._chunk] for first in range(0, len(missing), self._chunk)]
        with self._progress(title, len(mine)) as advance, closing(self._computed(chunks)) as computed:
            _repeat(advance, len(mine) - len(missing))
            with finishing_steps():
                for chunk, contents in zip(chunks, computed, strict=True):
                    self._records.append(contents)
                    _repeat(advance, len(chunk))
                    check(f"{title}, {chunk[-1].name}")
        return self.known(units)

    def known(self, units: Sequence[U]) -> list[Content]:
        """Return the records of those of ``units`` that have one.

        Raises:
            CampaignError: one does not hold what a record does.
        """
        found = [self._records.known[unit.name] for unit in units if unit.name in self._records.known]
        for content in found:
            with understood(f"record {content['unit']}", CampaignError):
                check_unit(content)
        return found

    def _computed(self, chunks: Sequence[Sequence[U]]) -> Generator[list[Content]]:
        """Yield the results of each chunk, in order."""
        if self._workers == 1 or len(chunks) < 2:
            yield from map(self._done, chunks)
            return
        with ThreadPoolExecutor(self._workers) as pool:
            futures = [pool.submit(self._done, chunk) for chunk in chunks]
            try:
                yield from (future.result() for future in futures)
            except BaseException:
                # After an error or Ctrl-C nobody wants what the other threads are at.
                self._given_up.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _done(self, chunk: Sequence[U]) -> list[Content]:
        """Return the results of ``chunk``: what shards have done as it is, the rest computed."""
        computed = iter(self._work([unit for unit in chunk if unit.name not in self._elsewhere], self._check))
        return [self._elsewhere.get(unit.name) or next(computed) for unit in chunk]

    def _check(self) -> None:
        if self._given_up.is_set():
            raise CampaignError("the campaign was given up")


@contextmanager
def open_campaign(
    out: Path | None,
    header: Content,
    work: Work[U],
    *,
    chunk: int,
    workers: int,
    shard: Shard | None,
    progress: Progress | None,
) -> Iterator[Engine[U]]:
    """Open the records in the folder ``out``, with those of all shards that lie there.

    Raises:
        CampaignError: they are damaged or of another campaign, or an argument is impossible.
    """
    if workers < 1:
        raise CampaignError(f"workers: {workers}; allowed is 1 or more")
    if shard and out is None:
        raise CampaignError("shard: a part of a campaign needs a folder (out) in which the parts meet")
    path = None if out is None else out / (shard.file if shard else RECORDS)
    elsewhere = {} if out is None or shard else _of_shards(out, header)
    with open_records(path, header) as records:
        yield Engine(records, elsewhere, work, chunk=chunk, workers=workers, shard=shard, progress=progress or _silent)


def _of_shards(out: Path, header: Content) -> dict[str, Content]:
    """Return what the shards that lie in ``out`` have done."""
    found: dict[str, Content] = {}
    files = sorted(out.iterdir()) if out.is_dir() else []
    for path in (path for path in files if SHARD_FILE.fullmatch(path.name)):
        there = read_records(path)
        check_header(there, header, path)
        found |= {str(content["unit"]): content for content in there.units}
    return found


def folder_of(out: Path | str | None) -> Path | None:
    """Return where the records go."""
    return None if out is None else Path(out)


def _silent(title: str, steps: int) -> AbstractContextManager[Callable[[], None]]:
    return nullcontext(lambda: None)


def _repeat(action: Callable[[], None], times: int) -> None:
    for _ in range(times):
        action()
