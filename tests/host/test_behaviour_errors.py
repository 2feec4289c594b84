"""Settings that cannot be sampled are refused in words a user can act on, and the server goes on."""

from collections.abc import Iterator

import pytest
import torch
from host_support import workflows as w
from host_support.branches import Branches
from host_support.client import Client, WorkflowError

TIMES = {  # what the message has to say, besides quoting the times
    "1, 2": "descending order.*1, 2",
    "999, 759, 759": "descending order.*999, 759, 759",
    "999, five, 3": "times: 'five' is not a number; write numbers separated by commas",
    "1000, 5": "must lie in 0 … 999.*1000.*5",
    "999, -5": "must lie in 0 … 999.*999.*-5",
    "999.5, 3": "whole numbers.*999.5, 3",
    "nan": "times.*nan",
    "nan, 3": "times.*nan",
    "inf, 3": "times.*inf",
}
FLOW_TIMES = {
    "0.5, 0.9": "times.*descending.*0.5, 0.9",
    "0.5, 0": r"times.*\(0, 1\].*0.5, 0",
    "1.5, 1": "times.*1.5, 1",
    "0.5, nan": "times.*nan",
    "nan, 0.5": "times.*nan",
}
GAMMAS = {
    "0.5, x": "gamma values: 'x' is not a number",
    "0.5, 1.3, 0.1": r"gamma must lie in \[0, 1\], got 1.3",
    "0.5, nan, 0.1": r"gamma must lie in \[0, 1\], got nan",
}


@pytest.fixture(autouse=True)
def server_goes_on(server: Client) -> Iterator[None]:
    """After each refusal the same server makes a picture."""
    yield
    g = Branches("sd3")
    g.keep("latent", g.sample("ksampler_tcd", g.empty(), steps=1))
    assert torch.isfinite(g.run(server).latent("latent")).all()


def refusal(server: Client, g: Branches, latent: w.Link) -> WorkflowError:
    g.keep("latent", latent)
    with pytest.raises(WorkflowError) as refused:
        g.run(server)
    return refused.value


def check(refused: WorkflowError, pattern: str, node_type: str | None = None) -> None:
    """A ValueError of ours, in words, from the node that has the wrong setting."""
    assert refused.kind == "execution" and refused.exception_type == "ValueError", refused
    assert refused.node_type == (node_type or refused.node_type)
    with pytest.raises(WorkflowError, match=pattern):
        raise refused


@pytest.mark.parametrize("route", w.ROUTES)
def test_a_gamma_list_of_the_wrong_length_is_told_both_lengths(server: Client, route: str):
    for steps, values in ((4, "0.5, 0.3"), (2, "0.5, 0.3, 0.1")):
        g = Branches("sd3")
        schedule = g.gamma_schedule("list", values=values)
        refused = refusal(server, g, g.sample(route, g.empty(), steps=steps, gamma_schedule=schedule))
        given = len(values.split(","))
        check(refused, rf"list has {given} values, this run of {steps} steps needs {steps - 1}.*interpolate on")


@pytest.mark.parametrize("times", TIMES)
def test_times_that_are_none_are_refused(server: Client, times: str):
    g = Branches("sd15")
    check(refusal(server, g, g.sample("custom", g.empty(), times=times)), TIMES[times], "TCDToolkit_Scheduler")


@pytest.mark.parametrize("times", FLOW_TIMES)
def test_a_flow_s_times_that_are_none_are_refused(server: Client, times: str):
    g = Branches("sd3")
    check(refusal(server, g, g.sample("custom", g.empty(), times=times)), FLOW_TIMES[times], "TCDToolkit_Scheduler")


@pytest.mark.parametrize("values", GAMMAS)
def test_gammas_that_are_none_are_refused(server: Client, values: str):
    g = Branches("sd3")
    schedule = g.gamma_schedule("list", values=values)
    refused = refusal(server, g, g.sample("ksampler_tcd", g.empty(), gamma_schedule=schedule))
    check(refused, GAMMAS[values], "TCDToolkit_GammaSchedule")


def test_an_empty_gamma_list_suits_a_run_of_one_step_only(server: Client):
    g = Branches("sd3")
    empty = g.gamma_schedule("list", values="")
    check(refusal(server, g, g.sample("ksampler_tcd", g.empty(), gamma_schedule=empty)), "has 0 values.*needs 3")
    g = Branches("sd3")
    g.keep("one step", g.sample("ksampler_tcd", g.empty(), steps=1, gamma_schedule=g.gamma_schedule("list", values="")))
    assert g.run(server).latent("one step").isfinite().all()


def test_the_stock_sampler_s_low_denoise_takes_times_in_between(server: Client):
    """It asks the scheduler for steps / denoise times, more than there are, and takes the last."""
    for family in ("sd15", "sd3"):
        g = Branches(family)
        g.keep("low", g.sample("stock", g.random(), steps=20, denoise=0.01))
        assert g.run(server).latent("low").isfinite().all()


@pytest.mark.parametrize("route", [route for route in w.ROUTES if route != "stock"])
def test_more_steps_than_times_are_refused_with_how_many_there_are(server: Client, route: str):
    g = Branches("sd3")
    check(refusal(server, g, g.sample(route, g.empty(), steps=1001)), "1001 steps .*more than the 1000 times")


def test_more_steps_than_a_denoise_leaves_are_refused_with_how_many_there_are(server: Client):
    for route in ("ksampler_tcd", "custom"):
        g = Branches("sd15")
        check(refusal(server, g, g.sample(route, g.random(), steps=30, denoise=0.02)), "30 steps .*the 20 times")


@pytest.mark.parametrize("family", ("sd15", "sd3"))
def test_rising_sigmas_are_refused(server: Client, family: str):
    for route in ("ksampler_tcd", "custom"):
        g = Branches(family)
        flipped = g.add("FlipSigmas", sigmas=w.tcd_sigmas(g, g.setup, 3))
        if route == "custom":
            latent = w.sample_sigmas(g, g.setup, g.empty(), flipped)
        else:
            latent = g.sample(route, g.empty(), sigmas=flipped)
        check(refusal(server, g, latent), "noise levels must fall along a run, got times")


def test_sigmas_of_another_kind_of_model_are_refused(server: Client):
    """Stable Diffusion's 14.6 means nothing to a flow."""
    g = Branches("sd3")
    sigmas = g.add("KarrasScheduler", steps=3, sigma_max=14.6, sigma_min=0.03, rho=7.0)
    check(refusal(server, g, w.sample_sigmas(g, g.setup, g.empty(), sigmas)), r"flow.*\[0, 1\], got 14\.6")


@pytest.mark.parametrize("family", ("sd15", "sd3"))
def test_sigmas_that_are_no_numbers_are_refused_rather_than_sampled(server: Client, family: str):
    """The host's kl_optimal divides by zero at one step."""
    g = Branches(family)
    latent = w.ksampler(g, g.setup.model, g.empty(), g.setup, scheduler="kl_optimal", steps=1)
    check(refusal(server, g, latent), "sigmas hold NaN.*use more", "KSampler")


def test_numbers_out_of_a_widget_s_range_are_refused_before_the_run(server: Client):
    for setting in ({"gamma": 1.1}, {"gamma": -0.1}, {"steps": 0}, {"denoise": 1.5}):
        g = Branches("sd3")
        refused = refusal(server, g, g.sample("ksampler_tcd", g.empty(), **setting))
        assert refused.kind == "validation" and refused.node_type == "TCDToolkit_KSampler"
        assert next(iter(setting)) in refused.exception_message


def test_orders_and_shapes_that_do_not_exist_are_refused(server: Client):
    """By the host, or, where it does not look at a new-style node's choices, by the node."""
    g = Branches("sd3")
    assert "order" in str(refusal(server, g, g.sample("ksampler_tcd", g.empty(), order="3")))
    g = Branches("sd3")
    latent = g.sample("ksampler_tcd", g.empty(), gamma_schedule=g.gamma_schedule("steep"))
    assert "shape" in str(refusal(server, g, latent))
