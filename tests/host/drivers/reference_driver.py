"""Runs the pack's sampler and scheduler inside the host over given noises; arguments: cases.json noises results."""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
from host_support import in_host, mixture  # noqa: E402

in_host.start_host()
import comfy.sample  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402


def run(case: dict, model, noises, sampling, scheduling):
    """One case's final latent in the model's own space."""
    scale = model.model.latent_format.scale_factor
    times = ", ".join(map(str, case.get("times", [])))
    sigmas = scheduling.Scheduler.execute(model, case["steps"], case["strength"], 50, times).args[0]
    order = iter(noises["steps"])
    sampler = sampling.tcd_sampler(case["gamma"], "1", noise_sampler=lambda sigma, sigma_next: next(order))
    latent = noises["latent"] / scale if case["strength"] < 1 or times else noises["latent"] * 0
    cond = in_host.conditioning()
    return comfy.sample.sample_custom(model, noises["start"], 1.0, sampler, sigmas, cond, cond, latent, seed=0) * scale


def main(cases_file: str, noises_file: str, results_file: str) -> None:
    sampling, scheduling = in_host.load_pack("nodes.sampling"), in_host.load_pack("nodes.custom_sampling")
    noises, results = load_file(noises_file), {}
    models = {
        kind: in_host.model_on(lambda x, t, kind=kind: mixture.network(x, t, kind), kind)
        for kind in ("epsilon", "v_prediction")
    }
    for case in json.loads(Path(cases_file).read_text()):
        results[case["name"]] = run(case, models[case["prediction"]], noises, sampling, scheduling).contiguous()
    save_file(results, results_file)


main(*sys.argv[1:])
