"""The folder of a run that begins, or of one that goes on."""

from __future__ import annotations

import os
from pathlib import Path

from .cli import Command
from .comparisons import variants
from .disk import check_writable, write_atomically
from .recipe import EMBEDDED, Recipe, dump_toml, load_recipe, recipe_hash, replaced
from .run_folder import OUTPUTS, RECIPE, claim, newest_unfinished, resume

LOCATIONS = {  # fields that say where something is: it may have been moved, if it is the same
    "model": ("path", "config", "vocabulary"),
    "data": ("images", "shards", "prompts", "cache"),
}


def open_folder(command: Command, processes: int) -> tuple[Path, Recipe]:
    """A new run's folder with its recipe in it, or the one to go on with; and the recipe.

    Raises:
        ValueError: the recipe can't be run, or is not the one that the run was begun with.
        OutputError: there is nothing to resume, or no folder can be made.
    """
    recipe = command.recipe
    if not command.resume:
        check(recipe, command.comfyui, processes)
        check_writable(command.output, disk_needed(recipe))
        folder = claim(command.output)
        write_atomically(folder / RECIPE, dump_toml(recipe))
        return folder, recipe
    folder = resumed_folder(command)
    stored = stored_recipe(folder)
    if command.overridden:
        stored = moved(stored, recipe)
        if recipe_hash(stored) != recipe_hash(recipe):
            raise ValueError(
                f"{folder} was begun with another recipe ({folder / RECIPE}): {_differences(stored, recipe)}. Resume "
                "it without these options, or begin a new run without --resume"
            )
    check(stored, command.comfyui, processes)
    check_writable(folder, disk_needed(stored))
    return folder, stored


def resumed_folder(command: Command) -> Path:
    """The run that ``--resume`` goes on with: the one that was named, or the newest; of several it says which.

    Raises:
        OutputError: there is none.
    """
    if command.output is not None:
        return resume(command.output, command.named)
    folder, *others = newest_unfinished(OUTPUTS)
    if others:
        shown = ", ".join(map(str, others[:5])) + (", …" if len(others) > 5 else "")
        print(f"Of {len(others) + 1} unfinished runs this is the newest: {folder}. Others, for --output: {shown}")
    return folder


def stored_recipe(folder: Path) -> Recipe:
    """The recipe that a run's folder was begun with.

    Raises:
        ValueError: the folder holds no run.
    """
    if not (folder / RECIPE).is_file():
        raise ValueError(f"{folder} holds no run: there is no {RECIPE} in it. Give a folder that training.distill made")
    return load_recipe(folder / RECIPE)


def moved(stored: Recipe, given: Recipe) -> Recipe:
    """A run's recipe with the places of model and data that a command line gives; see `origin` for what is there."""
    if stored.family in EMBEDDED:
        return stored
    sections = {name: getattr(given, name).model_dump(include=set(fields)) for name, fields in LOCATIONS.items()}
    return replaced(stored, **sections)


def keep_recipe(folder: Path, recipe: Recipe) -> None:
    """Write where a run's model and data are now, once it is known that they are the same."""
    path = folder / RECIPE
    if recipe_hash(stored_recipe(folder)) == recipe_hash(recipe):
        return
    began = path.stat().st_mtime_ns  # tells the newest run
    write_atomically(path, dump_toml(recipe))
    os.utime(path, ns=(began, began))


def check(recipe: Recipe, comfyui: Path | None = None, processes: int = 1) -> None:
    """Refuse now, with an error for people, what would fail only when hours have gone by."""
    if recipe.family in EMBEDDED:
        if comfyui:
            raise ValueError(f"--comfyui: ComfyUI has no models of the family {recipe.family}, leave it out")
        return
    from .pretrained import check

    check(recipe, comfyui, processes)


def disk_needed(recipe: Recipe) -> int:
    """An upper estimate of what a run writes, in bytes: weights with their optimiser state, twice for a checkpoint."""
    if recipe.family not in EMBEDDED:  # the cache tells its own
        from .pretrained import disk_needed as of_pretrained

        return of_pretrained(recipe)
    width = recipe.teacher.width
    teacher = 4 * 1100 * width**2  # about 1,000 parameters per width², float32
    share = 1.0 if recipe.student.kind == "full" else min(1.0, recipe.student.rank / width)
    students = 1 + recipe.baseline + len(variants(recipe))
    of_seed = teacher * (1 + share * students) + 5 * teacher * (recipe.checkpoint.keep + 1)
    return int(recipe.training_seeds * of_seed) + 20_000_000


def _differences(stored: Recipe, given: Recipe) -> str:
    """The fields in which two recipes differ, for people."""

    def flat(recipe: Recipe) -> dict:
        fields = {}
        for name, value in recipe.model_dump().items():
            fields |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
        return fields

    old, new = flat(stored), flat(given)
    return "; ".join(f"{name} is {old[name]}, asked for {new[name]}" for name in old if old[name] != new[name])
