"""What the orders are worth on a model that was not distilled: energy distance to the data, on a Gaussian mixture.

    python benchmarks/orders.py

The mixture (12 components in 16 dimensions) has its data prediction in closed form. 2,000 samples; "data" is the
distance between two samples of the mixture itself, the floor.
"""

import torch

from tcd_core import VPSchedule, inference_times, plan, sample

COMPONENTS, DIMENSIONS, VARIANCE, SAMPLES = 12, 16, 0.05, 2000
SCHEDULE = VPSchedule.scaled_linear()
ORDERS = (("1", "data"), ("2", "data"), ("2", "epsilon"), ("2M", "data"))


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    means, start = draw(COMPONENTS, DIMENSIONS), draw(SAMPLES, DIMENSIONS)
    data, other = (
        means[torch.randint(0, COMPONENTS, (SAMPLES,), generator=generator)] + VARIANCE**0.5 * draw(SAMPLES, DIMENSIONS)
        for _ in range(2)
    )

    def model(x, t, s):
        variance = t.alpha**2 * VARIANCE + t.sigma**2
        distance = (x[:, None] - t.alpha * means).square().sum(-1)
        mean = torch.softmax(-distance / (2 * variance), 1) @ means
        return mean + t.alpha * VARIANCE / variance * (x - t.alpha * mean)

    print(f"data: {energy_distance(data, other):.3f}\n")
    print("| gamma | order | 2 steps | 4 | 8 | 20 |\n| --- | --- | --- | --- | --- | --- |")
    for gamma in (0.0, 0.3, 1.0):
        for order, form in ORDERS:
            row = []
            for count in (2, 4, 8, 20):
                steps = plan(SCHEDULE, inference_times(count), gamma, order, form=form)
                row.append(energy_distance(sample(model, start, steps, lambda _: draw(SAMPLES, DIMENSIONS)), data))
            name = order + (" (noise form)" if form == "epsilon" else "")
            print(f"| {gamma} | {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |")


def energy_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """``2 E|A − B| − E|A − A'| − E|B − B'|``; 0 for equal distributions."""
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


if __name__ == "__main__":
    main()
