"""A recipe's fields in words: names, ranges, and pydantic's errors for people."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from pydantic.fields import FieldInfo

from .recipe_fields import Recipe, Section

_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_NAME = "letters, digits, - and _, at most 64"


def fields(section: type[Section] = Recipe, prefix: str = "") -> dict[str, FieldInfo]:
    """Every field below a section, by dotted name: sections, then their fields."""
    found = {}
    for name, info in section.model_fields.items():
        found[prefix + name] = info
        if is_section(info):
            found |= fields(info.annotation, f"{prefix}{name}.")
    return found


def limits(info: FieldInfo) -> str:
    """A field's range in words: "in (0, 1]", "at least 1", "each at least 1"; empty without one."""
    if get_origin(info.annotation) is tuple:
        metadata = getattr(get_args(info.annotation)[0], "__metadata__", ())
        return f"each {_range(metadata)}" if metadata else ""
    return _range(info.metadata)


def _range(metadata) -> str:
    low = next((f"[{m.ge}" if isinstance(m, Ge) else f"({m.gt}" for m in metadata if isinstance(m, (Ge, Gt))), "")
    high = next((f"{m.le}]" if isinstance(m, Le) else f"{m.lt})" for m in metadata if isinstance(m, (Le, Lt))), "")
    span = f"in {low}, {high}" if low and high else low.replace("[", "at least ").replace("(", "above ")
    multiple = next((f"a multiple of {m.multiple_of} " for m in metadata if isinstance(m, MultipleOf)), "")
    return multiple + span


def expected(info: FieldInfo) -> str:
    """What a field takes, in words: type or choices, then range."""
    kind, of = info.annotation, get_args(info.annotation)
    if is_section(info):
        return "a table of fields"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(of)}"
    if get_origin(kind) is tuple:
        choices = get_args(of[0]) if get_origin(of[0]) is Literal else ()
        item = get_args(of[0])[0] if get_args(of[0]) else of[0]
        many = "one or more" if any(isinstance(m, MinLen) for m in info.metadata) else "any number of"
        of_what = f"of {', '.join(choices)}" if choices else _PLURALS[item]
        return ", ".join(filter(None, [f"{many} {of_what}".replace("of of", "of"), limits(info)]))
    if kind is str and any(getattr(m, "pattern", None) for m in info.metadata):
        return _NAME
    return ", ".join(filter(None, [_KINDS[kind], limits(info)])).replace("number, in", "number in")


def explain(error: dict) -> str:
    """One line for one of pydantic's errors."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    name = ".".join(part for part in error["loc"] if isinstance(part, str))
    known = fields()
    if error["type"] == "extra_forbidden":
        return f"{name} is no field of the recipe{suggestion(name, known)}"
    if name not in known:
        return "a recipe must be a table of fields"
    return f"{name} must be {expected(known[name])}, got {json.dumps(error['input'])}"


def suggestion(name: str, known: Iterable[str], dashes: str = "") -> str:
    """ "; did you mean …?" with the nearest of the known dotted names, or ""; a section may be missing or wrong."""

    def likeness(other: str) -> float:
        whole = difflib.SequenceMatcher(None, name, other).ratio()
        return max(whole, 0.9 * difflib.SequenceMatcher(None, name.split(".")[-1], other.split(".")[-1]).ratio())

    scores = {other: likeness(other) for other in known}
    best = max(scores.values())
    near = [dashes + other for other, score in scores.items() if score == best]
    return f"; did you mean {' or '.join(near)}?" if best >= 0.6 else ""


def is_section(info: FieldInfo) -> bool:
    return isinstance(info.annotation, type) and issubclass(info.annotation, Section)
