"""Opening an Optuna study that goes on only as itself."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages.journal import JournalStorage

from ftnas.errors import RunError
from ftnas.search.journal import MARK, TrialJournal
from ftnas.search.ledger import demand_same
from ftnas.search.settings import Direction

STUDY = "ftnas"


def open_study(
    path: Path, identity: Mapping[str, str | int | float | None], objectives: Mapping[str, Direction]
) -> tuple[TrialJournal, optuna.Study]:
    """Return the study in ``path``, made if there is none, and its journal.

    Args:
        path: of the journal.
        identity: what decides on its trials; a study goes on only as itself.
        objectives: their names, and which way each is better.

    Raises:
        RunError: the file is no study, or one of another identity.
    """
    try:
        journal = TrialJournal(path)
        storage = JournalStorage(journal)
        names = optuna.get_all_study_names(storage)
    except OSError as error:
        raise RunError(f"{path}: cannot be opened ({error.strerror})") from None
    except Exception as error:
        raise RunError(f"{path}: is not a readable study journal ({type(error).__name__}: {error})") from None
    if names:
        study = optuna.load_study(study_name=names[0], storage=storage)
        demand_same(path, found=study.user_attrs.get("fingerprint"), ours=identity)
        return journal, study
    study = optuna.create_study(study_name=STUDY, storage=storage, directions=list(objectives.values()))
    study.set_metric_names(list(objectives))
    study.set_user_attr("fingerprint", dict(identity))
    study.set_user_attr(MARK, 0)
    journal.commit()
    return journal, study


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's own log and its remarks on experimental parts from the user."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
