"""How well two bootstraps know the scatter of a Fréchet distance, on Gaussians, against fresh samples.

    python benchmarks/frechet_intervals.py

Printed for (features, rows): the distance, the standard deviation of fresh samples' distances, and as multiples of it
those of resampled rows' distances and of resampled influences (what `training.bootstrap` does); how far a resampled
distance lies above the sample's, as a share of it; and how often the influences' interval holds the expected distance.
"""

import numpy as np

from training.bootstrap import frechet_influence, frechet_interval
from training.evaluation.distances import Gaussian

FRESH, SAMPLES, RESAMPLES = 300, 40, 100


def scatter(d: int, n: int, scale: float, shift: float) -> str:
    rng, spread = np.random.default_rng(0), np.linspace(1, 0.1, d)
    real = Gaussian(np.zeros(d), np.diag(spread**2), None)

    def draw():
        return spread * (scale * rng.standard_normal((n, d)) + shift / np.sqrt(d))

    def distance(rows):
        return frechet_influence(rows, real)[0]

    fresh = np.array([distance(draw()) for _ in range(FRESH)])
    rows, influences, above, held = [], [], [], []
    for _ in range(SAMPLES):
        sample = draw()
        own, influence = frechet_influence(sample, real)
        again = [distance(sample[rng.integers(0, n, n)]) for _ in range(RESAMPLES)]
        low, high = frechet_interval(sample, real)
        rows.append(np.std(again))
        influences.append(influence.std() / np.sqrt(n))
        above.append(np.mean(again) / own - 1)
        held.append(low <= fresh.mean() <= high)
    figures = (np.mean(v) / fresh.std() for v in (rows, influences))
    return f"{d:4} {n:5} {fresh.mean():9.4f} {fresh.std():8.4f} " + "".join(
        f"{v:9.2f}" for v in (*figures, np.mean(above), np.mean(held))
    )


if __name__ == "__main__":
    print("   d     n  distance  scatter     rows  influences above   held")
    for setting in (
        (8, 300, 1.3, 0.5),
        (32, 300, 1.2, 0.3),
        (128, 2000, 1.3, 0.2),
        (128, 500, 1.3, 0.2),
        (128, 200, 1.3, 0.2),
        (32, 900, 1.0, 0.0),
    ):
        print(scatter(*setting), flush=True)
