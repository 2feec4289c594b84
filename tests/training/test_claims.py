"""Claims and sentences of a report: every one of them follows the numbers."""

import pytest
from report_figures import AS_IN_THE_PAPER, THE_OTHER_WAY, measured, recipe

from training.claims import claims, compare, saturation, student_sentence
from training.report import Results, to_json, to_markdown


def verdicts(report):
    return {claim.text: claim.holds for claim in claims(report)}


def starting(found, text):
    return [holds for claim, holds in found.items() if claim.startswith(text)]


# -- claims --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "sign"),
    [
        ((1.0, 0.3, 3), (1.4, 0.2, 3), -1),  # 0.4 apart, hypot(.3, .2) = .36
        ((1.0, 0.3, 3), (1.4, 0.3, 3), 0),
        ((1.4, 0.3, 3), (1.0, 0.2, 3), 1),
        ((1.0, 0.2, 3), (1.4, 0.0, 1), -1),  # measured once: given the other's, .28
        ((1.0, 0.3, 3), (1.4, 0.0, 1), 0),
        ((1.0, 0.0, 1), (1.1, 0.0, 1), 0),  # both measured once: nothing says how much they vary
    ],
)
def test_figures_differ_where_they_lie_further_apart_than_their_spreads(a, b, sign):
    assert compare(*(dict(zip(("mean", "std", "n"), cell, strict=True)) for cell in (a, b))) == sign


def test_every_verdict_follows_the_numbers():
    good, bad = (verdicts(to_json(measured(figures))) for figures in (AS_IN_THE_PAPER, THE_OTHER_WAY))
    assert good.keys() == bad.keys()
    assert len(good) == 12
    assert set(good.values()) == {True}
    assert set(bad.values()) == {False}


def test_noise_decides_nothing():
    found = verdicts(to_json(measured(AS_IN_THE_PAPER, noise=20.0)))
    assert set(found.values()) == {None}


def test_claims_about_detail_follow_the_complexities():
    def report(*by_gamma, lcm):
        results = measured(AS_IN_THE_PAPER)
        for gamma, value in zip((0.0, 0.2, 1.0), by_gamma, strict=True):
            results.add("complexity", "tcd", 4, value, 0, 0, gamma)
            results.add("complexity", "tcd", 4, value + 0.001, 1, 0, gamma)
        results.add("complexity", "lcm", 4, lcm, 0, 0)
        return verdicts(to_json(results))

    for found, holds in ((report(0.3, 0.4, 0.5, lcm=0.35), True), (report(0.5, 0.4, 0.3, lcm=0.45), False)):
        assert starting(found, "Detail (image complexity) grows") == [holds]
        assert starting(found, "TCD's pictures have more detail") == [holds]
    assert starting(report(0.3, 0.2, 0.5, lcm=0.35), "Detail (image complexity) grows") == [False]  # falls between


def test_the_papers_own_figures_are_judged_as_well():
    found = {claim.text: claim for claim in claims(to_json(measured(AS_IN_THE_PAPER)))}
    there = found["TCD is below every numerical solver on the teacher at 8 steps"]
    assert (there.paper, there.paper_holds) == ("13.64 > DPM++(2S) 12.49", False)
    assert found["LCM gets worse from 4 to 20 steps"].paper == "15.03 < 18.13"
    assert sum(claim.paper_holds is False for claim in found.values()) == 1


def test_the_report_shows_verdicts_and_figures():
    text = to_markdown(to_json(measured(THE_OTHER_WAY)))
    assert "Of 12 that these figures can test, 0 hold, 12 do not, and 0 lie within the spread" in text
    assert "| **no** | 1.90 ± 0.01 > 1.30 ± 0.01 (lower on 0 of 3 seeds) | 12.68 < 15.03 |" in text
    text = to_markdown(to_json(measured(AS_IN_THE_PAPER)))
    assert "12 hold, 0 do not" in text
    assert "| yes | 0.66 ± 0.01 < 1.40 ± 0.01 (lower on 3 of 3 seeds) | 12.68 < 15.03 |" in text


# -- sentences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, "The weights carry most of it: at γ = 0.2 LCM's weights do worse than TCD's at 2, 4, 8 and 20 steps; "),
        ({("lcm", 0.2): (1.2, 0.66, 0.67, 0.68)}, "The sampler carries all of it: at γ = 0.2 LCM's weights tie with"),
        ({("lcm", 0.2): (1.2, 0.7, 0.67, 0.68)}, "The sampler carries most of it: at γ = 0.2 LCM's weights tie with"),
        ({("lcm", 0.2): (1.0, 0.5, 0.5, 0.5)}, "The sampler carries all of it and TCD's weights cost something: "),
        ({("lcm", 0.2): (2.1, 1.5, 1.6, 1.8)}, "The weights carry it: at γ = 0.2 LCM's weights do worse than TCD's"),
        ({("lcm", 0.2): (1.2, 0.66, 0.67, 0.68), ("lcm", 1.0): (1.2, 0.66, 0.67, 0.68)}, "Neither the sampler nor"),
    ],
)
def test_the_sentence_on_weights_and_sampler_is_earned(changed, sentence):
    report = to_json(measured(AS_IN_THE_PAPER | changed))
    assert student_sentence(report).startswith(sentence)
    assert student_sentence(report) in to_markdown(report)


def test_the_sentence_names_the_steps_at_which_the_sampler_helps_and_hurts():
    report = to_json(measured(AS_IN_THE_PAPER | {("lcm", 0.2): (2.2, 0.66, 0.6, 1.7)}))
    assert student_sentence(report) == (
        "The weights carry most of it: at γ = 0.2 LCM's weights tie with TCD's within the spread at 4 steps, and do "
        "worse than TCD's at 2 and 20 steps, and do better than TCD's at 8 steps; their own distance falls at 4 and 8 "
        "steps and rises at 2 steps when γ goes from 1 to 0.2."
    )


@pytest.mark.parametrize(
    ("floor", "floor_range", "sentence"),
    [
        (0.3, None, "Not saturated: TCD is nearest to the floor at 4 steps, 2.20 times it."),
        (0.655, None, "Saturated: at 4 steps TCD"),
        (0.5, (0.45, 0.7), "Saturated: at 4, 8 and 20 steps TCD"),
        (0.5, (0.45, 0.6), "Not saturated"),
    ],
)
def test_saturation_is_said_where_tcd_reaches_the_floor(floor, floor_range, sentence):
    ranges = {"fd": floor_range} if floor_range else {}
    report = to_json(measured(AS_IN_THE_PAPER, floors={"fd": floor}, floor_ranges=ranges))
    assert saturation(report).startswith(sentence)
    assert saturation(report) in to_markdown(report)


def test_what_one_training_seed_cannot_say_is_said():
    text = "With one training seed ± does not say"
    assert text in to_markdown(to_json(measured(AS_IN_THE_PAPER)))
    assert text not in to_markdown(to_json(measured(AS_IN_THE_PAPER, training_seeds=3)))


def test_figures_from_the_validation_split_are_marked():
    results = Results(recipe(against="validation"), "abc", 300)
    assert "not for publication" in to_markdown(to_json(results))
    assert "not for publication" not in to_markdown(to_json(measured(AS_IN_THE_PAPER)))


def test_a_recipe_at_lcms_gamma_has_no_two_by_two():
    results = Results(recipe(gamma=1.0), "abc", 10)
    for method in ("lcm", "tcd"):
        results.add("fd", method, 4, 1.0, 0, 0)
    assert student_sentence(to_json(results)) is None
    assert "weights or the sampler" not in to_markdown(to_json(results))
