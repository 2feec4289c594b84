"""``training.evaluate --compare``: side by side what was measured alike, refused what was not, and why."""

import json
from pathlib import Path

import pytest
from report_figures import AS_IN_THE_PAPER, OWN, THE_OTHER_WAY, measured, real_model

from training.compare import comparison, difference
from training.evaluate import main
from training.report import to_json, write_report
from training.report_file import read_report
from training.report_markdown import render

DIGITS = Path(__file__).parents[2] / "docs" / "digits" / "report.json"
LOWER, HIGHER, REAL = ({"better": better, "form": "two"} for better in ("lower", "higher", "real"))


def cell(mean, std=0.0, n=1, **interval):
    return {"mean": mean, "std": std, "n": n} | interval


def written(results, folder):
    folder.mkdir()
    write_report(results, folder)
    return folder / "report.json"


def row(text, start, section=""):
    after = text.partition(f"## {section}\n")[2] if section else text
    return next(line for line in after.splitlines() if line.startswith(f"| {start} |"))


@pytest.fixture
def pair(tmp_path):
    return [str(written(measured(f), tmp_path / n)) for f, n in ((AS_IN_THE_PAPER, "a"), (THE_OTHER_WAY, "b"))]


# -- differences ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "other", "told", "text"),
    [
        (cell(1.0, 0.1, 3), cell(0.5, 0.1, 3), LOWER, "−0.50, better"),
        (cell(1.0, 0.1, 3), cell(0.5, 0.1, 3), HIGHER, "−0.50, worse"),
        (cell(1.0, 0.1, 3), cell(0.5, 0.1, 3), REAL, "−0.50, lower"),
        (cell(1.0, 0.1, 3), cell(1.1, 0.1, 3), LOWER, "+0.10, level"),
        (cell(1.0), cell(5.0), LOWER, "+4.00, level"),  # nothing says how much they vary
        (cell(1.0, interval=[0.9, 1.1]), cell(1.3, interval=[1.2, 1.4]), LOWER, "+0.30, worse"),
        (cell(1.0, interval=[0.9, 1.1]), cell(1.1, interval=[0.9, 1.3]), LOWER, "+0.10, level"),
        (None, cell(1.0), LOWER, "–"),
        (cell(None, None), cell(1.0), LOWER, "–"),
    ],
)
def test_a_difference_is_judged_by_spread_or_interval(first, other, told, text):
    assert difference(first, other, told) == text


def test_two_runs_stand_side_by_side(pair, capsys):
    assert main(["--compare", *pair]) == 0
    text = capsys.readouterr().out
    fd = "Fréchet distance in features"
    assert (
        row(text, "TCD, γ = 0.2: A", fd)
        == "| TCD, γ = 0.2: A | 1.20 ± 0.01 | 0.66 ± 0.01 | 0.67 ± 0.01 | 0.68 ± 0.01 |"
    )
    assert "| +1.000, worse | +1.240, worse | +1.230, worse | +1.920, worse |" in row(text, "TCD, γ = 0.2: B − A", fd)
    assert "| −0.500, better | −0.100, better |" in row(text, "LCM, γ = 1: B − A", fd)
    assert "−3.000" not in row(text, "TCD weights, γ = 0: B − A") and "LCM weights, γ = 0.2: B − A" in text
    assert "TCF(2): B − A" in text
    assert "| LCM gets worse from 4 to 20 steps | yes | **no** |" in text
    assert "Settings, seeds and libraries are alike." in text


def test_more_than_two_are_compared_with_the_first(pair, capsys):
    assert main(["--compare", *pair, pair[0]]) == 0
    text = capsys.readouterr().out
    assert "| −0.000, level |" not in text and "+0.000, level" in row(text, "TCD, γ = 0.2: C − A")
    assert "TCD, γ = 0.2: B − A" in text and "C − B" not in text


def test_a_report_from_before_is_compared_with_a_new_one(capsys):
    """The published one, whose metrics and methods are described nowhere."""
    old = json.loads(DIGITS.read_text())
    for name in ("metrics", "methods", "main"):
        old.pop(name, None)
    assert main(["--compare", str(DIGITS), str(DIGITS.parent)]) == 0  # the folder stands for its report
    text = capsys.readouterr().out
    assert "| TCD, γ = 0.2: B − A | +0.000, level | +0.000, level | +0.000, level | +0.000, level |" in text


def test_ones_own_loras_of_two_trainings_are_matched_by_role(capsys, tmp_path):
    first, second = real_model(), real_model(shift=-5.0)
    for name in list(second.values):
        if name.method == OWN:
            second.values[name._replace(method="tcd:v2")] = second.values.pop(name)
    second.intervals.clear()
    second.differences.clear()
    second.costs.clear()
    second.methods["tcd:v2"] = second.methods.pop(OWN)
    paths = [str(written(results, tmp_path / n)) for results, n in ((first, "a"), (second, "b"))]
    assert main(["--compare", *paths]) == 0
    text = capsys.readouterr().out
    assert "−5.00, better" in row(text, "my-model, γ = 0.2: B − A", "FID")


def test_methods_in_one_report_alone_are_named(tmp_path):
    less = {who: row for who, row in AS_IN_THE_PAPER.items() if who != "ddim"}
    reports = [to_json(measured(figures)) for figures in (AS_IN_THE_PAPER, less)]
    blocks, compared = comparison(reports, ["a", "b"])
    assert compared and "DDIM only in A." in render(blocks)


def test_times_and_settings_that_differ_are_shown(tmp_path, capsys):
    first, second = measured(AS_IN_THE_PAPER), measured(AS_IN_THE_PAPER, versions={"torch": "2.13"})
    for results, seconds in ((first, 1.0), (second, 3.0)):
        results.add_cost("tcd", 4, 10, seconds, 4)
    first.recipe["objective"]["skip"] = 20
    second.recipe["objective"]["skip"] = 50
    paths = [str(written(results, tmp_path / n)) for results, n in ((first, "a"), (second, "b"))]
    assert main(["--compare", *paths]) == 0
    text = capsys.readouterr().out
    assert row(text, "TCD, γ = 0.2, 4 steps") == "| TCD, γ = 0.2, 4 steps | 100 ms | 300 ms |"
    assert row(text, "objective.skip") == "| objective.skip | `20` | `50` |"
    assert row(text, "library torch") == "| library torch | – | `2.13` |"


def test_pages_and_markdown_are_written(pair, tmp_path, capsys):
    for name, start in (("both.html", "<!DOCTYPE html>"), ("both.md", "# Reports side by side")):
        assert main(["--compare", *pair, "--output", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
        assert str(tmp_path / name) in capsys.readouterr().out


# -- what cannot be compared ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "refused", "why"),
    [
        (
            {"reference": {"real pictures": "mine"}},
            {"FID", "KID"},
            "other real pictures: real pictures A coco/val2017, B mine",
        ),
        ({"conditions": {"prompts": "mine.txt"}}, {"all"}, "other prompts: prompts A captions.json, 5,000, B mine.txt"),
    ],
)
def test_what_was_not_measured_alike_is_left_out_with_the_reason(tmp_path, capsys, fields, refused, why):
    paths = [str(written(real_model(**f), tmp_path / n)) for f, n in (({}, "a"), (fields, "b"))]
    status = main(["--compare", *paths])
    out, err = capsys.readouterr()
    section = out.partition("## What cannot be compared")[2].partition("\n## ")[0]
    assert why in section
    if refused == {"all"}:
        assert status == 1 and "no metric was measured alike" in err and "B − A" not in out
    else:
        assert status == 0 and {line.split("|")[1].strip() for line in section.splitlines()[6:] if line} == refused
        assert "## CLIP score" in out and "## FID" not in out and "my-model, γ = 0.2: B − A" in out


def test_another_number_of_pictures_forbids_distances_alone(tmp_path):
    reports = [to_json(real_model()), to_json(real_model()) | {"n_samples": 100}]
    text = render(comparison(reports, ["a", "b"])[0])
    assert "| FID | other numbers of pictures, on which a distance depends: A 5000, B 100 |" in text
    assert "\n## ImageReward" in text and "\n## KID" not in text


def test_other_weights_of_a_metric_forbid_that_metric():
    reports = [to_json(real_model()), to_json(real_model())]
    reports[1]["metrics"]["clip_score"]["source"] = "ViT-B/32"
    text = render(comparison(reports, ["a", "b"])[0])
    assert "| CLIP score | made with other libraries or weights: A ViT-L/14, B ViT-B/32 |" in text
    assert "\n## CLIP score" not in text and "\n## FID" in text


def test_digits_and_a_real_model_have_nothing_to_compare(tmp_path, capsys):
    paths = [str(written(r, tmp_path / n)) for r, n in ((measured(AS_IN_THE_PAPER), "a"), (real_model(), "b"))]
    assert main(["--compare", *paths]) == 1
    assert "| FID | not measured in A |" in capsys.readouterr().out


def test_digits_against_another_split_are_not_compared():
    reports = [to_json(measured(AS_IN_THE_PAPER)) for _ in range(2)]
    reports[1]["recipe"] = reports[1]["recipe"] | {"measure": {"gamma": 0.2, "against": "validation"}}
    text = render(comparison(reports, ["a", "b"])[0])
    assert "other real pictures: against A held_out, B validation" in text


# -- files that are not reports ------------------------------------------------------------------------------------


def broken(change):
    report = json.loads(json.dumps(to_json(measured(AS_IN_THE_PAPER))))
    change(report)
    return json.dumps(report)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "is not a report: it holds no JSON"),
        ("[1, 2]", "is not a report: it holds no object"),
        ("[" * 100_000, "is not a report"),
        ('{"a": 1}', "is not a report of this project"),
        (b"\xff\xfe\x00", "is not a report"),
        ('{"version": 1, "values": []}', "holds single values: give the report.json beside it"),
        ('{"version": 2}', "is of version 2: a newer training.evaluate made it"),
        ('{"version": 1, "files": [], "loss": {}}', "is the record of a training, without figures"),
        (broken(lambda r: r["fd"]["tcd"]["4"].update(mean="high")), "is not a report of this project"),
        (broken(lambda r: r["fd"]["tcd"].update({"4": 3})), "is not a report of this project"),
        (broken(lambda r: r["methods"].pop("tcd")), "not described"),
        (broken(lambda r: r.pop("student_x_gamma")), "student_x_gamma: Field required"),
        (broken(lambda r: r["metrics"]["fd"].pop("better")), "metrics.fd.better: Field required"),
        (broken(lambda r: r.update(main="x")), "main metric 'x'"),
        (broken(lambda r: r["recipe"].pop("measure")), "recipe.measure: Field required"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, capsys, content, message):
    path = tmp_path / "report.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["--compare", str(DIGITS), str(path)]) == 1
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"error: {path}") and message in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare", str(DIGITS)], "takes two reports or more"),
        (["--compare", str(DIGITS), "nowhere.json"], "nowhere.json cannot be read: No such file"),
        (["--compare", str(DIGITS), str(DIGITS), "--output", "x.pdf"], "must end in .html or .md, got x.pdf"),
    ],
)
def test_wrong_words_are_told(capsys, words, message):
    assert main(words) == 1
    assert message in capsys.readouterr().err


def test_a_report_reads_back_as_it_was_written(tmp_path):
    results = real_model()
    assert read_report(written(results, tmp_path / "a")) == json.loads(json.dumps(to_json(results)))
