"""Registers the pack's sampler and scheduler beside what other packs may have put there; argument: results.json."""

import json
import logging
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
from host_support import in_host  # noqa: E402

in_host.start_host()
import comfy.k_diffusion.sampling as k_diffusion  # noqa: E402
import comfy.samplers  # noqa: E402

registration = in_host.load_pack("nodes.registration")
sampling, host = in_host.load_pack("nodes.sampling"), in_host.load_pack("nodes.host")
OURS = {sampling.sample_tcd: "ours", host.tcd_scheduler: "ours", None: "none"}
HANDLERS = comfy.samplers.SCHEDULER_HANDLERS
NAMES = {"samplers": comfy.samplers.SAMPLER_NAMES, "schedulers": comfy.samplers.SCHEDULER_NAMES}
LINES: list[str] = []


class Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        LINES.append(record.getMessage())


def foreign_sampler(*_, **__):
    raise AssertionError("another pack's sampler was called")


def foreign_scheduler(model_sampling, steps):
    raise AssertionError("another pack's scheduler was called")


def clear() -> None:
    """The host as it is without any pack."""
    registration._reported.clear()
    for name in ("tcd", "tcd_toolkit"):
        HANDLERS.pop(name, None)
        if hasattr(k_diffusion, f"sample_{name}"):
            delattr(k_diffusion, f"sample_{name}")
        for names in NAMES.values():
            names[:] = [other for other in names if other != name]


def report(registered: int) -> dict:
    """What stands in the host after registering so many times: owners by name, and how often each is listed."""
    LINES.clear()
    answers = [list(registration.register()) for _ in range(registered)]
    owner = lambda function: OURS.get(function, "another pack's")  # noqa: E731
    names = ("tcd", "tcd_toolkit")
    return {
        "answers": answers,
        "samplers": {name: owner(getattr(k_diffusion, f"sample_{name}", None)) for name in names},
        "schedulers": {name: owner(getattr(HANDLERS.get(name), "handler", None)) for name in names},
        "listed": {kind: {name: listed.count(name) for name in names} for kind, listed in NAMES.items()},
        "in KSampler": [
            comfy.samplers.KSampler.SAMPLERS.count(names[0]),
            comfy.samplers.KSampler.SCHEDULERS.count(names[0]),
        ],
        "log": list(LINES),
    }


def take_sampler(name: str = "tcd") -> None:
    setattr(k_diffusion, f"sample_{name}", foreign_sampler)
    NAMES["samplers"].append(name)


def take_scheduler(name: str = "tcd") -> None:
    HANDLERS[name] = comfy.samplers.SchedulerHandler(foreign_scheduler)
    NAMES["schedulers"].append(name)


def main(results_file: str) -> None:
    logging.getLogger().addHandler(Lines())
    logging.getLogger().setLevel(logging.INFO)
    results = {}
    results["loaded"] = report(0)
    results["once"] = report(1)
    results["again"] = report(2)
    clear()
    take_sampler()
    take_scheduler()
    results["both taken"] = report(2)
    clear()
    report(1)
    take_sampler()
    take_scheduler()
    results["taken afterwards"] = report(1)
    clear()
    take_sampler()
    results["sampler taken"] = report(1)
    clear()
    take_scheduler()
    results["scheduler taken"] = report(1)
    clear()
    NAMES["samplers"].append("tcd")  # a pack that handles the name somewhere else
    results["name taken"] = report(1)
    Path(results_file).write_text(json.dumps(results))


main(*sys.argv[1:])
