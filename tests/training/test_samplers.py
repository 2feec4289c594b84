"""Sampling for measurement: each method's evaluations are counted, and each comes to the exact trajectory."""

import pytest
import torch
from training_support.gaussian import MU, exact_jump, exact_output

from tcd_core import FlowSchedule, VPSchedule
from training.jumps import stack
from training.samplers import SOLVERS, run_times, sample_solver, sample_sss, start_noise

VP, FLOW = VPSchedule.scaled_linear(), FlowSchedule()
KINDS = {
    "epsilon": (VP, "epsilon"),
    "v": (VP, "v_prediction"),
    "x": (VP, "sample"),
    "flow": (FLOW, "flow"),
    "v, zero SNR": (VP.zero_terminal_snr(), "v_prediction"),
}


class Counted:
    """The Gaussian teacher as a sampler calls it: (x, t, s) -> raw output."""

    def __init__(self, schedule, prediction):
        self.schedule, self.prediction, self.asked = schedule, prediction, []

    def __call__(self, x, t, s):
        self.asked.append((t, s))
        return exact_output(x, stack([self.schedule.level(t)] * len(x)), self.prediction)


def error(samples, schedule, x):
    """How far samples are from where the trajectories through x, at the noisiest time, end."""
    last = 1.0 if isinstance(schedule, FlowSchedule) else 999.0
    ends = [stack([schedule.level(t)] * len(x)) for t in (last, 0.0)]
    return (samples - exact_jump(x, *ends)).square().mean().sqrt().item()


def noise(count=16):
    return start_noise((count, *MU.shape), 0)


def test_each_item_has_its_own_start_noise_whatever_the_number_of_items():
    x = start_noise((5, 1, 8, 8), 3)
    assert torch.equal(x[:2], start_noise((2, 1, 8, 8), 3)) and not torch.equal(x[0], x[1])
    assert not torch.equal(x, start_noise((5, 1, 8, 8), 4))
    many = start_noise((500, 1, 8, 8), 3)
    assert abs(many.mean()) < 0.03 and many.std().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_takes_the_evaluations_asked_for_and_converges(solver, kind):
    schedule, prediction = KINDS[kind]
    errors = []
    for steps in (2, 8, 50):
        network, x = Counted(schedule, prediction), noise()
        samples = sample_solver(solver, network, prediction, schedule, x, steps)
        if samples is None:
            assert kind == "flow" and solver == "ddim"  # the same as Euler there
            return
        assert len(network.asked) == steps and samples.isfinite().all()
        errors.append(error(samples, schedule, x))
    assert errors[2] < errors[1] < errors[0] and errors[2] < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_strategic_stochastic_sampling_takes_the_evaluations_asked_for_and_converges(kind):
    schedule, prediction = KINDS[kind]
    for order in ("1", "2"):
        errors = []
        for steps in (2, 8, 50):
            network, x = Counted(schedule, prediction), noise()
            samples = sample_sss(network, prediction, schedule, x, steps, 0.0, 0, order=order)
            assert len(network.asked) <= steps and samples.isfinite().all()
            assert order == "2" or len(network.asked) == steps
            errors.append(error(samples, schedule, x))
        assert errors[2] < errors[1] < errors[0] and errors[2] < 0.03


def test_stochastic_samples_follow_their_seed_item_by_item():
    x = noise(6)
    samples = [sample_sss(Counted(VP, "epsilon"), "epsilon", VP, x, 4, 0.5, seed) for seed in (0, 0, 1)]
    assert torch.equal(samples[0], samples[1]) and not torch.equal(samples[0], samples[2])
    fewer = sample_sss(Counted(VP, "epsilon"), "epsilon", VP, x[:2], 4, 0.5, 0)
    torch.testing.assert_close(fewer, samples[0][:2])


def test_the_network_is_told_where_each_step_aims():
    network = Counted(VP, "epsilon")
    sample_sss(network, "epsilon", VP, noise(), 4, 0.2, 0)
    assert network.asked == [(999, 607), (759, 399), (499, 207), (259, 0)]
    assert run_times(VP, 4) == [999, 759, 499, 259] and run_times(FLOW, 4) == [1, 0.75, 0.5, 0.25]


def test_an_odd_number_of_evaluations_is_refused_for_the_second_order():
    with pytest.raises(ValueError, match="order 2 takes two evaluations a step, 3 is odd"):
        sample_sss(Counted(VP, "epsilon"), "epsilon", VP, noise(), 3, 0.2, 0, order="2")
