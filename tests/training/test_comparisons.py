"""Comparisons: students that differ from the run's own in what they are named after, and in nothing else."""

import pytest

from training.comparisons import COMPARISONS, described, variants
from training.phases import student_phases, trained_phases
from training.recipe import Recipe, lcm_baseline, load_recipe, replaced

ALL = tuple(COMPARISONS)
SECTIONS = {  # that a comparison may change
    "forms": {"objective.form", "end_times.draw", "end_times.draws"},
    "weights": {"objective.weight", "objective.min_snr_clip"},
    "end_times": {"end_times.draw", "end_times.draws", "end_times.lower_share"},
    "segments": {"end_times.segments", "end_times.draw", "end_times.draws", "end_times.lower_share"},
    "guidance": {"objective.w_min", "objective.w_max"},
}


def changed(a: Recipe, b: Recipe) -> set[str]:
    """The fields in which two recipes differ."""
    a, b = a.model_dump(), b.model_dump()
    found = set()
    for name in a:
        if isinstance(a[name], dict):
            found |= {f"{name}.{key}" for key in a[name] if a[name][key] != b[name][key]}
        elif a[name] != b[name]:
            found.add(name)
    return found


@pytest.mark.parametrize("draw", ["exact", "integers"])
@pytest.mark.parametrize("name", ALL)
def test_students_differ_in_what_they_are_named_after(name, draw):
    recipe = replaced(load_recipe("digits"), comparisons=[name], end_times={"draw": draw})
    found = variants(recipe)
    assert found and all(variant != recipe for variant in found.values())
    for student, variant in found.items():
        base = lcm_baseline(recipe) if student.startswith("lcm_") or student == "ends_100" else recipe
        assert changed(base, variant) <= SECTIONS[name], student
        assert variant.training == recipe.training and variant.seed == recipe.seed


def test_the_run_s_own_student_has_a_row_in_every_table_and_is_not_trained_again():
    recipe = replaced(load_recipe("digits"), comparisons=ALL)
    methods, groups = described(recipe)
    owns = {name: methods[group.own].title for name, group in groups.items()}
    assert owns == {
        "forms": "TCF(1)",
        "weights": "TCD, min-SNR",
        "end_times": "exact mean, s = 0 for 25 %",
        "segments": "one segment",
        "guidance": "TCD, w fixed",
    }
    assert not {group.own for group in groups.values()} & {phase.name for phase in student_phases(recipe)}
    other = replaced(recipe, comparisons=["end_times"], end_times={"lower_share": 0.1})
    methods, groups = described(other)
    assert methods[groups["end_times"].own].title == "as this run"


def test_students_with_one_recipe_are_trained_once():
    recipe = replaced(load_recipe("digits"), comparisons=ALL)
    every, trained = student_phases(recipe), trained_phases(recipe)
    assert len({phase.recipe.model_dump_json() for phase in trained}) == len(trained)
    served = {phase.name: phase.trained for phase in every if phase.trained != phase.name}
    assert served == {"lcm_min_snr": "lcm", "ends_100": "lcm", "lcm_w_fixed": "lcm"}
    assert {phase.name for phase in every} - served.keys() == {phase.name for phase in trained}
    without = replaced(recipe, baseline=False)
    assert {phase.trained for phase in student_phases(without) if phase.name in served} == {"lcm_min_snr"}


def test_a_run_without_comparisons_trains_tcd_and_lcm():
    recipe = load_recipe("digits")
    assert variants(recipe) == {} and described(recipe) == ({}, {})
    assert [phase.name for phase in student_phases(recipe)] == ["tcd", "lcm"]


def test_drawn_guidance_has_the_fixed_one_s_mean():
    recipe = replaced(load_recipe("digits"), comparisons=["guidance"], objective={"w_min": 0.5, "w_max": 0.5})
    objective = variants(recipe)["w_drawn"].objective
    assert (objective.w_min, objective.w_max) == (0.0, 1.0)
