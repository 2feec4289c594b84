"""Confidence intervals: coverage on known distributions, and the closed forms that they rest on."""

import numpy as np
import pytest

from training.bootstrap import frechet_difference, frechet_influence, frechet_interval, mean_interval, paired_interval
from training.evaluation.distances import Gaussian
from training.metrics import frechet_distance

# -- means ---------------------------------------------------------------------------------------------------------


def test_a_means_interval_is_its_standard_errors():
    values = np.random.default_rng(0).normal(3, 2, size=4000)
    low, high = mean_interval(values)
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.1 * error)


def test_intervals_of_skewed_values_hold_the_true_mean_19_times_in_20():
    rng = np.random.default_rng(0)
    found = [mean_interval(rng.exponential(size=200), resamples=400, seed=i) for i in range(400)]
    held = np.mean([low <= 1 <= high for low, high in found])
    assert 0.91 <= held <= 0.98  # 0.95 ± 3 standard errors of 400 trials, less what a skewed 200 cost


def test_equal_values_have_an_interval_of_no_width_and_a_seed_gives_one_interval():
    assert mean_interval([0.5] * 10) == (0.5, 0.5)
    values = np.arange(50.0)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_pairing_takes_out_what_prompts_have_in_common():
    rng = np.random.default_rng(0)
    prompts = rng.normal(0, 10, size=500)  # some prompts are hard for every method
    a, b = prompts + rng.normal(0.5, 1, size=500), prompts + rng.normal(0, 1, size=500)
    difference, (low, high) = paired_interval(a, b)
    assert difference == pytest.approx((a - b).mean())
    assert low > 0 and high - low == pytest.approx(2 * 1.96 * np.sqrt(2 / 500), rel=0.15)
    ends = [mean_interval(v) for v in (a, b)]
    assert ends[0][0] < ends[1][1]  # unpaired, the two intervals overlap


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.nan], [1.0, np.inf], [[1.0, 2.0], [3.0, 4.0]]])
def test_what_has_no_interval_is_refused(values):
    with pytest.raises(ValueError, match="at least two finite values"):
        mean_interval(values)


def test_unlike_numbers_of_prompts_are_refused():
    with pytest.raises(ValueError, match=r"for every prompt, got \(3,\) and \(4,\)"):
        paired_interval([1.0] * 3, [1.0] * 4)


# -- Fréchet distances ---------------------------------------------------------------------------------------------

D = 12
COVARIANCE = np.diag(np.linspace(1, 0.2, D) ** 2)
REAL = Gaussian(np.zeros(D), COVARIANCE, None)


def draw(rng, n, scale=1.2, shift=0.1):
    return shift + scale * rng.normal(size=(n, D)) @ np.sqrt(COVARIANCE)


def test_the_distance_is_that_of_the_metric():
    rng = np.random.default_rng(0)
    rows, real = draw(rng, 300), draw(rng, 200, 1.0, 0.0)
    distance, influence = frechet_influence(rows, Gaussian(real.mean(0), np.cov(real, rowvar=False), 200))
    assert distance == pytest.approx(frechet_distance(rows, real), rel=1e-9)
    assert influence.mean() == pytest.approx(0, abs=1e-12)


def test_a_rows_influence_is_the_derivative_towards_it():
    """Against finite differences: the distance with one row's weight raised by ε."""
    rng = np.random.default_rng(0)
    rows = draw(rng, 60)
    _, influence = frechet_influence(rows, REAL)

    def distance(weights):
        """Of weighted rows, with the unbiased covariance's factor n/(n − 1) held."""
        weights = weights / weights.sum()
        mean = weights @ rows
        own = (rows - mean).T @ ((rows - mean) * weights[:, None]) * 60 / 59
        values = np.linalg.eigvals(own @ COVARIANCE)
        return mean @ mean + np.trace(own + COVARIANCE) - 2 * np.sqrt(values.real.clip(0)).sum()

    for i in (0, 17, 59):
        step = 1e-5 * 60 * np.eye(60)[i]
        slope = (distance(np.ones(60) + step) - distance(np.ones(60) - step)) / 2e-5
        assert influence[i] == pytest.approx(slope, rel=0.03, abs=0.01)


def test_shifted_means_alone_give_the_normal_interval():
    """With equal covariances FD is ‖δ‖² to first order: standard error 2‖δ‖σ/√n along δ."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20_000, 3)) + [2.0, 0, 0]
    low, high = frechet_interval(rows, Gaussian(np.zeros(3), np.eye(3), None))
    assert high - low == pytest.approx(2 * 1.96 * 2 * 2.0 / np.sqrt(20_000), rel=0.1)
    assert low < 4.0 < high


@pytest.mark.parametrize(("scale", "shift"), [(1.2, 0.1), (1.0, 0.0)], ids=["far", "the same distribution"])
def test_intervals_hold_the_distance_expected_of_as_many_pictures(scale, shift):
    rng = np.random.default_rng(0)

    def distance(rows):
        return frechet_influence(rows, REAL)[0]

    expected = np.mean([distance(draw(rng, 200, scale, shift)) for _ in range(300)])
    found = [draw(rng, 200, scale, shift) for _ in range(150)]
    ends = [frechet_interval(rows, REAL, resamples=300) for rows in found]
    assert np.mean([low <= expected <= high for low, high in ends]) >= 0.93  # too wide rather than too short
    width = np.mean([high - low for low, high in ends]) / (2 * 1.96)
    assert width / np.std([distance(rows) for rows in found]) < 1.6  # and not by much


def test_a_paired_difference_of_distances_is_narrower_than_the_two_intervals():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(400, D))
    a = 0.3 + (1.2 * shared + 0.2 * rng.normal(size=(400, D))) @ np.sqrt(COVARIANCE)
    b = 0.2 + (1.2 * shared + 0.2 * rng.normal(size=(400, D))) @ np.sqrt(COVARIANCE)
    difference, (low, high) = frechet_difference(a, b, REAL)
    ends = [frechet_interval(rows, REAL) for rows in (a, b)]
    assert low <= difference <= high and low > 0
    assert high - low < 0.5 * sum(end[1] - end[0] for end in ends) / np.sqrt(2)


def test_fewer_pictures_than_features_still_have_an_interval():
    rows = draw(np.random.default_rng(0), 8)
    distance, _ = frechet_influence(rows, REAL)
    low, high = frechet_interval(rows, REAL)
    assert np.isfinite([low, high]).all() and low <= distance <= high


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((1, D)), "at least two pictures"),
        (np.full((5, D), np.nan), "features are not finite"),
        (np.zeros((5, 3)), "of 12 features, the pictures' network has 3"),
    ],
)
def test_features_that_do_not_fit_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        frechet_interval(rows, REAL)
