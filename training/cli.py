"""The command line over the recipe's fields, by tyro: ``--recipe NAME|FILE.toml --training.steps 500 …``.

tyro turns words into plain values and writes the help; `recipe.build` checks them, as it checks a file's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from .recipe import RecipeError, build, check_complete, load_recipe, shipped_recipes
from .recipe_fields import Recipe, Section
from .recipe_words import fields, is_section, limits, suggestion

PROG = "python -m training.distill"


@dataclass(frozen=True)
class Command:
    """What the command line asks for.

    Attributes:
        recipe: the recipe file with the command line's fields over it, resolved and checked.
        output: the run's folder.
        resume: whether to go on with the run in `output`.
        overridden: whether a recipe or any field of one was given; if not, `recipe` is the default one.
        comfyui: the ComfyUI that gets the LoRA and a workflow.
        dry_run: whether to say what the run would take, and not to run.
    """

    recipe: Recipe
    output: Path
    resume: bool
    overridden: bool
    comfyui: Path | None = None
    dry_run: bool = False


_Switch = tyro.conf.FlagCreatePairsOff


@dataclass(frozen=True)
class _Options:
    """Options beside the recipe's fields.

    Attributes:
        recipe: a shipped recipe, or a .toml file; its values become the defaults below
        output: the run's folder
        resume: go on with the run in the output folder, from its last checkpoint
        list_recipes: list the shipped recipes and stop
        model: short for --model.path
        images: short for --data.images
        shards: short for --data.shards
        prompts: short for --data.prompts
        comfyui: a ComfyUI's folder: the LoRA and a ready workflow are put into it
        dry_run: say what the run would need, from one timed step, and stop
    """

    recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE", help_behavior_hint="(default: digits)")] = None
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: outputs/NAME)")] = None
    resume: Annotated[bool, _Switch] = False
    list_recipes: Annotated[bool, _Switch] = False
    model: Annotated[str | None, tyro.conf.arg(metavar="FILE|FOLDER|NAME")] = None
    images: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    shards: Annotated[str | None, tyro.conf.arg(metavar="FILES")] = None
    prompts: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    comfyui: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    dry_run: Annotated[bool, _Switch] = False


@dataclass(frozen=True)
class _Words:
    """Distil a TCD student, measure it and draw it (arXiv 2402.19159). Without arguments: the recipe digits."""

    options: Annotated[_Options, tyro.conf.arg(name="")]
    values: Annotated[Recipe, tyro.conf.arg(name="")]


def parse(argv: Sequence[str] | None = None) -> Command:
    """The command of these words, by default the process's.

    Raises:
        SystemExit: status 2 after a message, for words that make no recipe; 0 after ``--help`` and ``--list-recipes``.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a console without Greek letters still gets its help
    words = list(sys.argv[1:] if argv is None else argv)
    options, others = tyro.cli(_Options, prog=PROG, args=words, add_help=False, return_unknown_args=True)
    if options.list_recipes:
        print("\n".join(f"{name:16} {about}" for name, about in shipped_recipes().items()))
        raise SystemExit(0)
    try:
        recipe = build(_short(options, _values(words, load_recipe(options.recipe or "digits"))))
        if not options.resume:
            check_complete(recipe)
    except RecipeError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        raise SystemExit(2) from None
    output = options.output or Path("outputs") / recipe.name
    given = bool(others) or any(getattr(options, name) for name in ("recipe", *_SHORT))
    return Command(recipe, output, options.resume, given, options.comfyui, options.dry_run)


_SHORT = {"model": ("model", "path"), **{name: ("data", name) for name in ("images", "shards", "prompts")}}


def _short(options: _Options, values: dict) -> dict:
    """The values with those of the short options over them."""
    for name, (section, field) in _SHORT.items():
        if (value := getattr(options, name)) is not None:
            values[section][field] = value
    return values


def _values(words: list[str], recipe: Recipe) -> dict:
    """The recipe's plain values with the words' over them; RecipeError for words that are no option."""
    shown = _Words(_Options(), recipe)
    found, unknown = tyro.cli(
        _Words, prog=PROG, args=words, default=shown, use_underscores=True, registry=_REGISTRY, return_unknown_args=True
    )
    if unknown:
        raise RecipeError("\n".join(_unknown(word) for word in unknown if word[:1] == "-" or unknown[0][:1] != "-"))
    return found.values


def _unknown(word: str) -> str:
    if word.lower() in ("true", "false"):
        return f"{word} is no option: a switch takes no value, write --forms or --no_forms, --objective.no_guided"
    known = [*(n for n, info in fields().items() if not is_section(info)), *_Options.__dataclass_fields__]
    name = word.lstrip("-").partition("=")[0].replace("-", "_")
    return f"{word} is no option{suggestion(name, known, '--')} (all: --help)"


_REGISTRY = ConstructorRegistry()


@_REGISTRY.struct_rule
def _plain_values(info: StructTypeInfo) -> StructConstructorSpec | None:
    """A section of the recipe as a dict, for `recipe.build` to check whole; ranges beside the fields' descriptions."""
    if not (isinstance(info.type, type) and issubclass(info.type, Section)):
        return None
    members = []
    for name, field in info.type.model_fields.items():
        about = "; ".join(filter(None, [field.description, limits(field)]))
        members.append(StructFieldSpec(name, field.annotation, getattr(info.default, name), helptext=about))
    return StructConstructorSpec(instantiate=dict, fields=tuple(members))
