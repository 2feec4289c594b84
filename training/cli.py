"""The command line over the recipe's fields, by tyro: ``--recipe NAME|FILE.toml --training.steps 500 …``.

tyro turns words into plain values and writes the help; `recipe.build` checks them, as it checks a file's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from .disk import OutputError
from .recipe import RecipeError, build, check_complete, load_recipe, shipped_recipes
from .recipe_fields import Recipe, Section
from .recipe_words import fields, is_section, limits, suggestion
from .run_folder import OUTPUTS, RECIPE, newest_unfinished, resume

PROG = "python -m training.distill"
DEFAULT = "digits"


@dataclass(frozen=True)
class Command:
    """What the command line asks for.

    Attributes:
        recipe: the recipe file with the command line's fields over it, resolved and checked; to resume, without a
            recipe file, that of the run.
        output: the run's folder; None to resume the newest run that is not finished.
        resume: whether to go on with the run in `output`.
        overridden: whether a recipe or any field of one was given; if not, `recipe` is the default one.
        comfyui: the ComfyUI that gets the LoRA and a workflow.
        dry_run: whether to say what the run would take, and not to run.
        named: whether the folder was named, and does not follow from the recipe.
    """

    recipe: Recipe
    output: Path | None
    resume: bool
    overridden: bool
    comfyui: Path | None = None
    dry_run: bool = False
    named: bool = False


_Switch = tyro.conf.FlagCreatePairsOff


@dataclass(frozen=True)
class _Options:
    """Options beside the recipe's fields.

    Attributes:
        recipe: a shipped recipe, or a .toml file; its values become the defaults below
        output: the run's folder
        resume: go on with the run in the output folder, without one with the newest unfinished run in outputs
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
        output = options.output
        if options.resume and not options.recipe:
            output = output or _of_name(words)
            recipe = _given(options, words, load_recipe(_begun_with(output, options.output is not None)))
        else:
            recipe = _given(options, words, load_recipe(options.recipe or DEFAULT))
            output = output or OUTPUTS / recipe.name
        if not options.resume:
            check_complete(recipe)
    except RecipeError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        raise SystemExit(2) from None
    given = bool(others) or any(getattr(options, name) for name in ("recipe", *_SHORT))
    named = options.output is not None
    return Command(recipe, output, options.resume, given, options.comfyui, options.dry_run, named)


def _of_name(words: list[str]) -> Path | None:
    """The folder of the run that ``--name`` names."""
    default = load_recipe(DEFAULT)
    name = _values(words, default)["name"]
    return OUTPUTS / name if name != default.name else None


def _begun_with(output: Path | None, named: bool) -> Path | str:
    """The recipe that the words of ``--resume`` go over: that of the run it goes on with, if there is one."""
    with suppress(OutputError):  # said when the run is to begin
        return (resume(output, named) if output else newest_unfinished(OUTPUTS)[0]) / RECIPE
    return DEFAULT


def _given(options: _Options, words: list[str], recipe: Recipe) -> Recipe:
    """A recipe with the words over it."""
    return build(_short(options, _values(words, recipe)))


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
        return f"{word} is no option: a switch takes no value, write --baseline or --no_baseline, --objective.no_guided"
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
