"""Reports: aggregation over seeds, the schema of report.json, report.md with pieces missing, the summary."""

import json
import math
import os

import pytest
from report_figures import AS_IN_THE_PAPER, STEPS, THE_OTHER_WAY, empty, measured

from training import paper
from training.disk import OutputError
from training.report import Results, summary, to_json, to_markdown, write_report

# -- aggregation ---------------------------------------------------------------------------------------------------


def test_one_training_seed_spreads_over_sampling_seeds():
    results = empty()
    for seed, value in enumerate((1.0, 2.0, 6.0)):
        results.add("fd", "tcd", 4, value, training_seed=0, sampling_seed=seed)
    report = to_json(results)
    assert report["fd"]["tcd"]["4"] == {"mean": 3.0, "std": pytest.approx(math.sqrt(7)), "n": 3}
    assert report["spread"] == "3 sampling seeds, one training seed"


def test_several_training_seeds_spread_over_their_means():
    results = empty()
    for training, values in enumerate([(1.0, 3.0), (4.0, 4.0), (5.0, 7.0)]):
        for sampling, value in enumerate(values):
            results.add("fd", "tcd", 4, value, training, sampling)
    report = to_json(results)
    assert report["fd"]["tcd"]["4"] == {"mean": 4.0, "std": 2.0, "n": 3}  # of 2, 4, 6
    assert report["spread"] == "3 training seeds, each the mean of 2 sampling seeds"


def test_a_single_value_has_no_spread():
    results = empty()
    results.add("fd", "ddim", 20, 0.88, 0, 0)
    assert to_json(results)["fd"]["ddim"]["20"] == {"mean": 0.88, "std": 0.0, "n": 1}
    assert "0.88 (1.76×) |" in to_markdown(to_json(results))


def test_what_diverged_is_said_and_keeps_json_valid(tmp_path):
    results = measured(AS_IN_THE_PAPER)
    results.add("fd", "tcd", 50, math.nan, 0, 0)
    write_report(results, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert report["fd"]["tcd"]["50"] == {"mean": None, "std": None, "n": 1}
    assert "not finite" in (tmp_path / "report.md").read_text()
    assert "not finite" in summary(results)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("fid", "tcd", 4, 1.0, 0, 0), "metric must be one of fd, .* got 'fid'"),
        (("fd", "dpm", 4, 1.0, 0, 0), "method must be one of euler, .* got 'dpm'"),
        (("fd", "ddim", 4, 1.0, 0, 0, 0.2), "ddim is a numerical solver and has no gamma"),
        (("fd", "tcd", 4, 1.0, 0, 0, 1.3), r"gamma must lie in \[0, 1\], got 1.3"),
        (("fd", "lcm", 4, 1.0, 0, 0, 1.0), "added before"),
    ],
)
def test_wrong_values_are_refused_with_the_right_ones(values, message):
    results = empty()
    results.add("fd", "lcm", 4, 0.9, 0, 0)  # gamma left out: 1
    with pytest.raises(ValueError, match=message):
        results.add(*values)


def test_results_need_the_resolved_recipe():
    with pytest.raises(ValueError, match="measure.gamma"):
        Results({"name": "digits"}, "abc", 10)


def test_results_survive_a_file(tmp_path):
    results = measured(AS_IN_THE_PAPER, floor_ranges={"fd": (0.4, 0.6)}, losses={"tcd": {"step": [1], "loss": [0.5]}})
    results.save(tmp_path / "measured.json")
    again = Results.load(tmp_path / "measured.json")
    assert again == results
    assert to_json(again) == to_json(results)
    (tmp_path / "other.json").write_text('{"fd": 1}')
    with pytest.raises(ValueError, match="other.json does not hold measured results"):
        Results.load(tmp_path / "other.json")


# -- report.json ---------------------------------------------------------------------------------------------------


def test_tables_are_views_of_the_same_values():
    report = to_json(measured(AS_IN_THE_PAPER, seconds={"teacher": 60.0, "tcd": 20.0}, versions={"torch": "2.13"}))
    assert list(report["fd"]) == ["floor", "euler", "ddim", "dpmpp_2s", "lcm", "tcd"]
    assert report["fd"]["floor"] == 0.5
    assert report["gamma_sweep"]["0.2"]["4"]["fd"] == report["fd"]["tcd"]["4"]
    assert list(report["gamma_sweep"]) == ["0", "0.2", "1"]
    assert report["student_x_gamma"]["lcm"]["1"] == report["fd"]["lcm"]
    assert set(report["student_x_gamma"]["tcd"]) == {"0.2", "1"}
    assert report["forms"]["tcf1"]["4"]["fd"] == report["fd"]["tcd"]["4"]
    assert set(report["forms"]) == {"tcf1", "tcf2", "tcf_s_plus"}
    assert report["accuracy"] == {"floor": None}
    assert report["seconds"]["total"] == 80.0
    assert (report["version"], report["n_samples"], report["recipe_hash"]) == (1, 899, "abc123")


def test_seeds_on_which_tcd_is_below_lcm_are_counted():
    results = empty()
    for seed, (lcm, tcd) in enumerate([(1.0, 0.9), (1.0, 1.1), (1.2, 1.0)]):
        results.add("fd", "lcm", 4, lcm, 0, seed)
        results.add("fd", "tcd", 4, tcd, 0, seed)
    results.add("fd", "tcd", 8, 0.5, 0, 0)  # no LCM to stand against
    assert to_json(results)["tcd_below_lcm"] == {"4": {"seeds": 2, "of": 3}}


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    write_report(measured(AS_IN_THE_PAPER), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"report.json", "report.md", "report.html"}

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space"):
        write_report(measured(THE_OTHER_WAY), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# -- report.md and the summary -------------------------------------------------------------------------------------


def test_distances_stand_beside_the_papers_fid():
    lines = to_markdown(to_json(measured(AS_IN_THE_PAPER))).splitlines()
    assert "|  | 2 steps | 4 steps | 8 steps | 20 steps | paper's FID: 2 | 4 | 8 | 20 |" in lines
    row = "| TCD, γ = 0.2 | 1.20 ± 0.01 (2.40×) | 0.66 ± 0.01 (1.32×) | 0.67 ± 0.01 (1.34×) | 0.68 ± 0.01 (1.36×) "
    assert row + "| 14.66 | 12.68 | 13.64 | 13.56 |" in lines


def test_what_was_run_is_told():
    text = to_markdown(
        to_json(measured(AS_IN_THE_PAPER, seconds={"tcd": 61.0, "total": 184.0}, versions={"torch": "2.13.0"}))
    )
    for words in ("`digits`, hash `abc123`", "899 generated", "3 min 4 s (TCD 1 min 1 s)", "torch 2.13.0"):
        assert words in text
    assert "training 0; sampling 0, 1, 2, of the numerical solvers 0" in text


@pytest.mark.parametrize("training_seeds", [1, 3])
@pytest.mark.parametrize("steps", [STEPS, (1, 3, 6, 50)])
@pytest.mark.parametrize(
    "methods",
    [
        list(AS_IN_THE_PAPER),
        [("tcd", 0.2)],
        ["ddim", "euler"],
        ["ddim", ("tcd", 0.2), ("tcd", 1.0)],
        [("lcm", 1.0), ("tcd", 0.2)],
        [("lcm", 1.0)],
        [],
    ],
)
def test_missing_pieces_are_left_out(tmp_path, methods, steps, training_seeds):
    figures = {who: AS_IN_THE_PAPER[who] for who in methods}
    results = measured(figures, steps=steps, training_seeds=training_seeds, floors={"fd": 0.5} if methods else {})
    write_report(results, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert ("LCM baseline" in text) == (("lcm", 1.0) in methods)
    assert ("at several γ" in text) == (sum("tcd" in who for who in methods) > 1)
    assert ("equal budget" in text) == (("tcf2", 0.2) in methods)
    assert "None" not in text and "nan" not in text
    lines = summary(results, [tmp_path / "report.md"]).splitlines()
    assert max(map(len, lines[:-2])) <= 100


def test_the_summary_gives_multiples_accuracy_time_and_files(tmp_path):
    results = measured(AS_IN_THE_PAPER, floors={"fd": 0.5, "accuracy": 0.993}, seconds={"total": 200.0})
    results.add("accuracy", "tcd", 4, 0.998, 0, 0)
    text = summary(results, [tmp_path / "tcd_digits.safetensors", tmp_path / "report.md"])
    assert "multiple of real pictures' own (0.50), 899 pictures each" in text
    (row,) = [line.split("  ") for line in text.splitlines() if line.startswith("TCD")]
    assert [word.strip() for word in row if word][1:] == ["2.40 ± 0.02", "1.32 ± 0.02", "1.34 ± 0.02", "1.36 ± 0.02"]
    assert "Class accuracy at 4 steps: TCD 0.998; real 0.993" in text
    assert "Time: 3 min 20 s" in text
    assert text.endswith(f"Files in {tmp_path}:\n  tcd_digits.safetensors\n  report.md")


def test_many_step_counts_still_fit_a_hundred_columns():
    steps = tuple(range(1, 13))
    lines = summary(measured({("tcd", 0.2): (1.0,) * 12}, steps=steps)).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("TCD") for line in lines) == 3
    assert all(any(f"{n} step" in line for line in lines) for n in steps)


def test_the_papers_table_is_looked_up_by_steps():
    assert paper.figure("fid", "tcd", 4) == 12.68
    assert paper.figure("fid", "tcd", 5) is None
    assert paper.figure("fid", "heun", 4) is None
    assert all(len(row) == 4 for table in paper.TABLE_1.values() for row in table.values())
