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


def frechet_interval(features: np.ndarray, mean: np.ndarray, covariance: np.ndarray, **settings) -> Interval:
    """Interval of the Fréchet distance of feature rows (n, d) from real pictures' mean (d,) and covariance (d, d)."""
    distance, influence = frechet_influence(features, mean, covariance)
    return mean_interval(distance + influence, **settings)


def frechet_difference(a: np.ndarray, b: np.ndarray, mean: np.ndarray, covariance: np.ndarray, **settings):
    """(distance of a − distance of b, its interval), features (n, d) of two methods' pictures of the same prompts."""
    (far, of_a), (near, of_b) = (frechet_influence(rows, mean, covariance) for rows in (a, b))
    return far - near, mean_interval(far - near + _matched(of_a, of_b), **settings)


def frechet_influence(features: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> tuple[float, np.ndarray]:
    """(Fréchet distance, each row's influence on it, shape (n,), of mean 0).

    With δ = μ_a − μ_b and T, the optimal map from N(0, Σ_a) to N(0, Σ_b), ``T = R (R Σ_a R)^{-1/2} R`` where R² = Σ_b:
    the derivative of ``‖δ‖² + tr(Σ_a + Σ_b) − 2 tr (R Σ_a R)^{1/2}`` towards a point mass at x is
    ``2 δ·(x − μ_a) + (x − μ_a)ᵀ (1 − T) (x − μ_a) − tr((1 − T) Σ_a)``.

    Raises:
        ValueError: fewer than two rows, not finite, or of another width than the mean.
    """
    features, mean, covariance = (np.asarray(v, dtype=float) for v in (features, mean, covariance))
    if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
        raise ValueError(f"a Fréchet distance needs at least two finite rows of features, got {features.shape}")
    if mean.shape != features.shape[1:] or covariance.shape != mean.shape * 2:
        raise ValueError(f"features have {features.shape[1]} columns, mean and covariance {mean.shape[0]}")
    centred = features - features.mean(0)
    own = np.cov(features, rowvar=False).reshape(covariance.shape)
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    values, vectors = np.linalg.eigh(root @ own @ root)
    roots = np.sqrt(values.clip(0))
    kept = values > 1e-10 * values.max()  # fewer rows than features leave directions without variance
    moved = root @ vectors[:, kept]
    delta, rest = features.mean(0) - mean, np.eye(len(mean)) - (moved / roots[kept]) @ moved.T
    influence = 2 * centred @ delta + ((centred @ rest) * centred).sum(1)
    distance = delta @ delta + np.trace(own) + np.trace(covariance) - 2 * roots.sum()
    return float(distance), influence - influence.mean()


def _matched(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.shape != b.shape:
        raise ValueError(f"a paired comparison needs one value of each for every prompt, got {a.shape} and {b.shape}")
    return a - b
