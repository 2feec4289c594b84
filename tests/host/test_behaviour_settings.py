"""Every setting acts, and as the core alone says: a closed-form network in the host (VE) and without it (VP)."""

import json
from pathlib import Path

import pytest
import torch
from host_support import mixture
from host_support.branches import relative_error
from safetensors.torch import load_file

from tcd_core import GammaSchedule, KeyedNoise, VPSchedule, explicit_times, inference_times, plan, sample

DRIVER = Path(__file__).parent / "drivers" / "behaviour_settings_driver.py"
ROUTES = ("custom", "node", "advanced", "stock")
SHAPE = {"shape": "linear", "start": 0.5, "end": 0.1, "exponent": 2.0, "values": "", "interpolate": False}
VARIATIONS = {  # each differs from the base in one thing
    "base": {},
    "gamma 0": {"gamma": 0.0},
    "gamma 0.31": {"gamma": 0.31},
    "gamma 1": {"gamma": 1.0},
    "order 2": {"order": "2"},
    "order 2M": {"order": "2M"},
    "linear": {"schedule": {}},
    "linear from 0.6": {"schedule": {"start": 0.6}},
    "linear to 0.4": {"schedule": {"end": 0.4}},
    "cosine": {"schedule": {"shape": "cosine"}},
    "power": {"schedule": {"shape": "power"}},
    "power 5": {"schedule": {"shape": "power", "exponent": 5.0}},
    "constant": {"schedule": {"shape": "constant"}},
    "list": {"schedule": {"shape": "list", "values": "0.9, 0.2, 0.4"}},
    "interpolated": {"schedule": {"shape": "list", "values": "0.9, 0.2, 0.4", "interpolate": True}},
    "3 steps": {"steps": 3},
    "60 steps": {"steps": 60},
    "seed": {"seed": 6},
    "picture": {"picture": 1.0},
    "v": {"prediction": "v_prediction", "gamma": 0.5, "order": "2"},
}
NOT_EVERYWHERE = {
    "original steps": ("custom", {"original_steps": 20}),
    "times": ("custom", {"times": [950, 300, 40, 2]}),
    "denoise 0.6 custom": ("custom", {"denoise": 0.6, "picture": 1.0}),
    "denoise 0.6 node": ("node", {"denoise": 0.6, "picture": 1.0}),
    "denoise 0.6 stock": ("stock", {"denoise": 0.6, "picture": 1.0}),
    "denoise 0.3 node": ("node", {"denoise": 0.3, "picture": 1.0, "order": "2"}),
    "tiny denoise": ("node", {"denoise": 0.02, "picture": 1.0}),
}
OTHER_PATCH = {"gamma": 0.9, "order": "2", "gamma_schedule": {"shape": "constant", "start": 1.0}}
TRACED = {f"traced {order}": {"order": order, "gamma": 0.6, "trace": True} for order in ("1", "2", "2M")}
SUPPLIED = {
    f"supplied {gamma} {order}": {"gamma": gamma, "order": order, "noises": True, "steps": 5}
    for gamma, order in ((0.4, "1"), (1.0, "2"), (0.6, "2M"), (0.0, "1"))
}


def by_patch(settings: dict) -> dict:
    """The settings of a stock KSampler's case moved into a patch on the model."""
    patch = {"gamma": settings.get("gamma", 0.3), "order": settings.get("order", "1")}
    return {**settings, "patch": {**patch, "gamma_schedule": settings.get("schedule")}}


def make_cases() -> dict[str, dict]:
    cases = {}
    for name, settings in VARIATIONS.items():
        for route in ROUTES:
            cases[f"{route}: {name}"] = {"route": route, **(by_patch(settings) if route == "stock" else settings)}
    cases |= {name: {"route": route, **settings} for name, (route, settings) in NOT_EVERYWHERE.items()}
    cases |= {f"patched {route}": {"route": route, "patch": OTHER_PATCH} for route in ("custom", "node", "advanced")}
    cases["by name"] = {"named": True, **by_patch({"gamma": 0.7, "order": "2"})}
    cases["by name, unpatched"] = {"named": True}
    cases["stock, unpatched"] = {"route": "stock"}
    return cases | TRACED | SUPPLIED


CASES = make_cases()


def times_of(case: dict) -> list[int]:
    steps, denoise = case.get("steps", 4), case.get("denoise", 1.0)
    if "times" in case:
        return explicit_times(case["times"])
    if case["route"] == "stock":  # the host's own denoise: the end of a longer schedule
        return inference_times(int(steps / denoise), dense="when needed")[-steps:]
    original = case.get("original_steps", 50)
    return inference_times(steps, original_inference_steps=original, strength=denoise, dense="when needed")


def gamma_of(case: dict) -> float | GammaSchedule:
    if case.get("schedule") is None:
        return case.get("gamma", 0.3)
    fields = {**SHAPE, **case["schedule"]}
    values = tuple(float(value) for value in fields.pop("values").split(",") if value)
    return GammaSchedule(**fields, values=values)


def headless(case: dict, supplied: torch.Tensor | None = None) -> torch.Tensor:
    """The case without the host: VP coordinates, the exact table, the core's own loop."""
    case = {"route": "custom", "seed": 5, "picture": 0.0, **case}
    schedule = VPSchedule.scaled_linear()
    levels = [schedule.level(t) for t in times_of(case)]
    x = torch.randn(mixture.SHAPE, generator=torch.Generator().manual_seed(case["seed"]))
    picture = mixture.means()[: mixture.SHAPE[0]] * case["picture"]
    given = iter(() if supplied is None else supplied)
    noise = KeyedNoise(x, case["seed"]) if supplied is None else lambda _: next(given)
    x = levels[0].alpha * picture + x * (1.0 if levels[0].t == 999 else levels[0].sigma)
    steps = plan(schedule, levels, gamma_of(case), case.get("order", "1"))
    return sample(lambda x, t, s: mixture.x0(x, int(t.t)), x, steps, noise)


@pytest.fixture(scope="module")
def from_host(comfyui, tmp_path_factory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "cases.json").write_text(json.dumps([{"name": name, **case} for name, case in CASES.items()]))
    comfyui.run_driver(DRIVER, folder / "cases.json", folder / "results.safetensors")
    return load_file(folder / "results.safetensors")


def test_every_setting_gives_what_the_core_gives_on_every_route(from_host):
    for route in ROUTES:
        for name, settings in VARIATIONS.items():
            expected = headless({**settings, "route": route})
            assert relative_error(from_host[f"{route}: {name}"], expected) < 1e-5, (route, name)


def test_settings_of_single_nodes_give_what_the_core_gives(from_host):
    for name, (route, settings) in NOT_EVERYWHERE.items():
        assert relative_error(from_host[name], headless({**settings, "route": route})) < 1e-5, name


def test_no_two_settings_give_the_same(from_host):
    outputs = {name: from_host[f"custom: {name}"] for name in VARIATIONS}
    outputs |= {name: from_host[name] for name in NOT_EVERYWHERE if name != "denoise 0.6 custom"}  # the node's
    names = list(outputs)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            assert relative_error(outputs[name], outputs[other]) > 1e-4, (name, other)


def test_a_node_s_own_setting_beats_a_patch(from_host):
    for route in ("custom", "node", "advanced"):
        assert torch.equal(from_host[f"patched {route}"], from_host[f"{route}: base"])


def test_a_sampler_picked_by_name_takes_the_patch_else_the_defaults(from_host):
    assert relative_error(from_host["by name"], headless({"gamma": 0.7, "order": "2"})) < 1e-5
    for name in ("by name, unpatched", "stock, unpatched"):
        assert relative_error(from_host[name], headless({"gamma": 0.3, "order": "1"})) < 1e-5


def test_the_callback_gets_the_clean_prediction_at_each_state(from_host):
    for name, case in TRACED.items():
        for i, t in enumerate(times_of({"route": "custom", **case})):
            x, x0 = from_host[f"{name}/x {i}"], from_host[f"{name}/x0 {i}"]
            level = VPSchedule.scaled_linear().level(t)
            assert relative_error(x0, mixture.x0(x * level.alpha, t)) < 1e-5, (name, i)
            assert int(from_host[f"{name}/total {i}"]) == 4
        assert f"{name}/x 4" not in from_host


def test_supplied_noises_are_used_and_asked_for_by_their_sigmas(from_host):
    for name, case in SUPPLIED.items():
        sigmas, pairs = from_host[f"{name}/sigmas"], from_host[f"{name}/pairs"]
        asked = torch.stack([sigmas[:-2], sigmas[1:-1]], 1)  # all steps but the last, which adds no noise
        assert torch.equal(pairs, asked if case["gamma"] else asked[:0]), name
        assert relative_error(from_host[name], headless(case, from_host[f"{name}/noises"])) < 1e-5, name
