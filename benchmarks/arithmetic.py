"""Sampler arithmetic alone: this package's SSS step against diffusers' `TCDScheduler.step`, noise supplied to both.

    python benchmarks/arithmetic.py [--device cuda] [--rounds 100] [--epsilon]

Both are given the data prediction x̂, which is what a host hands its samplers; with --epsilon the noise prediction.
Prints the ratio of the times (ours / theirs), measured in turns in one run, as median and quartiles.
"""

import argparse
import statistics
import time

import torch
from diffusers import TCDScheduler
from diffusers.schedulers import scheduling_tcd

from tcd_core import VESchedule, VPSchedule, inference_times, plan, sss_step, to_x0

SHAPE, STEPS, GAMMA = (16, 4, 128, 128), 4, 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=100, help="pairs of runs that are compared")
    parser.add_argument("--epsilon", action="store_true", help="give both the noise, to convert to x̂ themselves")
    options = parser.parse_args()

    x, output, z = (torch.randn(SHAPE, device=options.device) for _ in range(3))
    scheduling_tcd.randn_tensor = lambda *_, **__: z  # the reference's noise costs nothing, as ours
    alpha_bar = VPSchedule.scaled_linear().alpha_bar
    schedule = VESchedule(alpha_bar)
    scheduler = TCDScheduler(prediction_type="epsilon" if options.epsilon else "sample")

    def ours() -> None:
        y = x
        for step in plan(schedule, inference_times(STEPS), GAMMA):
            x0 = to_x0(output, y, step.t, "epsilon") if options.epsilon else output
            y = sss_step(step, y, x0, z)

    def theirs() -> None:
        scheduler.set_timesteps(STEPS, device=options.device)
        y = x
        for t in scheduler.timesteps:
            y = scheduler.step(output, t, y, eta=GAMMA).prev_sample

    ratios = []
    for round_number in range(options.rounds + 5):
        pair = [_seconds(run, options.device) for run in (ours, theirs)]
        if round_number >= 5:  # the first ones warm up
            ratios.append(pair[0] / pair[1])
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{STEPS} steps of {'×'.join(map(str, SHAPE))} on {options.device}, {torch.get_num_threads()} threads:")
    print(f"tcd_core / TCDScheduler.step = {middle:.2f} (quartiles {low:.2f} … {high:.2f}, {options.rounds} pairs)")


def _seconds(run, device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
