"""Samples a closed-form network inside the host by each way of setting gamma and order; arguments: cases.json results.

A case holds `route` ("node", "advanced", "custom", "stock"), its settings, and optionally `patch` (a GammaPatch),
`schedule` (fields of a GammaSchedule), `noises` (supply the step noises) and `trace` (record what the callback gets).
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
from host_support import in_host, mixture  # noqa: E402

in_host.start_host()
import comfy.sample  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

gamma_nodes, ksampler = in_host.load_pack("nodes.gamma"), in_host.load_pack("nodes.ksampler")
custom, sampling = in_host.load_pack("nodes.custom_sampling"), in_host.load_pack("nodes.sampling")
in_host.load_pack("nodes.registration").register()
SHAPE = {"shape": "linear", "start": 0.5, "end": 0.1, "exponent": 2.0, "values": "", "interpolate": False}


def gamma_schedule(fields: dict | None):
    return None if fields is None else gamma_nodes.GammaScheduleNode.execute(**{**SHAPE, **fields}).args[0]


def settings_of(case: dict) -> dict:
    """gamma, order and gamma_schedule, as every node of the pack takes them."""
    return {
        "gamma": case.get("gamma", 0.3),
        "order": case.get("order", "1"),
        "gamma_schedule": gamma_schedule(case.get("schedule")),
    }


class Watch:
    """Stands between host and sampler: supplies noises, and records what sampler and callback are given."""

    def __init__(self, case: dict, steps: int):
        self.case, self.tensors, self.pairs = case, {}, []
        generator = torch.Generator().manual_seed(99)
        self.noises = torch.randn(steps, *mixture.SHAPE, generator=generator)

    def noise_sampler(self, sigma, sigma_next):
        self.pairs.append([float(sigma), float(sigma_next)])
        return self.noises[len(self.pairs) - 1]

    def callback(self, i, x0, x, total_steps):
        for name, tensor in (("x", x), ("x0", x0)):
            self.tensors[f"{name} {i}"] = tensor.clone()
        self.tensors[f"total {i}"] = torch.tensor(total_steps)


def by_sampler(case: dict, model, latent, noise, cond, results: dict):
    """SAMPLER and SIGMAS of the two nodes (route custom), or sampler and scheduler by name (stock)."""
    name = case["name"]
    if case["route"] == "stock":
        latent = comfy.sample.sample(
            model, noise, case["steps"], 1.0, "tcd", "tcd", cond, cond, latent, case["denoise"], seed=case["seed"]
        )
        return latent
    times = ", ".join(map(str, case.get("times") or []))
    settings = (case["steps"], case["denoise"], case.get("original_steps", 50), times)
    sigmas = custom.Scheduler.execute(model, *settings).args[0]
    watch = Watch(case, len(sigmas) - 1)
    if case.get("noises"):
        given = settings_of(case)
        gamma = given["gamma"] if given["gamma_schedule"] is None else given["gamma_schedule"]
        sampler = sampling.tcd_sampler(gamma, given["order"], noise_sampler=watch.noise_sampler)
    elif case.get("named"):
        sampler = comfy.samplers.sampler_object("tcd")
    else:
        sampler = custom.Sampler.execute(**settings_of(case)).args[0]
    callback = watch.callback if case.get("trace") else None
    given = {"callback": callback, "seed": case["seed"]}
    latent = comfy.sample.sample_custom(model, noise, 1.0, sampler, sigmas, cond, cond, latent, **given)
    results |= {f"{name}/{key}": value for key, value in watch.tensors.items()}
    if case.get("noises"):
        results[f"{name}/pairs"] = torch.tensor(watch.pairs).reshape(-1, 2)
        results[f"{name}/sigmas"] = sigmas
        results[f"{name}/noises"] = watch.noises
    return latent


def by_node(case: dict, model, latent, cond):
    """KSampler (TCD), or two of KSampler Advanced (TCD)."""
    common = {"model": model, "steps": case["steps"], "cfg": 1.0, "positive": cond, "negative": cond}
    common |= settings_of(case)
    if case["route"] == "node":
        given = {"seed": case["seed"], "latent_image": latent, "denoise": case["denoise"]}
        return ksampler.KSampler.execute(**common, **given).args[0]["samples"]
    stages = [("enable", 0, 2, "enable"), ("disable", 2, 10000, "disable")]
    for add_noise, start, end, leftover in stages:
        stage = {"add_noise": add_noise, "start_at_step": start, "end_at_step": end, "noise_seed": case["seed"]}
        stage |= {"return_with_leftover_noise": leftover, "latent_image": latent}
        latent = ksampler.KSamplerAdvanced.execute(**common, **stage).args[0]
    return latent["samples"]


def run(case: dict, model, results: dict) -> torch.Tensor:
    scale = model.model.latent_format.scale_factor
    noise = torch.randn(mixture.SHAPE, generator=torch.Generator().manual_seed(case["seed"]))
    latent = mixture.means()[: mixture.SHAPE[0]] * case["picture"] / scale
    if "patch" in case:
        patch = {**case["patch"], "gamma_schedule": gamma_schedule(case["patch"].get("gamma_schedule"))}
        model = gamma_nodes.GammaPatch.execute(model, **patch).args[0]
    cond = in_host.conditioning()
    if case["route"] in ("node", "advanced"):
        return by_node(case, model, {"samples": latent}, cond) * scale
    return by_sampler(case, model, latent, noise, cond, results) * scale


def main(cases_file: str, results_file: str) -> None:
    models = {
        kind: in_host.model_on(lambda x, t, kind=kind: mixture.network(x, t, kind), kind)
        for kind in ("epsilon", "v_prediction")
    }
    results = {}
    for case in json.loads(Path(cases_file).read_text()):
        defaults = {"route": "custom", "seed": 5, "steps": 4, "denoise": 1.0, "picture": 0.0, "prediction": "epsilon"}
        case = defaults | case
        results[case["name"]] = run(case, models[case["prediction"]], results)
    save_file({name: tensor.contiguous() for name, tensor in results.items()}, results_file)


main(*sys.argv[1:])
