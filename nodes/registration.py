"""Puts sampler and scheduler `tcd` into the host's own lists, beside whatever other packs have put there."""

from __future__ import annotations

import importlib
import logging
import sys
from contextlib import suppress

import comfy.k_diffusion.sampling as k_diffusion
import comfy.samplers

from .host import tcd_scheduler
from .sampling import sample_tcd

NAME, FALLBACK_NAME = "tcd", "tcd_toolkit"
_MARK = "tcd_toolkit_function"
_reported: dict[str, str] = {}


def register() -> tuple[str, str]:
    """Register both; returns the names they got. Safe to call again, and leaves another pack's `tcd` alone."""
    setattr(sample_tcd, _MARK, True)
    setattr(tcd_scheduler, _MARK, True)
    sampler = _free_name(lambda name: getattr(k_diffusion, f"sample_{name}", None), "SAMPLER_NAMES")
    setattr(k_diffusion, f"sample_{sampler}", sample_tcd)
    _append(sampler, "SAMPLER_NAMES", "SAMPLERS")

    handlers = comfy.samplers.SCHEDULER_HANDLERS
    scheduler = _free_name(lambda name: getattr(handlers.get(name), "handler", None), "SCHEDULER_NAMES")
    handlers[scheduler] = comfy.samplers.SchedulerHandler(tcd_scheduler)
    _append(scheduler, "SCHEDULER_NAMES", "SCHEDULERS")

    for kind, name in (("sampler", sampler), ("scheduler", scheduler)):
        if _reported.get(kind) != name:
            taken = "" if name == NAME else f" ('{NAME}' belongs to another pack and is left alone)"
            logging.info(f"TCD Toolkit: {kind} registered as '{name}'{taken}")
        _reported[kind] = name
    return sampler, scheduler


def register_again_at_start() -> None:
    """Register once more when the server starts: packs that load after this one may have taken `tcd` meanwhile."""
    server = getattr(sys.modules.get("server"), "PromptServer", None)
    if getattr(server, "instance", None) is not None:
        with suppress(RuntimeError, AttributeError):  # started already: then every pack is loaded

            async def again(_app) -> None:
                register()

            server.instance.app.on_startup.append(again)


def _free_name(registered, names_list: str) -> str:
    """`tcd`, unless a function that is not ours, or a bare entry in the host's list, holds it."""
    function = registered(NAME)
    if function is None:
        return FALLBACK_NAME if NAME in getattr(comfy.samplers, names_list, ()) else NAME
    return NAME if getattr(function, _MARK, False) else FALLBACK_NAME


def _append(name: str, names_list: str, ksampler_list: str) -> None:
    """Append in place to every list the host, or a fork of it, reads the names from."""
    homes = [(comfy.samplers, names_list), (comfy.samplers.KSampler, ksampler_list)]
    try:
        homes.append((importlib.import_module("comfy.sampler_names"), names_list))  # where some forks keep them
    except ImportError:
        pass
    for home, attribute in homes:
        names = getattr(home, attribute, None)
        if isinstance(names, list):
            if name == FALLBACK_NAME and names.count(NAME) > 1:
                names.remove(NAME)  # ours, from before the other pack added its own
            if name not in names:
                names.append(name)
