"""What a run can compare beside TCD and LCM: students that differ from its own in one thing, on equal budgets.

A comparison is a table of the report. Its students have the run's recipe but for what they are named after: the same
optimiser steps, batches and seeds. All are sampled as TCD is, by SSS at the run's γ, LCM's weights too: so that a table
tells trainings apart, not samplers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .catalogue import FORM_TITLES, FORMS, Group, Method
from .recipe import Recipe, lcm_baseline, replaced, with_form


class Comparison(NamedTuple):
    """A table. students: name → (title, its recipe made from the run's).

    The row of the run's own TCD student has the title of the student whose recipe is the run's, or else "as this run".
    """

    title: str
    about: str
    students: dict[str, tuple[str, Callable[[Recipe], Recipe]]]


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """name → recipe of every student that the recipe's comparisons add to the run's own."""
    made = {
        name: changed(recipe) for of in recipe.comparisons for name, (_, changed) in COMPARISONS[of].students.items()
    }
    return {name: variant for name, variant in made.items() if variant != recipe}


def described(recipe: Recipe) -> tuple[dict[str, Method], dict[str, Group]]:
    """Methods and groups of the recipe's comparisons, as `Results` takes them."""
    methods, groups, gamma = {}, {}, recipe.measure.gamma
    for name in recipe.comparisons:
        title, about, students = COMPARISONS[name]
        titles = {student: of for student, (of, _) in students.items()}
        own = next((student for student, (_, changed) in students.items() if changed(recipe) == recipe), f"{name}_own")
        titles.setdefault(own, "as this run")
        methods |= {student: Method(of, "student", gamma, group=name) for student, of in titles.items()}
        groups[name] = Group(title, about, own)
    return methods, groups


def _form(form: str) -> Callable[[Recipe], Recipe]:
    return lambda recipe: recipe if recipe.objective.form == form else with_form(recipe, form)


def _tcd(**sections: dict) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replaced(recipe, **sections)


def _lcm(**sections: dict) -> Callable[[Recipe], Recipe]:
    return lambda recipe: replaced(lcm_baseline(recipe), **sections)


def _drawn_w(recipe: Recipe) -> Recipe:
    """w ~ U[0, 2 w̄] about the run's middle w̄."""
    return replaced(recipe, objective={"w_min": 0.0, "w_max": recipe.objective.w_min + recipe.objective.w_max})


def _drawn_s(lower_share: float) -> Callable[[Recipe], Recipe]:
    return _tcd(end_times={"draw": "integers", "draws": 1, "lower_share": lower_share})


MIN_SNR, UNWEIGHTED = {"weight": "min_snr", "min_snr_clip": 5.0}, {"weight": "none"}
COMPARISONS = {
    "forms": Comparison(
        FORMS.title,
        FORMS.about,
        {form: (title, _form(form)) for form, title in FORM_TITLES.items()},
    ),
    "weights": Comparison(
        "Weights ω of the loss",
        "min-SNR is min(SNR(t), 5) in units of x_0's error.",
        {
            "tcd_min_snr": ("TCD, min-SNR", _tcd(objective=MIN_SNR)),
            "tcd_unweighted": ("TCD, ω = 1", _tcd(objective=UNWEIGHTED)),
            "lcm_min_snr": ("LCM, min-SNR", _lcm(objective=MIN_SNR)),
            "lcm_unweighted": ("LCM, ω = 1", _lcm(objective=UNWEIGHTED)),
        },
    ),
    "end_times": Comparison(
        "End times s of the training",
        "s is 0 with a probability, else spread evenly over [0, t_n]: drawn, or by the loss's exact mean over s.",
        {
            **{f"ends_{p}": (f"s drawn, 0 for {p} %", _drawn_s(p / 100)) for p in (0, 25, 50, 75)},
            "ends_exact": (
                "exact mean, s = 0 for 25 %",
                _tcd(end_times={"draw": "exact", "draws": 1, "lower_share": 0.25}),
            ),
            "ends_100": ("s = 0 always (LCM's weights)", _lcm()),
        },
    ),
    "segments": Comparison(
        "Segments of the trajectory",
        "s stays in the segment that t_n is in; several numbers are stages of the training, of equal length.",
        {
            "segments_1": ("one segment", _tcd(end_times={"segments": [1]})),
            "segments_8421": ("segments 8 → 4 → 2 → 1 (TSCD)", _tcd(end_times={"segments": [8, 4, 2, 1]})),
            "segments_pcm": (
                "4 segments, s their lower ends (PCM)",
                _tcd(end_times={"draw": "integers", "draws": 1, "segments": [4], "lower_share": 1.0}),
            ),
        },
    ),
    "guidance": Comparison(
        "Guidance w of the teacher's solver",
        "w fixed, or drawn for each sample: the network is not told which, and learns their mean.",
        {
            "w_fixed": ("TCD, w fixed", lambda recipe: recipe),
            "w_drawn": ("TCD, w drawn from [0, 2 w]", _drawn_w),
            "lcm_w_fixed": ("LCM, w fixed", _lcm()),
            "lcm_w_drawn": ("LCM, w drawn from [0, 2 w]", lambda recipe: _drawn_w(lcm_baseline(recipe))),
        },
    ),
}
