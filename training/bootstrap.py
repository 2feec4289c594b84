"""95 % confidence intervals over other pictures of the same kind, by bootstrap (scipy's: percentiles of means).

A mean of single pictures' values is resampled over its pictures; where a prompt has several, give one value per prompt.
Two methods' values for the same prompts are compared by resampling their differences.

Fréchet distances cannot be resampled as they are: the distance of a bootstrap sample lies far above that of the sample
(its rows repeat, so its covariance has fewer directions), and scatters more than the distances of fresh samples do. So
the rows are resampled to first order: the mean of their influences on the distance, around the distance itself. That
has no such bias, and takes one eigendecomposition instead of thousands. Against fresh samples of Gaussians (``python
benchmarks/frechet_intervals.py``), with 38 down to 1.6 rows a feature: the distances of bootstrap samples scatter 1.0
to 2.8 times as much and lie 0.1 to 1.0 of the distance too high, these scatter 1.0 to 1.4 times as much. So the
intervals are rather too wide than too short. They are for the distance of as many pictures: that a Fréchet distance
falls with their number is its own bias, which no interval holds. The real pictures are taken as given, for every method
alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from .evaluation.distances import Gaussian, distance_to, gaussian_of, influences

LEVEL = 0.95
RESAMPLES = 2000
BLOCK = 8_000_000  # values resampled at a time: 64 MB

Interval = tuple[float, float]


def mean_interval(values: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Interval of the mean of values, shape (n,), one per picture or per prompt.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"an interval needs at least two finite values in a row, got shape {values.shape}")
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, BLOCK // len(values)),
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def paired_interval(a: Sequence[float], b: Sequence[float], **settings) -> tuple[float, Interval]:
    """(mean of a − b, its interval), values of the same prompts in the same order.

    Raises:
        ValueError: unlike numbers of values, or as `mean_interval`.
    """
    differences = _matched(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
    return float(differences.mean()), mean_interval(differences, **settings)


def frechet_interval(features: np.ndarray, real: Gaussian, **settings) -> Interval:
    """Interval of the Fréchet distance of feature rows (n, d) from the real pictures' mean and covariance."""
    distance, influence = frechet_influence(features, real)
    return mean_interval(distance + influence, **settings)


def frechet_difference(a: np.ndarray, b: np.ndarray, real: Gaussian, **settings) -> tuple[float, Interval]:
    """(distance of a − distance of b, its interval), features (n, d) of two methods' pictures of the same prompts."""
    (far, of_a), (near, of_b) = (frechet_influence(rows, real) for rows in (a, b))
    return far - near, mean_interval(far - near + _matched(of_a, of_b), **settings)


def frechet_influence(features: np.ndarray, real: Gaussian) -> tuple[float, np.ndarray]:
    """(Fréchet distance, each row's influence on it, shape (n,), of mean 0), see `evaluation.distances.influences`.

    Raises:
        ValueError: fewer than two rows, not finite, or of another width than the mean.
    """
    made = gaussian_of([features])
    return distance_to(real)(made), influences([features], made, real)


def _matched(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.shape != b.shape:
        raise ValueError(f"a paired comparison needs one value of each for every prompt, got {a.shape} and {b.shape}")
    return a - b
