import os
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest

from training.cli import parse
from training.recipe import Recipe, dump_toml, load_recipe, recipe_hash, replaced
from training.recipe_words import fields, is_section, limits

ROOT = Path(__file__).parents[2]


def refused(capsys, *words: str) -> str:
    """The message for words that must be refused with status 2."""
    with pytest.raises(SystemExit) as stop:
        parse(words)
    out, message = capsys.readouterr()
    assert stop.value.code == 2 and not out and "Traceback" not in message
    return message


def helped(capsys, monkeypatch, *words: str) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        parse([*words, "--help"])
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_without_words_the_default_recipe_runs_in_its_folder():
    command = parse([])
    assert command.recipe == load_recipe("digits")
    assert (command.output, command.resume, command.overridden) == (Path("outputs/digits"), False, False)


@pytest.mark.parametrize("words", [["--training.steps", "7"], ["--training.steps=7"]])
def test_fields_are_given_by_dotted_name(words):
    command = parse(words)
    assert command.recipe == replaced(load_recipe("digits"), training={"steps": 7}) and command.overridden


def test_lists_switches_choices_and_dashes_for_underscores():
    words = ["--end-times.segments", "8", "4", "2", "1", "--end_times.lower-share", "0.25", "--objective.no_guided"]
    recipe = parse(
        [*words, "--comparisons", "forms", "weights", "--no-baseline", "--student.kind", "full", "--measure.steps=3"]
    ).recipe
    assert recipe.end_times.segments == (8, 4, 2, 1) and recipe.end_times.lower_share == 0.25
    assert (recipe.objective.guided, recipe.comparisons, recipe.baseline) == (False, ("forms", "weights"), False)
    assert recipe.student.kind == "full" and recipe.measure.steps == (3,)


def test_words_go_over_the_recipe_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[training]\nsteps = 9\nlr = 0.5\n")
    command = parse(["--recipe", str(path), "--training.lr", "0.25"])
    assert (command.recipe.training.steps, command.recipe.training.lr) == (9, 0.25)
    assert command.output == Path("outputs/mine") and command.overridden


def test_every_field_can_be_given_on_the_command_line():
    words = ["--recipe", "digits"]
    for name, info in fields().items():
        if is_section(info):
            continue
        if isinstance(info.default, bool):
            section, _, key = f"--{name}".rpartition(".")
            words += [f"--{name}" if info.default else f"{section}.no_{key}" if section else f"--no_{name}"]
        else:
            words += [f"--{name}", *map(str, info.default if isinstance(info.default, tuple) else [info.default])]
    assert recipe_hash(parse(words).recipe) == recipe_hash(Recipe())


@pytest.mark.parametrize(
    ("words", "overridden", "output"),
    [
        (["--resume"], False, None),
        (["--resume", "--output", "there"], False, Path("there")),
        (["--resume", "--recipe", "digits"], True, Path("outputs/digits")),
        (["--resume", "--name", "mine"], True, Path("outputs/mine")),
        (["--resume", "--comparisons", "forms"], True, None),
        (["--training.lr=0.5", "--resume"], True, None),
    ],
)
def test_resume_says_whether_a_recipe_was_given_and_which_folder_is_meant(words, overridden, output):
    command = parse(words)
    assert command.resume and command.overridden is overridden
    assert command.output == output and command.named is ("--output" in words)


def test_words_that_resume_go_over_the_run_s_own_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = replaced(load_recipe("digits"), name="mine", seed=3, training={"lr": 0.25})
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    (tmp_path / "outputs" / "mine" / "recipe.toml").write_text(dump_toml(recipe))
    assert parse(["--resume"]).recipe == recipe
    assert parse(["--resume", "--seed", "4"]).recipe == replaced(recipe, seed=4)
    assert parse(["--resume", "--recipe", "digits"]).recipe == load_recipe("digits")
    assert parse(["--seed", "4"]).recipe == replaced(load_recipe("digits"), seed=4)


@pytest.mark.parametrize(
    ("word", "suggested"),
    [
        ("--training.lrr", "--training.lr?"),
        ("--lr", "--teacher.lr or --training.lr?"),
        ("training.lr=0.5", "--training.lr?"),
        ("--out=there", "--output?"),
        ("--recipee", "--recipe?"),
        ("--objective.w-mn", "--objective.w_min?"),
    ],
)
def test_unknown_options_are_answered_with_the_right_spelling(capsys, word, suggested):
    assert refused(capsys, word) == f"error: {word} is no option; did you mean {suggested} (all: --help)\n"


def test_a_value_after_an_unknown_option_is_not_complained_of(capsys):
    assert len(refused(capsys, "--training.lrr", "0.5").splitlines()) == 1


def test_a_switch_with_a_value_is_told_how_switches_are_written(capsys):
    assert "write --baseline or --no_baseline" in refused(capsys, "--objective.guided", "False")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--training.lr", "3"], "error: training.lr must be a number in (0, 1], got 3.0\n"),
        (["--training.lr", "nan"], "error: training.lr must be a number in (0, 1], got NaN\n"),
        (["--seed=-1"], "error: seed must be a whole number in [0, 2147483647], got -1\n"),
        (
            ["--measure.gammas", "0", "2"],
            "error: measure.gammas must be one or more numbers, each in [0, 1], got 2.0\n",
        ),
        (["--objective.skip", "30"], "error: objective.skip must divide N = 1000, got 30: 25 does\n"),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(capsys, words, message):
    assert refused(capsys, *words) == message


@pytest.mark.parametrize(
    "words", [["--training.lr", "fast"], ["--training.steps", "2.5"], ["--student.kind", "LoRA"], ["--training.lr"]]
)
def test_values_of_another_type_are_refused_by_name(capsys, words):
    assert words[0] in refused(capsys, *words)


def test_fields_that_contradict_each_other_are_refused(capsys):
    message = refused(capsys, "--end_times.draw", "exact", "--objective.form", "tcf2")
    assert message.startswith("error: end_times.draw exact needs objective.form tcf1") and message.count("\n") == 1


def test_errors_of_the_recipe_file_come_before_those_of_the_words(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[training]\nlrr = 9\n")
    assert refused(capsys, "--recipe", str(path), "--seed=-1") == (
        "error: mine.toml: training.lrr is no field of the recipe; did you mean training.lr?\n"
    )
    assert "did you mean digits?" in refused(capsys, "--recipe", "digit")


def test_help_shows_every_field_with_its_meaning_range_and_default(capsys, monkeypatch):
    text, recipe = helped(capsys, monkeypatch), load_recipe("digits")
    for name, info in fields().items():
        value = attrgetter(name)(recipe)
        if is_section(info):
            assert info.description in text
            continue
        default = " ".join(map(str, value)) if isinstance(value, tuple) else "''" if value == "" else value
        about = "; ".join(filter(None, [info.description, limits(info)]))
        assert f"--{name}" in text and f"{about} (default: {default})" in text, name


def test_help_shows_the_values_of_the_recipe_file(capsys, monkeypatch, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[training]\nsteps = 12345\n")
    text = helped(capsys, monkeypatch, "--recipe", str(path))
    assert "(default: 12345)" in text and "(default: mine)" in text


SHIPPED = ["digits", "digits-table", "sd15", "sd21", "sd21v", "sdxl", "shapes"]


@pytest.mark.parametrize("word", ["--list-recipes", "--list_recipes"])
def test_shipped_recipes_are_listed(capsys, word):
    with pytest.raises(SystemExit) as stop:
        parse([word])
    assert not stop.value.code
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == SHIPPED


def test_help_imports_neither_torch_nor_diffusers():
    code = (
        "import sys\nfrom training.cli import parse\ntry:\n    parse(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'numpy', 'diffusers', 'accelerate') if m in sys.modules], file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    words = [sys.executable, "-c", code]
    run = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=60)
    assert run.stderr.strip() == "[]" and "--training.lr" in run.stdout


def test_help_reaches_a_console_without_greek_letters():
    words = [sys.executable, "-c", "from training.cli import parse; parse(['--help'])"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    run = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, encoding="ascii", timeout=60)
    assert run.returncode == 0 and "--training.lr FLOAT" in run.stdout
