"""Recipes: from TOML and back, their hash, the recipes derived from them, and errors that say what to do.

A TOML file holds only what differs from the defaults; `load_recipe` resolves it, `dump_toml` writes every field out.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import textwrap
from importlib import resources
from pathlib import Path

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from .recipe_fields import (
    EMBEDDED,
    NUM_TRAIN_TIMESTEPS,
    Checkpoint,
    EndTimes,
    Measure,
    Objective,
    Recipe,
    Section,
    Student,
    Teacher,
    Training,
)
from .recipe_words import expected, explain, suggestion

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "EMBEDDED",
    "NUM_TRAIN_TIMESTEPS",
    "Checkpoint",
    "EndTimes",
    "Measure",
    "Objective",
    "Recipe",
    "RecipeError",
    "Section",
    "Student",
    "Teacher",
    "Training",
    "build",
    "check_complete",
    "dump_toml",
    "lcm_baseline",
    "load_recipe",
    "recipe_hash",
    "replaced",
    "shipped_recipes",
    "with_form",
]


class RecipeError(ValueError):
    """A recipe that cannot be used; its message is for the person who wrote it, one line per error."""


def build(values: dict) -> Recipe:
    """The recipe of nested plain values, the rest being defaults; types are not converted, but a whole number may
    stand for a float.

    Raises:
        RecipeError: unknown fields, with the nearest name; wrong types and ranges, with the field, what it must be and
            the value; fields that contradict each other.
    """
    try:
        return Recipe.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise RecipeError("\n".join(explain(e) for e in error.errors())) from None


def replaced(recipe: Recipe, **values) -> Recipe:
    """The recipe with other values, checked; a section takes a dict: ``replaced(r, seed=1, training={"lr": 3e-4})``.

    Raises:
        RecipeError: as `build`.
    """
    old = recipe.model_dump(mode="json")
    return build(old | {k: old[k] | v if isinstance(v, dict) and k in old else v for k, v in values.items()})


def lcm_baseline(recipe: Recipe) -> Recipe:
    """The LCM baseline of a recipe: s = 0 for every pair, TCF(1), one segment; all else, the budget too, is equal."""
    end_times = {"draw": "integers", "draws": 1, "lower_share": 1.0, "segments": [1]}
    return replaced(recipe, objective={"form": "tcf1"}, end_times=end_times)


def with_form(recipe: Recipe, form: str) -> Recipe:
    """The recipe with another trajectory consistency function; where that is not TCF(1), each pair has one s, drawn."""
    if form == "tcf1":
        return replaced(recipe, objective={"form": form})
    draw = "integers" if recipe.end_times.draw == "exact" else recipe.end_times.draw
    return replaced(recipe, objective={"form": form}, end_times={"draw": draw, "draws": 1})


def check_complete(recipe: Recipe) -> None:
    """Whether the recipe has all that its family needs.

    Raises:
        RecipeError: a pretrained family without its model or data, or with fields that don't go with it.
    """
    if recipe.family in EMBEDDED:
        return
    wrong = []
    if not recipe.model.path:
        wrong.append(
            f"family {recipe.family} needs a model: --model with a .safetensors file, a diffusers folder or a Hub name"
        )
    if not (recipe.data.images or recipe.data.shards or recipe.data.prompts):
        wrong.append(
            f"family {recipe.family} needs data: --images FOLDER, --shards FILES or --prompts FILE (no pictures needed)"
        )
    if recipe.student.kind == "full" and recipe.model.dtype != "fp32":
        wrong.append("student.kind full trains the network itself, which needs model.dtype fp32")
    if recipe.teacher != Teacher():
        wrong.append(f"the section teacher is the embedded families': family {recipe.family} has model instead")
    if wrong:
        raise RecipeError("\n".join(wrong))


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256, in hex, of the resolved fields as JSON with sorted keys: the same for equal recipes, however written."""
    canonical = json.dumps(recipe.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def shipped_recipes() -> dict[str, str]:
    """Names of the recipes in the package, each with the first line of its comment."""
    files = [f for f in (resources.files(__package__) / "recipes").iterdir() if f.name.endswith(".toml")]
    texts = {f.name.removesuffix(".toml"): f.read_text(encoding="utf-8") for f in files}
    return {name: texts[name].partition("\n")[0].lstrip("# ") for name in sorted(texts)}


def load_recipe(name_or_path: str | Path) -> Recipe:
    """The recipe of a shipped name or of a TOML file, resolved; ``name`` defaults to the file's.

    Raises:
        RecipeError: no such recipe or file, a file that is not TOML (with the line), and as `build`.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml" and len(path.parts) == 1:
        if path.name not in shipped_recipes():
            near, known = suggestion(path.name, shipped_recipes()), ", ".join(shipped_recipes())
            raise RecipeError(
                f"there is no recipe {path.name}{near or '.'} Shipped: {known}; a file's name ends in .toml"
            )
        path = resources.files(__package__) / "recipes" / f"{path.name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        return build({"name": re.sub(r"[^A-Za-z0-9_-]+", "-", path.name.removesuffix(".toml"))} | values)
    except RecipeError as error:
        raise RecipeError("\n".join(f"{path.name}: {line}" for line in str(error).splitlines())) from None
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror or error}") from None
    except ValueError as error:  # TOMLDecodeError, which names line and column, or UnicodeDecodeError
        raise RecipeError(f"{path} is no TOML file: {error}") from None


def dump_toml(recipe: Recipe) -> str:
    """The recipe as TOML, every field with its meaning as a comment; `load_recipe` gives back an equal recipe."""
    lines = ["# The resolved recipe of a run: every field."]
    for name, info, value in _members(recipe):
        if isinstance(value, Section):
            lines += ["", f"[{name}]"]
            for entry in _members(value):
                lines += _toml_lines(*entry)
        else:
            lines += _toml_lines(name, info, value)
    return "\n".join(lines) + "\n"


def _members(section: Section):
    """(name, info, value) of a section's own fields."""
    return [(name, info, getattr(section, name)) for name, info in type(section).model_fields.items()]


def _toml_lines(name: str, info: FieldInfo, value) -> list[str]:
    """Comment and ``name = value``; strings, numbers, booleans and lists are written alike in JSON and TOML."""
    comment = textwrap.wrap(f"{info.description} ({expected(info)})", 110)
    return [*(f"# {line}" for line in comment), f"{name} = {json.dumps(value)}"]
