import json
import random
import sys
from typing import get_args

import pytest

from training.recipe import (
    Objective,
    Recipe,
    RecipeError,
    Teacher,
    build,
    dump_toml,
    lcm_baseline,
    load_recipe,
    recipe_hash,
    replaced,
    shipped_recipes,
    with_form,
)
from training.recipe_words import fields, is_section, limits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LEAVES = {name: info for name, info in fields().items() if not is_section(info)}
OTHER = {
    "comparisons": ("forms",),  # where the rule of `varied` does not hold
    "name": "other",
    "objective.skip": 20,
    "objective.w_min": 0.1,
    "objective.w_max": 2.0,
    "teacher.width": 64,
    "end_times.segments": [8, 4, 2, 1],
    "measure.steps": [1, 4],
    "measure.gammas": [0.0, 1.0],
    "family": "sd15",
    "model.resolution": 768,
    "data.bucket_step": 32,
    "validation.prompts": ["a cat", 'a "dog"'],
    "validation.steps": [1, 4],
    "validation.trackers": [],
}
NEEDS = {"memory.shard": {"student": {"kind": "full"}}}  # what a field's other value goes with


def nested(name: str, value) -> dict:
    section, _, key = name.rpartition(".")
    return {section: {key: value}} if section else {key: value}


def write(tmp_path, text: str, name: str = "mine.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(values: dict) -> str:
    with pytest.raises(RecipeError) as error:
        build(values)
    return str(error.value)


def varied(name: str) -> Recipe:
    """The default recipe with another value in one field, and v-prediction, which every other value goes with."""
    default = LEAVES[name].default
    if name in OTHER:
        value = OTHER[name]
    elif isinstance(default, bool):
        value = not default
    elif isinstance(default, str):
        choices = get_args(LEAVES[name].annotation) or ["C:\\some where", default]
        value = next(choice for choice in choices if choice != default)
    else:
        value = default + 1 if isinstance(default, int) else default / 2 or 0.25
    return replaced(build({"teacher": {"prediction": "v_prediction"}}), **NEEDS.get(name, {}), **nested(name, value))


@pytest.mark.parametrize("name", fields())
def test_every_field_says_what_it_is(name):
    assert len(fields()[name].description) > 10


@pytest.mark.parametrize("name", [n for n, i in LEAVES.items() if type(i.default) in (int, float)])
def test_every_number_has_a_range(name):
    assert limits(LEAVES[name])


def test_defaults_lie_in_their_ranges():
    assert build(Recipe().model_dump(mode="json")) == Recipe()


def test_recipes_are_frozen_down_to_their_sections():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().training.lr = 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"lrr": 1}}, "training.lrr is no field of the recipe; did you mean training.lr?"),
        ({"trainin": {}}, "trainin is no field of the recipe; did you mean training?"),
        ({"lr": 1}, "lr is no field of the recipe; did you mean teacher.lr or training.lr?"),
        ({"objective": {"kind": "full"}}, "objective.kind is no field of the recipe; did you mean student.kind?"),
        ({"xyzzyx": 1}, "xyzzyx is no field of the recipe"),
    ],
)
def test_wrong_keys_are_refused_with_the_right_spelling(values, message):
    assert refused(values) == message


@pytest.mark.parametrize(
    ("name", "value", "must_be"),
    [
        ("training.lr", 3.0, "a number in (0, 1], got 3.0"),
        ("training.lr", 0, "a number in (0, 1], got 0"),
        ("training.lr", "fast", 'a number in (0, 1], got "fast"'),
        ("training.lr", True, "a number in (0, 1], got true"),
        ("training.clip", float("inf"), "a number, at least 0, got Infinity"),
        ("training.clip", float("nan"), "a number, at least 0, got NaN"),
        ("training.explode", 1.0, "a number, above 1, got 1.0"),
        ("training.steps", 0, "a whole number, at least 1, got 0"),
        ("training.steps", 2.5, "a whole number, at least 1, got 2.5"),
        ("training.steps", "300", 'a whole number, at least 1, got "300"'),
        ("teacher.ema", 1, "a number in [0, 1), got 1"),
        ("teacher.width", 40, "a whole number, a multiple of 32 in [64, 1024], got 40"),
        ("teacher.prediction", "eps", 'one of epsilon, v_prediction, sample, flow, got "eps"'),
        ("objective.guided", 1, "true or false, got 1"),
        ("end_times.segments", [4, 0], "one or more whole numbers, each in [1, 1000], got 0"),
        ("end_times.segments", 4, "one or more whole numbers, each in [1, 1000], got 4"),
        ("measure.gammas", [], "one or more numbers, each in [0, 1], got []"),
        ("name", "a/b", 'letters, digits, - and _, at most 64, got "a/b"'),
        ("training", 3, "a table of fields, got 3"),
    ],
)
def test_wrong_values_are_refused_with_what_is_expected(name, value, must_be):
    assert refused(nested(name, value)) == f"{name} must be {must_be}"


def test_all_errors_are_told_at_once():
    assert len(refused({"training": {"lr": 2, "stepss": 1}, "seed": -1}).splitlines()) == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": {"w_min": 2}}, "objective.w_min must not exceed objective.w_max, got 2 and 0.3"),
        ({"objective": {"skip": 30}}, "objective.skip must divide N = 1000, got 30: 25 does"),
        ({"training": {"accumulation": 3}}, "training.accumulation must divide training.batch, got 3 and 64"),
        ({"measure": {"steps": [2, 4, 2]}}, "measure.steps must not repeat a value, got 2, 4, 2"),
        ({"end_times": {"draw": "exact", "draws": 4}}, "end_times.draws must be 1 where end_times.draw is exact"),
        ({"end_times": {"draws": 4}, "objective": {"form": "tcf2"}}, "end_times.draws must be 1 for objective.form"),
        ({"end_times": {"segments": [21]}}, "end_times.segments must not exceed 20"),
        ({"end_times": {"segments": [4, 2]}, "training": {"steps": 1}}, "end_times.segments has 2 stages for"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(values, message):
    assert refused(values).startswith(message)


@pytest.mark.parametrize("objective", [{"form": "tcf2"}, {"form": "tcf_s_plus"}, {"distance": "pseudo_huber"}])
def test_exact_end_times_need_tcf1_and_squared_l2(objective):
    exact = {"draw": "exact"}
    assert build({"end_times": exact, "objective": {"distance": "l2", "form": "tcf1"}}).end_times.draw == "exact"
    assert "end_times.draw exact needs" in refused({"end_times": exact, "objective": objective})


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_zero_terminal_snr_needs_a_prediction_that_holds_at_pure_noise(prediction):
    teacher = {"prediction": prediction, "zero_terminal_snr": True}
    if prediction in ("v_prediction", "sample"):
        assert build({"teacher": teacher}).teacher.zero_terminal_snr
    else:
        assert "teacher.zero_terminal_snr needs teacher.prediction v_prediction or sample" in refused(
            {"teacher": teacher}
        )


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load_under_their_names(name):
    assert load_recipe(name).name == name
    assert len(shipped_recipes()[name]) > 20


def test_the_table_differs_from_the_default_in_its_training_seeds_alone():
    assert load_recipe("digits-table") == replaced(load_recipe("digits"), name="digits-table", training_seeds=3)


def test_an_unknown_recipe_is_answered_with_those_there_are():
    with pytest.raises(RecipeError, match="no recipe digit; did you mean digits.*Shipped: digits, digits-table"):
        load_recipe("digit")


def test_a_file_holds_what_differs_and_names_its_run(tmp_path):
    recipe = load_recipe(write(tmp_path, "[training]\nlr = 1\n", "my run.v2.toml"))
    assert recipe == replaced(Recipe(), name="my-run-v2", training={"lr": 1.0})
    assert load_recipe(write(tmp_path, '\ufeffname = "given"\n')).name == "given"


def test_a_syntax_error_names_file_and_line(tmp_path):
    with pytest.raises(RecipeError, match=r"mine\.toml is no TOML file: .*line 2"):
        load_recipe(write(tmp_path, 'name = "x"\nseed = = 3\n'))


def test_an_error_in_a_file_names_the_file(tmp_path):
    with pytest.raises(RecipeError, match=r"mine\.toml: training\.lrr is no field"):
        load_recipe(write(tmp_path, "[training]\nlrr = 1\n"))


@pytest.mark.parametrize("name", ["none.toml", "folder.toml"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(RecipeError, match=f"cannot read the recipe .*{name}: "):
        load_recipe(tmp_path / name)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "weights.toml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(RecipeError, match=r"weights\.toml is no TOML file"):
        load_recipe(tmp_path / "weights.toml")


@pytest.mark.parametrize("name", LEAVES)
def test_the_resolved_recipe_loads_back_equal(tmp_path, name):
    recipe = varied(name)
    assert load_recipe(write(tmp_path, dump_toml(recipe))) == recipe


def test_the_resolved_recipe_holds_every_field_with_its_meaning():
    text = dump_toml(Recipe())
    assert tomllib.loads(text) == Recipe().model_dump(mode="json")
    words = " ".join(line.strip("# ") for line in text.splitlines())
    assert all(info.description in words for info in LEAVES.values())


def test_small_and_large_numbers_survive_toml(tmp_path):
    recipe = build({"training": {"lr": 1e-12, "explode": 1e22, "clip": 0.1 + 0.2}})
    assert load_recipe(write(tmp_path, dump_toml(recipe))) == recipe


def test_the_hash_does_not_depend_on_how_the_recipe_is_written(tmp_path):
    lines = dump_toml(Recipe()).split("\n[")
    top, tables = lines[0], [f"[{table}" for table in lines[1:]]
    random.Random(0).shuffle(tables)
    shuffled = write(tmp_path, "\n".join([top, *tables]))
    assert recipe_hash(load_recipe(shuffled)) == recipe_hash(Recipe()) == recipe_hash(build({"name": "digits"}))
    assert recipe_hash(build({"student": {"alpha": 16}})) == recipe_hash(build({"student": {"alpha": 16.0}}))
    assert len(recipe_hash(Recipe())) == 64 and int(recipe_hash(Recipe()), 16)


def test_the_hash_changes_with_any_field():
    recipes = [varied(name) for name in LEAVES]
    assert len({recipe_hash(recipe) for recipe in recipes}) == len(recipes) > 40


def test_replaced_keeps_the_rest_of_a_section_and_checks():
    recipe = replaced(build({"training": {"lr": 0.5}}), seed=3, training={"steps": 7})
    assert (recipe.seed, recipe.training.lr, recipe.training.steps) == (3, 0.5, 7)
    with pytest.raises(RecipeError, match=r"training\.stesp is no field"):
        replaced(recipe, training={"stesp": 7})


@pytest.mark.parametrize("draw", [{"draw": "exact"}, {"draw": "grid", "draws": 4}, {"segments": [8, 4, 2, 1]}])
def test_the_lcm_baseline_differs_in_its_end_times_alone(draw):
    recipe = build({"end_times": draw, "objective": {"weight": "min_snr"}, "training": {"steps": 77}})
    lcm = lcm_baseline(recipe)
    assert (lcm.end_times.lower_share, lcm.end_times.segments, lcm.end_times.draws) == (1.0, (1,), 1)
    assert lcm.model_copy(update={"end_times": recipe.end_times}) == recipe


def test_the_lcm_baseline_of_another_form_is_tcf1():
    recipe = build({"objective": {"form": "tcf_s_plus", "w_max": 3}})
    assert lcm_baseline(recipe).objective == recipe.objective.model_copy(update={"form": "tcf1"})


@pytest.mark.parametrize("end_times", [{"draw": "exact"}, {"draw": "integers", "draws": 8}, {"draw": "grid"}])
@pytest.mark.parametrize("form", ["tcf1", "tcf2", "tcf_s_plus"])
def test_every_recipe_can_be_given_every_form(form, end_times):
    recipe = build({"end_times": {**end_times, "lower_share": 0.25}})
    other = with_form(recipe, form)
    assert other.objective.form == form and other.end_times.lower_share == 0.25
    if form == "tcf1":
        assert other == recipe
    else:
        assert other.end_times.draws == 1 and other.end_times.draw in ("integers", "grid")


def test_forms_and_predictions_are_those_of_the_mathematics():
    from tcd_core.predictions import Prediction
    from tcd_core.tcf import Form

    assert get_args(Teacher.model_fields["prediction"].annotation) == get_args(Prediction)
    assert get_args(Objective.model_fields["tcf2_form"].annotation) == get_args(Form)


def test_a_recipe_is_plain_json():
    assert json.loads(json.dumps(Recipe().model_dump(mode="json"))) == Recipe().model_dump(mode="json")
