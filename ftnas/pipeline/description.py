"""What can be said of a net without measuring it: its cells, its cost, and the scores that its folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ftnas.configuration import validate
from ftnas.cost import Cost, genotype_cost, measure
from ftnas.data import load_data
from ftnas.errors import RunError, SpaceError
from ftnas.export.weights import SUFFIX, find_weights, read_description
from ftnas.files import read_json
from ftnas.pipeline.nets import load_net
from ftnas.pipeline.own_sources import load_kept, source_of
from ftnas.pipeline.run_folder import CONFIG, SPACE
from ftnas.report.record import read_run
from ftnas.report.results import Result
from ftnas.report.verdict import headline
from ftnas.space import KINDS, OPERATORS, Genotype, SearchSpace, Sizes, load_space

MODEL, RESULT = "model.json", "result.json"
_BUILDS = ("baseline", "width", "numbers", "python", "bits")  # of a net that is no cell, see ``TrainingJob.model``
CIFAR10 = ((3, 32, 32), 10)  # image and classes for which the cost of a genotype is told, if no data are named


@dataclass(frozen=True)
class Description:
    """A net in words and numbers.

    Attributes:
        name: of its training, its file or itself.
        origin: where it comes from, in a line.
        spec: what it is built of, such as its ``baseline`` and ``width``; empty where that is not known.
        genotype: its cells, if it has some.
        sizes: how many cells of how many channels, if that is known.
        cost: for one image, if that is known.
        image: which image that is, in words.
        result: what was measured of it, ``None`` where nothing was.
        notes: what a reader must know.
    """

    name: str
    origin: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    genotype: Genotype | None = None
    sizes: Sizes | None = None
    cost: Cost | None = None
    image: str = ""
    result: Result | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        genotype, sizes, cost = self.genotype, self.sizes, self.cost
        return {
            "name": self.name,
            "origin": self.origin,
            "key": None if genotype is None else genotype.key,
            "genotype": None if genotype is None else genotype.to_dict(),
            "sizes": None if sizes is None else sizes.model_dump(mode="json"),
            "model": {key: self.spec[key] for key in _BUILDS if key in self.spec} or None,
            "cost": None if cost is None else {**asdict(cost), "flops": cost.flops, "image": self.image},
            "result": None if self.result is None else self.result.model_dump(mode="json"),
            "notes": list(self.notes),
        }


def describe(
    text: str,
    *,
    space: str | None = None,
    data: str | None = None,
    data_directory: Path | None = None,
    bits: int | None = None,
) -> Description:
    """Describe the net that ``text`` names: a file with a genotype, or what ``load_net`` takes.

    Runs, trainings and exports are described from their files alone: no data are needed.

    Args:
        space: name or path of the search space that a genotype is of; its cost is not known without one.
        data: name of the data set whose images a genotype or a model of the user's own is for.
        data_directory: its folder or file.
        bits: of a model of the user's own, by default 8.

    Raises:
        FtnasError: there is no such net, or its files are damaged.
    """
    path = Path(text)
    if path.suffix == ".json" and not path.with_suffix(SUFFIX).exists():
        _refuse({"bits": bits}, f"the edges of {text} have their own")
        return _of_genotype(path, space, data, data_directory)
    if space is not None:
        raise SpaceError(f"--space: is for a file with a genotype; {text} knows its own")
    if (path / CONFIG).exists() or (path / MODEL).exists():
        _refuse({"data": data, "data-dir": data_directory, "bits": bits}, f"{text} is shown from its own files")
        return _of_run(path) if (path / CONFIG).exists() else _of_training(path)
    if path.suffix in (SUFFIX, ".json") or (path.is_dir() and any(path.glob(f"*{SUFFIX}"))):
        _refuse({"data": data, "data-dir": data_directory, "bits": bits}, f"{text} is shown from its own files")
        return _of_exported(path)
    net = load_net(text, data=data, data_directory=data_directory, bits=bits)
    cost = measure(net.model, net.data.image_shape)
    known = Description(net.name, net.origin, cost=cost, image=_image(net.data.image_shape))
    return _built(known, net.spec or {}, path)


def _refuse(options: Mapping[str, object], reason: str) -> None:
    """Refuse options that would change nothing of what is shown."""
    for name, value in options.items():
        if value is not None:
            raise RunError(f"--{name}: would change nothing; {reason}")


def _of_run(folder: Path) -> Description:
    run = read_run(folder)
    winner, genotype = run.winner, run.winner_genotype
    if winner is None or genotype is None:
        raise RunError(f"{folder}: has no winner yet; finish the search, or name a folder in {folder / 'trainings'}")
    final = (run.space or {}).get("final")
    sizes = None if final is None else validate(Sizes, final, source=f"{folder / SPACE}: final")
    first = () if run.comparison is None else (headline(run.comparison),)
    return Description(
        winner.name,
        f"the winner of {folder}",
        genotype=_checked(genotype, folder / "winner" / "genotype.json"),
        sizes=sizes,
        cost=_cost(winner),
        image=f"an image of {_data_name(run.config)}",
        result=winner,
        notes=(*first, *(f"warning: {words}" for words in run.warnings)),
    )


def _data_name(config: Mapping[str, Any]) -> str:
    data = config.get("data")
    return str(data.get("name", "digits")) if isinstance(data, Mapping) else "digits"


def _of_training(folder: Path) -> Description:
    """Describe a folder below the trainings of a run, or one that a training of its own has made."""
    job = read_json(folder / MODEL)
    if not isinstance(job, dict) or not isinstance(job.get("model"), dict):
        raise RunError(f"{folder / MODEL}: describes no net")
    result = _result(folder / RESULT)
    known = Description(
        str(job.get("label", folder.name)),
        f"the training {folder}",
        cost=None if result is None else _cost(result),
        image="an image",
        result=result,
        notes=_failure(result) if result else ("not finished: nothing was measured yet",),
    )
    return _built(known, {**job["model"], "space": _space_beside(folder)}, folder / MODEL)


def _of_exported(path: Path) -> Description:
    """Describe what ``ftnas export`` wrote as safetensors; one of the user's own that has to be given is named."""
    file = find_weights(path)
    content = read_description(file)
    facts = content.get("facts", {})
    notes = tuple(f"{name}: {facts[name]}" for name in ("ftnas", "data", "chip") if name in facts)
    known = Description(str(facts.get("source", file.stem)), f"the export {file}", notes=notes)
    spec = content["net"]
    if "own" in spec and source_of(file) is None:
        return _with(known, notes=(*notes, f"built by code of your own: {spec['own']}"))
    model = load_kept(file)
    shape = tuple(spec["image_shape"])
    if "own" in spec:
        return _with(known, cost=measure(model, shape), image=_image(shape), notes=(*notes, f"from {spec['source']}"))
    return _built(_with(known, cost=measure(model, shape), image=_image(shape)), spec, file.with_suffix(".json"))


def _of_genotype(path: Path, space: str | None, data: str | None, directory: Path | None) -> Description:
    """Describe a file with a genotype; the result that lies beside it is taken if it is of the same cells."""
    genotype = _read_genotype(path)
    known = Description(path.name, str(path), genotype=_checked(genotype, path))
    result = _result(path.parent / RESULT)
    if space is None and result is not None and result.key == genotype.key:
        return _with(known, cost=_cost(result), image="an image", result=result)
    if space is None:
        _refuse({"data": data, "data-dir": directory}, f"the cost of {path} needs its search space too, --space")
        return _with(known, notes=("cost: known with the search space of the cells, --space",))
    of = load_space(space)
    of.check(genotype)
    image, classes = CIFAR10
    if data is None:
        _refuse({"data-dir": directory}, "name the data set with --data")
    else:
        loaded = load_data(data, directory=directory)
        image, classes = loaded.image_shape, loaded.classes
    cost = genotype_cost(genotype, of, of.final, image_shape=image, classes=classes)
    return _with(known, sizes=of.final, cost=cost, image=f"{_image(image)}, {classes} classes")


def _read_genotype(path: Path) -> Genotype:
    try:
        return Genotype.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise RunError(f"{path}: is not text, so it is no genotype") from None
    except SpaceError as error:
        raise SpaceError(f"{path}: {error}") from None


def _checked(genotype: Genotype, source: Path) -> Genotype:
    """Return ``genotype``, as read from the file ``source``, if its operators are known.

    Raises:
        SpaceError: one is not.
    """
    for kind in KINDS:
        for number, node in enumerate(genotype.cell(kind), start=2):
            for edge in node:
                if edge.operator not in OPERATORS:
                    known = ", ".join(OPERATORS)
                    raise SpaceError(
                        f"{source}: {kind}.{number}: unknown operator {edge.operator!r}; choose from {known}"
                    )
    return genotype


def _built(known: Description, spec: Mapping[str, Any], source: Path) -> Description:
    """Return ``known`` with what ``spec`` (of a training, or of a ``Checkpoint``) says of the net."""
    if "genotype" not in spec:
        return _with(known, spec=spec)
    genotype = _checked(Genotype.from_dict(spec["genotype"]), source)
    return _with(known, genotype=genotype, sizes=_sizes(spec), spec=spec)


def _sizes(spec: Mapping[str, Any]) -> Sizes | None:
    """Return the cells' layout: the ``sizes`` themselves, or those of the ``space`` at other ``channels``."""
    if "sizes" in spec:
        return Sizes.model_validate(spec["sizes"])
    if spec["space"] is None:
        return None
    sizes: Sizes = spec["space"].final
    return sizes.model_copy(update={"channels": spec["channels"]})


def _space_beside(folder: Path) -> SearchSpace | None:
    """Return the search space of the run that a training is part of, or that lies in its own folder."""
    found = [place / SPACE for place in (folder, folder.parent.parent) if (place / SPACE).exists()]
    return load_space(found[0]) if found else None


def _result(file: Path) -> Result | None:
    return validate(Result, read_json(file), source=str(file)) if file.exists() else None


def _cost(result: Result) -> Cost:
    return Cost(result.macs, result.parameters, result.weight_bits)


def _failure(result: Result) -> tuple[str, ...]:
    return () if result.failure is None else (f"warning: {result.failure}",)


def _image(shape: tuple[int, ...]) -> str:
    return f"an image of {'x'.join(map(str, shape))}"


def _with(known: Description, **changes: Any) -> Description:
    return Description(**{**known.__dict__, **changes})
