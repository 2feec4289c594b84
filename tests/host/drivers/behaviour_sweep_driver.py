"""Plans and samples over every scheduler of the host on every kind of model, and draws noises; argument: results.json.

Numbers only: what they should be is the test's business.
"""

import itertools
import json
import math
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
from host_support import in_host, mixture  # noqa: E402

in_host.start_host()
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402
from comfy_extras import nodes_custom_sampler, nodes_model_advanced  # noqa: E402

ksampler, sampling = in_host.load_pack("nodes.ksampler"), in_host.load_pack("nodes.sampling")
core = in_host.load_pack("tcd_core")
in_host.load_pack("nodes.registration").register()
GAMMAS, ORDERS = (0.0, 0.05, 0.2, 0.5, 1.0), ("1", "2", "2M")
SAMPLED = ("eps", "v zsnr", "lcm", "sd3")


def models() -> dict:
    """Every kind of model the pack takes, over a network that answers tanh(x)."""
    plain = in_host.model_on(lambda x, t: torch.tanh(x))
    nodes = nodes_model_advanced
    discrete = {"v zsnr": ("v_prediction", True), "lcm": ("lcm", False), "lcm zsnr": ("lcm", True), "x0": ("x0", False)}
    return {
        "eps": plain,
        **{name: nodes.ModelSamplingDiscrete().patch(plain, *kind)[0] for name, kind in discrete.items()},
        "sd3": nodes.ModelSamplingSD3().patch(plain, 3.0)[0],
        "flow": nodes.ModelSamplingSD3().patch(plain, 1.0)[0],
        "flux": nodes.ModelSamplingFlux().patch(plain, 1.15, 0.5, 1024, 1024)[0],
        "cascade": nodes.ModelSamplingStableCascade().patch(plain, 2.0)[0],
        "continuous v": nodes.ModelSamplingContinuousV().patch(plain, "v_prediction", 500.0, 0.03)[0],
    }


def faults(step, gamma: float) -> list[str]:
    """What is wrong with one step."""
    numbers = (step.k_x, step.k_0, step.a, step.b, step.weight, step.s.sigma, step.n.sigma)
    checks = {
        "not finite": all(map(math.isfinite, numbers)),
        "sigma_s above sigma_next": step.s.sigma * step.n.alpha <= step.n.sigma * step.s.alpha * (1 + 1e-12),
        "gamma 0 adds noise": gamma > 0 or step.b == 0,
        "another noise level": math.isclose((step.a * step.s.sigma) ** 2 + step.b**2, step.n.sigma**2, abs_tol=1e-12),
    }
    return [fault for fault, holds in checks.items() if not holds]


def plans(kinds: dict) -> dict:
    """Every scheduler, gamma, order and model: how many plans, which models and schedulers, and what is wrong."""
    wrong, not_finite, count = set(), [], 0
    for (name, model), scheduler, steps in itertools.product(kinds.items(), comfy.samplers.SCHEDULER_NAMES, (1, 4, 13)):
        model_sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(model_sampling, scheduler, steps)
        if not torch.isfinite(sigmas).all():
            not_finite.append(f"{scheduler}, {steps} steps")  # the host's own, for every sampler
            continue
        levels, lands, schedule = sampling.run_levels(model_sampling, sigmas)
        for gamma, order in itertools.product(GAMMAS, ORDERS):
            count += 1
            label = f"{name}, {scheduler}, {steps} steps, {gamma}, order {order}"
            try:
                plan = core.plan(schedule, levels, gamma, order, lands=lands)
            except (ValueError, ArithmeticError) as error:
                wrong.add(f"{label}: {error!r}")
            else:
                wrong |= {f"{label}: {fault}" for step in plan for fault in faults(step, gamma)}
    report = {"schedulers": comfy.samplers.SCHEDULER_NAMES, "not finite": sorted(set(not_finite))}
    return {**report, "count": count, "wrong": sorted(wrong)}


def samples(kinds: dict) -> dict:
    """Latents that are not finite."""
    cond, latent, wrong, count = in_host.conditioning(), torch.zeros(1, 4, 8, 8), [], 0
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    orders = itertools.cycle(ORDERS)
    for name, scheduler, gamma in itertools.product(SAMPLED, comfy.samplers.SCHEDULER_NAMES, GAMMAS):
        sigmas = comfy.samplers.calculate_sigmas(kinds[name].get_model_object("model_sampling"), scheduler, 5)
        sampler = sampling.tcd_sampler(gamma, order := next(orders))
        result = comfy.sample.sample_custom(kinds[name], noise, 1.0, sampler, sigmas, cond, cond, latent, seed=1)
        count += 1
        if not torch.isfinite(result).all():
            wrong.append(f"{name}, {scheduler}, {gamma}, {order}")
    return {"count": count, "wrong": wrong}


def step_states(sigmas, seed: int) -> list[torch.Tensor]:
    """The initial noise and the states a run at gamma 1 visits where the network sees nothing but noise (x̂ = 0)."""
    model = in_host.model_on(lambda x, t: x / (1 - float(mixture.alpha_bar()[t])) ** 0.5)
    latent, cond, states = torch.zeros(2, 4, 32, 32), in_host.conditioning(), []
    noise = comfy.sample.prepare_noise(latent, seed)
    given = {"callback": lambda i, x0, x, total: states.append(x.clone()), "seed": seed}
    sampler = sampling.tcd_sampler(1.0, "1")
    comfy.sample.sample_custom(model, noise, 1.0, sampler, sigmas, cond, cond, latent, **given)
    return [noise, *states[1:]]


def largest_correlation(states: list[torch.Tensor]) -> float:
    """Of any two items of any two states."""
    rows = torch.corrcoef(torch.cat([state.flatten(1) for state in states]))
    return float((rows - torch.eye(len(rows))).abs().max())


def noises(kinds: dict) -> dict:
    """How alike the initial noise and the step noises of one seed are, at the worst."""
    tcd = comfy.samplers.calculate_sigmas(kinds["eps"].get_model_object("model_sampling"), "tcd", 6)
    (beyond,) = nodes_custom_sampler.KarrasScheduler().get_sigmas(8, 80.0, 1.0, 7.0)
    on_grid = {str(seed): largest_correlation(step_states(tcd, seed)) for seed in (0, 7, 2**64 - 1)}
    return {**on_grid, "sigmas above the model's": largest_correlation(step_states(beyond, 7))}


def batches(kinds: dict) -> dict:
    """Largest difference between items of a batch and the same items alone, by (height, width)."""
    cond = in_host.conditioning()
    common = {"model": kinds["eps"], "cfg": 1.0, "positive": cond, "negative": cond, "steps": 3, "gamma": 0.6}

    def sample(samples, **latent):
        given = {"seed": 3, "denoise": 1.0, "latent_image": {"samples": samples, **latent}, "order": "2M"}
        return ksampler.KSampler.execute(**common, **given).args[0]["samples"]

    differences = {}
    for height, width in ((9, 9), (65, 65), (3, 5), (8, 8)):
        whole = sample(torch.zeros(5, 4, height, width))
        for items in ([0], [3], [4, 1], [2, 2], [1, 2, 3]):
            alone = sample(torch.zeros(len(items), 4, height, width), batch_index=items)
            differences[f"{height} × {width} {items}"] = float((alone - whole[items]).abs().max())
    return differences


def main(results_file: str) -> None:
    kinds = models()
    results = {function.__name__: function(kinds) for function in (plans, samples, noises, batches)}
    Path(results_file).write_text(json.dumps(results))


main(*sys.argv[1:])
