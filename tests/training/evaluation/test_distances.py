"""Fréchet distance and KID of features in files, against closed forms, scipy and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel

from training.evaluation import rows
from training.evaluation.distances import Gaussian, distance_to, gaussian_of, influences, kid
from training.metrics import frechet_distance


def covariance(d: int, seed: int, rank: int | None = None) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(d, rank or 2 * d))
    return factor @ factor.T / d


def file_of(tmp_path, name: str, values: np.ndarray, part: int = 7) -> rows.Rows:
    rows.write(tmp_path / name, (values[i : i + part] for i in range(0, len(values), part)), len(values))
    return rows.Rows(tmp_path / name)


def test_gaussians_of_independent_coordinates_have_the_distance_of_the_closed_form():
    """‖μ_a − μ_b‖² + Σ (σ_a − σ_b)²."""
    draw = np.random.default_rng(0)
    mean_a, mean_b, sigma_a, sigma_b = draw.normal(size=12), draw.normal(size=12), *draw.uniform(0.1, 2, (2, 12))
    turn = np.linalg.qr(draw.normal(size=(12, 12)))[0]  # any basis: both covariances have the same axes
    a, b = (
        Gaussian(mean, turn @ np.diag(sigma**2) @ turn.T, None)
        for mean, sigma in ((mean_a, sigma_a), (mean_b, sigma_b))
    )
    expected = np.square(mean_a - mean_b).sum() + np.square(sigma_a - sigma_b).sum()
    assert distance_to(a)(b) == pytest.approx(expected, rel=1e-10)
    assert distance_to(b)(a) == pytest.approx(expected, rel=1e-10)
    assert distance_to(a)(a) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("d", [2, 33, 100])
def test_any_gaussians_have_the_distance_by_scipy_s_matrix_root(d):
    draw = np.random.default_rng(d)
    a, b = (Gaussian(draw.normal(size=d), covariance(d, seed), None) for seed in (1, 2))
    root = sqrtm(a.covariance @ b.covariance).real
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert distance_to(a)(b) == pytest.approx(expected, rel=1e-8)


def test_covariances_of_too_few_vectors_give_a_finite_distance_that_does_not_depend_on_the_order():
    a, b = (Gaussian(np.zeros(40), covariance(40, seed, rank=5), None) for seed in (3, 4))
    assert distance_to(a)(b) == pytest.approx(distance_to(b)(a), rel=1e-6) and distance_to(a)(b) > 0


def test_mean_and_covariance_are_numpy_s_whatever_the_parts(tmp_path, monkeypatch):
    values = 100 + np.random.default_rng(0).normal(size=(57, 9)).astype(np.float32)
    monkeypatch.setattr(rows, "CHUNK", 10)
    found = gaussian_of(file_of(tmp_path, "a.npy", values))
    np.testing.assert_allclose(found.mean, values.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(values.astype(np.float64), rowvar=False), rtol=1e-9)
    assert found.count == 57


def test_the_distance_of_files_is_that_of_whole_sets(tmp_path):
    a, b = torch.randn(80, 6, generator=torch.Generator().manual_seed(0)), torch.rand(50, 6)
    found = distance_to(gaussian_of(file_of(tmp_path, "b.npy", b.numpy())))(
        gaussian_of(file_of(tmp_path, "a.npy", a.numpy()))
    )
    assert found == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_influences_are_the_derivative_of_the_distance_towards_each_vector(tmp_path):
    """Against the distance of the mixture (1 − h) · set + h · vector, for a small h; of mean 0."""
    draw, h = np.random.default_rng(0), 1e-6
    values = draw.normal(size=(40, 5)) @ covariance(5, 1)
    made, real = gaussian_of([values]), Gaussian(draw.normal(size=5), covariance(5, 2), None)
    found = influences(file_of(tmp_path, "a.npy", values), made, real)
    distance, slopes = distance_to(real), []
    for x in values:
        gap = x - made.mean
        mixed = made.covariance + h * (np.outer(gap, gap) - made.covariance)
        slopes.append((distance(Gaussian(made.mean + h * gap, mixed, None)) - distance(made)) / h)
    np.testing.assert_allclose(found, np.array(slopes) - np.mean(slopes), rtol=1e-4, atol=1e-4)
    assert abs(found.mean()) < 1e-12


def test_statistics_of_other_features_are_refused():
    a, b = (Gaussian(np.zeros(d), np.eye(d), None) for d in (3, 4))
    with pytest.raises(ValueError, match="of 3 features, the pictures' network has 4"):
        distance_to(a)(b)


def test_sets_that_say_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least two pictures"):
        gaussian_of([np.zeros((1, 3))])
    with pytest.raises(ValueError, match="not finite"):
        gaussian_of([np.full((3, 3), np.nan)])
    one = file_of(tmp_path, "one.npy", np.zeros((1, 3)))
    with pytest.raises(ValueError, match="at least two pictures in each set, got 1 and 1"):
        kid(one, one)


def kid_of_kernels(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased estimator from whole kernel matrices by scikit-learn."""
    of = {"degree": 3, "gamma": 1 / a.shape[1], "coef0": 1}
    aa, bb, ab = polynomial_kernel(a, a, **of), polynomial_kernel(b, b, **of), polynomial_kernel(a, b, **of)
    m, n = len(a), len(b)
    within = (aa.sum() - np.trace(aa)) / (m * (m - 1)) + (bb.sum() - np.trace(bb)) / (n * (n - 1))
    return within - 2 * ab.mean()


@pytest.mark.parametrize("sizes", [(40, 40), (30, 53), (10, 20)])
def test_kid_is_scikit_learn_s_kernels_whatever_the_parts(tmp_path, monkeypatch, sizes):
    from training.evaluation import distances

    monkeypatch.setattr(rows, "CHUNK", 10)
    monkeypatch.setattr(distances, "CHUNK", 10)
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(sizes[0], 16)), draw.normal(0.3, 1.1, size=(sizes[1], 16))
    found = kid(file_of(tmp_path, "a.npy", a), file_of(tmp_path, "b.npy", b))
    assert found == pytest.approx(kid_of_kernels(a, b), rel=1e-10)


def test_kid_of_two_sets_of_one_distribution_is_zero_in_the_mean_where_a_biased_estimate_is_not(tmp_path):
    draw, found = np.random.default_rng(0), []
    for i in range(300):
        a, b = draw.normal(size=(2, 12, 8))
        found.append(kid(file_of(tmp_path, f"a{i}.npy", a), file_of(tmp_path, f"b{i}.npy", b)))
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error and min(found) < 0 < max(found)
    same = file_of(tmp_path, "same.npy", draw.normal(size=(40, 8)))
    assert kid(same, same) < 0  # of one set with itself: the pairs of equals are in the third term alone


def test_kid_grows_with_the_distance(tmp_path):
    draw = np.random.default_rng(0)
    real = file_of(tmp_path, "real.npy", draw.normal(size=(60, 8)))
    near, far = (file_of(tmp_path, f"{gap}.npy", draw.normal(gap, 1, size=(60, 8))) for gap in (0.3, 1.0))
    assert 0 < kid(near, real) < kid(far, real)
