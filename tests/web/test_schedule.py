"""web/schedule.js against tcd_core, over a grid of settings, in node or in Chromium."""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tcd_core import FlowSchedule, GammaSchedule, VPSchedule, explicit_times, inference_times, plan
from tcd_core.gamma import SHAPES, gamma_per_step
from tcd_core.schedules import shift_time

MODULE = Path(__file__).resolve().parents[2] / "web" / "schedule.js"
NO_ENGINE = "no JavaScript: `apt-get install nodejs`, or chromium and `pip install playwright`, run these"
VP = VPSchedule.scaled_linear()
TOLERANCE = 1e-12  # relative; of gamma and sigma near 0, absolute

# One case in, one answer out: {times, steps} or {error}. `js` is the module.
ANSWER = """
(js, { shift, total, settings, gamma, lands, part }) => {
  try {
    const schedule = shift ? js.flowSchedule(shift, total) : js.vpSchedule();
    const text = typeof gamma?.values === "string";
    const schedules = gamma && typeof gamma === "object" && !Array.isArray(gamma);
    if (text) gamma = { ...gamma, values: js.parseNumbers(gamma.values) };
    if (schedules) gamma = js.gammaSchedule(gamma);
    if (typeof settings.times === "string") settings.times = js.parseNumbers(settings.times, "times");
    const times = js.runTimes(schedule, settings);
    let steps = js.plan(schedule, times, gamma, lands ?? true);
    if (part) steps = js.stage(schedule, steps, ...part).filter((step) => step.active);
    return { times, steps };
  } catch (error) {
    if (!(error instanceof js.SettingError)) throw error;
    return { error: error.message };
  }
}
"""


def under_node(node: str) -> Callable[[list[dict]], list[dict]]:
    script = f"""
        import * as js from {json.dumps(MODULE.as_uri())};
        import {{ readFileSync }} from "node:fs";
        const answer = {ANSWER};
        const cases = JSON.parse(readFileSync(0, "utf8"), (_, v) => (v?.special ? Number(v.special) : v));
        process.stdout.write(JSON.stringify(cases.map((one) => answer(js, one))));
    """

    def run(cases: list[dict]) -> list[dict]:
        command = [node, "--input-type=module", "-e", script]
        done = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def under_chromium() -> Iterator[Callable[[list[dict]], list[dict]]]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip(NO_ENGINE)
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip(NO_ENGINE)
    source = "data:text/javascript;base64," + b64encode(MODULE.read_bytes()).decode()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page()
        script = f"""async ([source, text]) => {{
            const js = await import(source), answer = {ANSWER};
            const cases = JSON.parse(text, (_, v) => (v?.special ? Number(v.special) : v));
            return JSON.stringify(cases.map((one) => answer(js, one)));
        }}"""
        yield lambda cases: json.loads(page.evaluate(script, [source, json.dumps(cases)]))
        browser.close()


@pytest.fixture(scope="module")
def answers() -> Iterator[Callable[[list[dict]], list[dict]]]:
    """Runs cases through the module; {"special": "NaN"} stands for what JSON cannot say."""
    if node := shutil.which("node"):
        yield under_node(node)
    else:
        yield from under_chromium()


def expected(case: dict) -> list[tuple[float, ...]]:
    """(t, s, n, gamma, b) of each step by tcd_core; ValueError where it refuses.

    The entry of a flow's table that an index stands for, and what explicit times count on a finer one, is tcd_sigmas'
    rule in nodes/host.py, which only the host's interpreter can import.
    """
    settings, shift = case["settings"], case.get("shift")
    strength, total = settings.get("denoise", 1.0), case.get("total", 1000)
    if settings.get("times"):
        times = explicit_times(settings["times"], strength=strength)
        times = [(t + 1) * (total // 1000) - 1 for t in times]
    else:
        grid = {"original_inference_steps": settings.get("originalSteps", 50), "dense": "when needed"}
        times = inference_times(settings["steps"], num_train_timesteps=total, strength=strength, **grid)
    schedule = VP
    if shift:
        schedule, times = FlowSchedule(), [shift_time((t + 1) / total, shift) for t in times]
    gamma = case["gamma"]
    if isinstance(gamma, dict):
        gamma = GammaSchedule(**{**gamma, "values": tuple(gamma.get("values", ()))})
    steps = plan(schedule, times, gamma, lands=case.get("lands", True))
    return [(step.t.t, step.s.t, step.n.t, step.gamma, step.b) for step in steps]


def assert_equal(answer: dict, wanted: list[tuple[float, ...]], case: dict) -> None:
    assert "error" not in answer, (answer, case)
    got = [tuple(step[name] for name in ("t", "s", "n", "gamma", "sigma")) for step in answer["steps"]]
    assert len(got) == len(wanted), case
    np.testing.assert_allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE, err_msg=str(case))


def check(answers, cases: list[dict]) -> None:
    """The module's answers are tcd_core's; where tcd_core refuses, so does the module."""
    refused = 0
    for case, answer in zip(cases, answers(cases), strict=True):
        try:
            wanted = expected(case)
        except ValueError:
            refused += 1
            assert answer.get("error"), case
            continue
        assert_equal(answer, wanted, case)
    assert refused < len(cases) / 2


GAMMAS = (0.0, 0.001, 0.3, 0.77, 1.0)
SHAPED = [
    {"shape": shape, "start": start, "end": end, "exponent": exponent}
    for shape in SHAPES[:-1]
    for start, end, exponent in ((0.5, 0.1, 2.0), (0.0, 1.0, 0.05), (1.0, 0.25, 20.0))
]


@pytest.mark.parametrize("shift", [None, 1.0, 3.0])
def test_runs_of_one_gamma_are_tcd_core_s(answers, shift):
    """Steps 1 … 60 (the dense grid past 50), and every strength."""
    settings = [{"steps": n, "denoise": d} for n in range(1, 61) for d in (1.0, 0.8, 0.55, 0.3, 0.07)]
    check(answers, [{"shift": shift, "settings": s, "gamma": g} for s in settings for g in GAMMAS])


@pytest.mark.parametrize("shift", [None, 3.0])
def test_every_shape_is_tcd_core_s(answers, shift):
    draw = random.Random(0)
    lists = [[round(draw.random(), 3) for _ in range(length)] for length in (1, 2, 3, 7, 19, 60)]
    interpolated = [{"shape": "list", "values": values, "interpolate": True} for values in lists]
    settings = [{"steps": n, "denoise": d} for n in (1, 2, 3, 4, 8, 20, 51) for d in (1.0, 0.4)]
    gammas = (*SHAPED, *interpolated)
    check(answers, [{"shift": shift, "settings": s, "gamma": g} for s in settings for g in gammas])
    exact = [
        {"shift": shift, "settings": {"steps": len(values) + 1}, "gamma": {"shape": "list", "values": values}}
        for values in lists
    ]
    check(answers, exact)


def test_other_grids_and_explicit_times_are_tcd_core_s(answers):
    grids = [{"steps": n, "originalSteps": k} for n in (1, 4, 30) for k in (1, 7, 20, 100, 1000)]
    listed = [{"times": t, "denoise": d} for t in ([999, 759, 499, 259], [800, 1, 0], [5]) for d in (1.0, 0.5)]
    check(answers, [{"settings": s, "gamma": g} for s in (*grids, *listed) for g in (0.0, 0.3, 1.0, SHAPED[3])])


def test_flux_s_ten_thousand_times_are_tcd_core_s(answers):
    """Its table's, for every steps, strength and grid; explicit times count to 999 there too."""
    flux = {"shift": math.exp(1.15), "total": 10_000}
    grids = [(50, d) for d in (1.0, 0.8, 0.35, 0.07)] + [(k, 1.0) for k in (1, 7, 333, 1000, 10_000)]
    settings = [{"steps": n, "denoise": d, "originalSteps": k} for n in (1, 4, 7, 49, 60, 999) for k, d in grids]
    settings += [{"times": [999, 759, 499, 259], "denoise": d} for d in (1.0, 0.5)]
    check(answers, [{**flux, "settings": s, "gamma": 0.3} for s in settings])


def test_targets_round_as_the_reference_s_float32(answers):
    """Every hundredth of gamma at every time; in float64 677 of the pairs round otherwise."""
    times = list(range(999, 0, -1))
    gammas = [i / 100 for i in range(101)]
    in_float64 = 0
    cases = [{"settings": {"times": times}, "gamma": gamma} for gamma in gammas]
    for gamma, answer in zip(gammas, answers(cases), strict=True):
        targets = {step["n"]: step["s"] for step in answer["steps"][:-1]}
        assert targets == {t: VP.target_time(t, gamma) for t in times[1:]}
        in_float64 += sum(s != math.floor((1 - gamma) * t) for t, s in targets.items())
    assert in_float64 > 600


def test_a_run_that_stops_before_the_end_is_tcd_core_s(answers):
    cases = [{"settings": {"steps": n}, "gamma": g, "lands": False} for n in (2, 5, 50) for g in (0.0, 0.3, 1.0)]
    cases.append({"settings": {"steps": 4}, "gamma": {"shape": "list", "values": [0.1, 0.2, 0.3]}, "lands": False})
    check(answers, cases)


def test_stages_are_what_ksampler_advanced_runs(answers):
    """The whole run's gammas, cut; the last step of a stage lands unless it leaves noise over."""
    gamma = {"shape": "linear", "start": 0.9, "end": 0.1}
    cuts = [(s, e, left) for s, e in itertools.product((0, 1, 3), (2, 4, 10000)) for left in (True, False) if s < e]
    cases = [{"settings": {"steps": 5}, "gamma": gamma, "part": cut} for cut in cuts]
    times = inference_times(5)
    gammas = gamma_per_step(GammaSchedule(**gamma), [VP.progress(t) for t in times])
    for (start, end, leftover), answer in zip(cuts, answers(cases), strict=True):
        end = min(end, 5)
        lands = end == 5 or not leftover
        levels = times[start:end] if lands else times[start : end + 1]
        steps = plan(VP, levels, gammas[start:end], lands=lands)
        wanted = [(step.t.t, step.s.t, step.n.t, step.gamma, step.b) for step in steps]
        assert_equal(answer, wanted, {"stage": (start, end, leftover)})


HOSTILE = [{"special": "NaN"}, {"special": "Infinity"}, 1e308, -1, "abc", "<img src=x onerror=alert(1)>", None, [], {}]


def test_hostile_settings_are_refused_with_a_sentence(answers):
    """Each in each place; what JavaScript would take for a number (null, [], "") included."""
    fine = {"shape": "power", "start": 0.5, "end": 0.1, "exponent": 2.0}
    cases = [{"settings": {"steps": value}, "gamma": 0.3} for value in HOSTILE]
    cases += [{"settings": {"steps": 4}, "gamma": value} for value in HOSTILE if value not in ([], {})]
    cases += [{"settings": {"steps": 4}, "gamma": {**fine, name: v}} for name in fine for v in HOSTILE]
    cases += [{"settings": {"steps": 4, "denoise": v}, "gamma": 0.3} for v in HOSTILE if v != -1]
    cases += [{"settings": {"steps": 4, "originalSteps": v}, "gamma": 0.3} for v in HOSTILE]
    lists = ("abc", "0.1,nan,0", "1 2 3")
    cases += [{"settings": {"steps": 4}, "gamma": {"shape": "list", "values": v}} for v in lists]
    cases += [{"settings": {"times": v}, "gamma": 0.3} for v in ("1,2,3", "nan", "1e308, 4", "9.5, 1", "4, 4", "2, -1")]
    for case, answer in zip(cases, answers(cases), strict=True):
        if answer.get("error") is None:
            assert case["gamma"].get("exponent", 0) == 1e308, (case, answer)  # p^1e308 is 0, in tcd_core as well
        else:
            assert 10 < len(answer["error"]) < 300, answer


def test_long_lists_and_runs_stay_bounded(answers):
    ten_thousand = ", ".join(["0.5"] * 10_000)
    gamma = {"shape": "list", "values": ten_thousand}
    cases = [
        {"settings": {"steps": 4}, "gamma": gamma},
        {"settings": {"steps": 4}, "gamma": {**gamma, "interpolate": True}},
        {"settings": {"steps": 10_000}, "gamma": 0.3},
        {"settings": {"steps": 1000}, "gamma": 0.3},
        {"settings": {"steps": 4}, "gamma": {**gamma, "values": "0.5 " * 1_000_000}},
        {"settings": {"steps": 4}, "gamma": {**gamma, "values": "1" * 199_990 + "x"}},  # minutes, if it is tried anew
        {"settings": {"steps": 4}, "gamma": {**gamma, "values": "０．５，．25；0.5"}},
    ]
    unequal, joined, many, most, endless, no_number, wide = answers(cases)
    assert "'11111111111111111111' is not a number" in no_number["error"]
    assert [step["gamma"] for step in wide["steps"]][:3] == [0.5, 0.25, 0.5]
    assert "10000 values" in unequal["error"] and "needs 3" in unequal["error"]
    assert [step["gamma"] for step in joined["steps"]] == [0.5] * 4
    assert "10000 steps" in many["error"] and "too long" in endless["error"]
    assert len(most["steps"]) == 1000 and all(math.isfinite(step["sigma"]) for step in most["steps"])


def test_sentences_about_times_are_tcd_core_s(answers):
    listed = [([9.5, 1], 1.0), ([4, 4], 1.0), ([2, -1], 1.0), ([1000, 0.25], 1.0), ([1000, 2], 1.0)]
    listed += [([999, 759], 0.25), ([1234567, 2], 1.0), ([1e-5, 1e-6], 1.0), ([999, 759, 499, 259], 0.123456789)]
    cases = [{"settings": {"times": times, "denoise": denoise}, "gamma": 0.3} for times, denoise in listed]
    for case, answer in zip(cases, answers(cases), strict=True):
        with pytest.raises(ValueError) as refusal:
            expected(case)
        assert answer["error"] == str(refusal.value)
    for times in ([0.5, 0.0], [0.5, 0.7], [0.9]):  # a flow's, as t in (0, 1]
        case = {"shift": 3.0, "settings": {"times": times, "denoise": 0.5}, "gamma": 0.3}
        with pytest.raises(ValueError) as refusal:
            explicit_times(times, num_train_timesteps=None, strength=0.5)
        assert answers([case])[0]["error"] == str(refusal.value)


def test_sentences_about_gamma_are_tcd_core_s(answers):
    """What the plot says is what the node would say on Run."""
    gammas = [
        {"shape": "list", "values": [0.1, 0.2]},
        {"shape": "list", "values": [0.1]},
        {"shape": "list", "values": [], "interpolate": True},
        {"shape": "linear", "start": 1.5},
        {"shape": "power", "exponent": -1.0},
    ]
    cases = [{"settings": {"steps": 4}, "gamma": gamma} for gamma in gammas]
    for case, answer in zip(cases, answers(cases), strict=True):
        with pytest.raises(ValueError) as refusal:
            expected(case)
        say = str(refusal.value)
        assert answer["error"] in (say, say.replace("-1.0", "-1"))
