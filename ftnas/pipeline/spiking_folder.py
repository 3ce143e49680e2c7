"""Folders of spiking nets: begun with a configuration, and found again by the same one."""

from __future__ import annotations

from pathlib import Path

import yaml

from ftnas.configuration import Section, read_yaml, validate
from ftnas.errors import RunError
from ftnas.files import write_json, write_text
from ftnas.holding import is_new
from ftnas.pipeline.config import Recipe
from ftnas.pipeline.run_folder import ENVIRONMENT, FREE_KEYS, describe_environment


def open_folder(folder: Path, config: Section, file: str, *, recipe: Recipe, option: str, kind: str) -> None:
    """Make ``folder``, or go on in the one that is there.

    Args:
        folder: that results go into.
        config: what decides them.
        file: its name in the folder.
        recipe: what the description of the environment is of.
        option: by which another folder is named.
        kind: of folder, in words.

    Raises:
        RunError: it holds something else, or results of another configuration.
    """
    now = config.model_dump(mode="json")
    if (folder / file).exists():
        there = validate(type(config), read_yaml(folder / file), source=str(folder / file))
        for key, value in there.model_dump(mode="json").items():
            if key not in FREE_KEYS and value != now[key]:
                raise RunError(
                    f"{folder}: was made by another configuration ({key} is {value!r} there, {now[key]!r} now); choose "
                    f"another folder with {option}"
                )
    elif not is_new(folder):
        raise RunError(f"{folder}: exists and is not {kind}; choose another with {option}")
    else:
        write_text(folder / file, yaml.safe_dump(now, sort_keys=False))
    if not (folder / ENVIRONMENT).exists():
        write_json(folder / ENVIRONMENT, describe_environment(recipe))
