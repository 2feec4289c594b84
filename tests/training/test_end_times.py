"""The grid of start times, its segments, and the end times that are drawn or averaged."""

import numpy as np
import pytest
import torch

from tcd_core import FlowSchedule, VPSchedule
from training.end_times import TimeGrid, draw_ends, draw_starts, end_time_moments, segments_at

VP, FLOW = VPSchedule.scaled_linear(), FlowSchedule()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ends_of(grid, start, count=20_000, segments=1, lower_share=0.0, on_grid=False):
    """Many end times of one start index."""
    starts = np.full(count, start)
    lower = grid.lower_ends(segments)[starts]
    return draw_ends(grid, starts, lower, lower_share, on_grid, seeded())


# ---- the grid ----


@pytest.mark.parametrize("skip", [1, 20, 50, 500])
def test_a_vp_grid_is_the_papers_and_ends_at_time_zero(skip):
    grid = TimeGrid.of(VP, skip)
    assert grid.times[1:].tolist() == [i * skip - 1 for i in range(1, 1000 // skip + 1)]
    assert grid.times[0] == 0 and len(grid) == 1000 // skip and grid.integers


def test_the_smallest_start_has_its_target_at_time_zero():
    for schedule in (VP, FLOW):
        grid = TimeGrid.of(schedule, 50)
        smallest = draw_starts(grid, 1000, seeded()).min()
        assert smallest == 1 and grid.times[smallest - 1] == 0


def test_a_flow_grid_covers_zero_to_one_in_equal_parts():
    grid = TimeGrid.of(FLOW, 50)
    np.testing.assert_allclose(grid.times, np.linspace(0, 1, 21), rtol=0, atol=1e-15)
    assert grid.times[-1] == 1 and not grid.integers


def test_a_grid_of_a_shorter_table():
    assert TimeGrid.of(VPSchedule.scaled_linear(100), 25).times.tolist() == [0, 24, 49, 74, 99]


@pytest.mark.parametrize("skip", [0, 3, 999, -50])
@pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])
def test_a_skip_that_does_not_divide_the_times_is_refused(schedule, skip):
    with pytest.raises(ValueError, match=f"skip must divide the schedule's 1000 times, got {skip}"):
        TimeGrid.of(schedule, skip)


def test_starts_are_uniform_over_the_whole_grid():
    grid = TimeGrid.of(VP, 50)
    counts = np.bincount(draw_starts(grid, 40_000, seeded()), minlength=21)
    assert counts[0] == 0 and len(counts) == 21
    assert ((counts[1:] - 2000) ** 2 / 2000).sum() < 43.8  # chi² of 19 degrees of freedom, p = .001


# ---- segments ----


@pytest.mark.parametrize("segments", [1, 2, 4, 5, 10, 20])
def test_segments_of_equal_length_each_jump_staying_in_its_own(segments):
    grid = TimeGrid.of(VP, 50)
    length = 20 // segments
    expected = [0, *((i - 1) // length * length for i in range(1, 21))]
    assert grid.lower_ends(segments).tolist() == expected


def test_segments_that_do_not_divide_the_grid_differ_by_one_step_at_most():
    lower = TimeGrid.of(VP, 50).lower_ends(8)
    edges = np.unique(lower[1:])
    lengths = np.diff([*edges, 20])
    assert len(edges) == 8 and edges[0] == 0 and set(lengths) == {2, 3}
    starts = np.arange(1, 21)
    assert (lower[1:] <= starts - 1).all()  # b ≤ t_n
    for i, b in zip(starts, lower[1:], strict=True):  # the start is in (b, next edge]
        assert not [edge for edge in edges if b < edge < i]


def test_more_segments_than_grid_steps_are_refused():
    with pytest.raises(ValueError, match="21 segments do not fit a grid of 20 steps"):
        TimeGrid.of(VP, 50).lower_ends(21)


def test_stages_are_equal_parts_of_the_run():
    stages = [segments_at(step / 40, (8, 4, 2, 1)) for step in range(40)]
    assert stages == [8] * 10 + [4] * 10 + [2] * 10 + [1] * 10
    assert segments_at(1.0, (8, 4)) == 4 and {segments_at(p, (3,)) for p in (0, 0.5, 0.999)} == {3}


# ---- end times, drawn ----


@pytest.mark.parametrize(("start", "segments", "b", "t_n"), [(4, 1, 0, 149), (1, 1, 0, 0), (15, 4, 499, 699)])
def test_integers_are_drawn_uniformly_both_ends_included(start, segments, b, t_n):
    s = ends_of(TimeGrid.of(VP, 50), start, segments=segments)
    assert np.array_equal(np.unique(s), np.arange(b, t_n + 1))
    if t_n > b:
        counts = np.bincount((s - b).astype(int))
        expected, freedom = len(s) / (t_n - b + 1), t_n - b
        assert ((counts - expected) ** 2 / expected).sum() < freedom + 3.5 * (2 * freedom) ** 0.5


def test_on_the_grid_only_its_points_are_drawn_both_ends_included():
    grid = TimeGrid.of(VP, 50)
    values, counts = np.unique(ends_of(grid, 15, segments=4, on_grid=True), return_counts=True)
    assert values.tolist() == [499, 549, 599, 649, 699]
    assert ((counts - 4000) ** 2 / 4000).sum() < 18.5  # 4 degrees of freedom, p = .001
    assert set(ends_of(grid, 1, count=100, on_grid=True)) == {0}


def test_a_flows_end_times_are_any_fraction_between_the_ends():
    s = ends_of(TimeGrid.of(FLOW, 50), 20, segments=2)
    assert s.min() >= 0.5 and s.max() <= 0.95
    assert np.abs(np.histogram(s, 10, (0.5, 0.95))[0] - 2000).max() < 200
    assert set(ends_of(TimeGrid.of(FLOW, 50), 1, count=100)) == {0.0}


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_lower_end_has_its_share_besides_what_is_uniform(share):
    s = ends_of(TimeGrid.of(VP, 50), 15, count=40_000, segments=4, lower_share=share)
    assert np.mean(s == 499) == pytest.approx(share + (1 - share) / 201, abs=0.01)
    assert np.mean(s > 600) == pytest.approx((1 - share) * 99 / 201, abs=0.01)


@pytest.mark.parametrize("segments", [1, 4])
@pytest.mark.parametrize("on_grid", [True, False])
def test_a_share_of_one_is_the_lower_end_always(segments, on_grid):
    grid = TimeGrid.of(VP, 50)
    starts = draw_starts(grid, 500, seeded())
    lower = grid.lower_ends(segments)[starts]
    assert np.array_equal(draw_ends(grid, starts, lower, 1.0, on_grid, seeded()), grid.times[lower])


# ---- end times, averaged ----


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("segments", [1, 4])
def test_moments_are_the_averages_over_every_integer(segments, share):
    grid = TimeGrid.of(VP, 50)
    lower = grid.lower_ends(segments)
    moments = end_time_moments(VP, grid, lower, share)
    alpha, sigma = np.sqrt(VP.alpha_bar), np.sqrt(1 - VP.alpha_bar)
    each = np.stack([alpha**2, alpha * sigma, sigma**2], axis=1)
    for i in range(1, 21):
        b, t_n = int(grid.times[lower[i]]), int(grid.times[i - 1])
        uniform = [each[s] for s in range(b, t_n + 1)]
        expected = share * each[b] + (1 - share) * sum(uniform) / len(uniform)
        np.testing.assert_allclose(moments[i], expected, rtol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("segments", [1, 4])
def test_a_flows_moments_are_the_integrals_over_s(segments, share):
    grid = TimeGrid.of(FLOW, 50)
    lower = grid.lower_ends(segments)
    moments = end_time_moments(FLOW, grid, lower, share)
    for i in range(1, 21):
        b, t = grid.times[lower[i]], grid.times[i - 1]
        if t == b:
            mean = np.array([(1 - b) ** 2, (1 - b) * b, b**2])
        else:  # ∫ (1−s)², ∫ (1−s)s, ∫ s² by their antiderivatives
            first = ((1 - b) ** 3 - (1 - t) ** 3) / 3
            second = (t**2 - b**2) / 2 - (t**3 - b**3) / 3
            mean = np.array([first, second, (t**3 - b**3) / 3]) / (t - b)
        expected = share * np.array([(1 - b) ** 2, (1 - b) * b, b**2]) + (1 - share) * mean
        np.testing.assert_allclose(moments[i], expected, rtol=1e-9, atol=1e-12)


def test_moments_are_what_drawn_end_times_come_to():
    grid = TimeGrid.of(VP, 50)
    s = ends_of(grid, 15, count=100_000, segments=4, lower_share=0.3).astype(int)
    alpha, sigma = np.sqrt(VP.alpha_bar)[s], np.sqrt(1 - VP.alpha_bar)[s]
    drawn = [np.mean(alpha**2), np.mean(alpha * sigma), np.mean(sigma**2)]
    np.testing.assert_allclose(end_time_moments(VP, grid, grid.lower_ends(4), 0.3)[15], drawn, rtol=0.01)
