"""Reports of other metrics and methods than digits': a real model's LoRAs, intervals, paired differences, costs."""

import json

import pytest
from report_figures import AS_IN_THE_PAPER, OWN, STEPS, measured, real_model

from training.catalogue import Method, Metric, known
from training.claims import claims
from training.plot_style import LIGHT, styled
from training.plots import metric_against_gamma, metric_against_steps, steps_figure
from training.report import Results, summary, to_json, to_markdown, write_report


def line_of(text, start):
    (found,) = [line for line in text.splitlines() if line.startswith(start)][:1]
    return found


# -- what is taken in ----------------------------------------------------------------------------------------------


def test_everything_survives_a_file(tmp_path):
    results = real_model()
    results.save(tmp_path / "results.json")
    again = Results.load(tmp_path / "results.json")
    assert again == results
    assert to_json(again) == to_json(results)


def test_files_from_before_are_of_digits(tmp_path):
    """What `save` wrote when metrics and methods were constants."""
    results = measured(AS_IN_THE_PAPER, floor_ranges={"fd": (0.4, 0.6)})
    old = ("recipe", "recipe_hash", "n_samples", "floors", "floor_ranges", "seconds", "versions", "losses")
    data = {name: getattr(results, name) for name in old} | {"values": [[*k, v] for k, v in results.values.items()]}
    (tmp_path / "results.json").write_text(json.dumps(data))
    assert to_json(Results.load(tmp_path / "results.json")) == to_json(results)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"main": "fdd"}, "main metric must be one of fid, .* got 'fdd'"),
        ({"groups": {}}, "groups that are not described: weights"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        real_model(**fields)


def test_a_student_has_a_gamma_and_a_solver_none():
    with pytest.raises(ValueError, match="a student has a gamma"):
        Method("mine", "student")
    with pytest.raises(ValueError, match="a solver has none"):
        Method("Euler", "solver", 0.2)


def test_a_metric_may_not_take_the_reports_own_names():
    results = Results({"name": "x", "measure": {"gamma": 0.2}}, "abc", 10, metrics={"recipe": Metric("R", "lower")})
    with pytest.raises(ValueError, match="a metric cannot be called recipe"):
        to_json(results)


def test_values_and_differences_are_taken_once_and_by_known_names():
    results = real_model()
    with pytest.raises(ValueError, match="difference was added before"):
        results.add_difference("clip_score", OWN, "lcm:lcm-lora", 4, 0.0, (0.0, 0.0))
    with pytest.raises(ValueError, match="method must be one of"):
        results.add_difference("clip_score", OWN, "lcm", 4, 0.0, (0.0, 0.0))
    with pytest.raises(ValueError, match="method must be one of"):
        results.add_cost("tcd", 4, 1, 1.0, 4)


def test_costs_of_several_passes_are_added_up():
    results = Results({"name": "x", "measure": {"gamma": 0.2}}, "abc", 10)
    results.add_cost("tcd", 4, pictures=10, seconds=1.0, evaluations=4, peak_bytes=100)
    results.add_cost("tcd", 4, pictures=30, seconds=5.0, evaluations=4, peak_bytes=80)
    cost = {"seconds_per_picture": 0.15, "evaluations": 4.0, "peak_bytes": 100, "pictures": 40}
    assert to_json(results)["costs"] == {"tcd": {"4": cost}}


# -- tables --------------------------------------------------------------------------------------------------------


def test_a_loras_row_stands_beside_the_papers_row_of_its_role():
    text = to_markdown(to_json(real_model()))
    fid = text.partition("## FID")[2]
    assert line_of(fid, "| my-model").endswith("| 14.66 | 12.68 | 13.64 | 13.56 |")
    assert line_of(fid, "| lcm-lora").endswith("| 16.15 | 15.03 | 16.93 | 18.13 |")
    assert line_of(fid, "| hyper-sd").endswith("| – | – | – | – |")
    assert "paper's" not in text.partition("## KID")[2].partition("##")[0]  # the paper has none
    assert "| −227.77 | −189.41 | 12.59 | 65.05 |" in text.partition("## ImageReward")[2]


def test_intervals_stand_in_cells_and_are_explained():
    report = to_json(real_model())
    assert report["fid"][OWN]["4"]["interval"] == pytest.approx([0.98 * 13.32, 1.02 * 13.32])
    text = to_markdown(report)
    assert "| my-model, γ = 0.2 | 14.52 [14.23, 14.81] (2.42×) |" in text
    assert "95 % confidence intervals by bootstrap" in text
    assert "confidence intervals" not in to_markdown(to_json(measured(AS_IN_THE_PAPER)))


def test_several_seeds_have_spread_and_the_mean_of_their_intervals():
    value = to_json(real_model(seeds=2))["fid"]["euler"]["4"]
    assert value["n"] == 2 and value["std"] > 0
    assert value["interval"] == pytest.approx([0.98 * value["mean"], 1.02 * value["mean"]])


def test_a_value_without_interval_leaves_its_cell_without():
    results = real_model()
    results.add("fid", "euler", 4, 12.0, 0, 1)
    assert "interval" not in to_json(results)["fid"]["euler"]["4"]


def test_other_students_gammas_have_their_own_tables():
    results = real_model()
    results.add("fid", "hyper-sd", 4, 14.0, 0, 0, 0.5)
    report = to_json(results)
    assert list(report["gamma_sweeps"]) == ["hyper-sd"] and list(report["gamma_sweep"]) == ["0", "0.2", "1"]
    assert "## hyper-sd weights at several γ" in to_markdown(report)


def test_students_that_differ_in_one_thing_have_a_table_with_the_reports_own_first():
    report = to_json(real_model())
    assert list(report["groups"]["weights"]["rows"]) == ["min_snr", "omega_1"]
    assert report["groups"]["weights"]["rows"]["min_snr"]["4"]["fid"] == report["fid"][OWN]["4"]
    assert "omega_1" not in report["fid"]
    text = to_markdown(report).partition("## Weights ω")[2]
    assert line_of(text, "| min-SNR").startswith("| min-SNR | 14.52 [14.23, 14.81]")


def test_costs_left_out_metrics_and_sources_are_told():
    text = to_markdown(to_json(real_model()))
    assert "| DDIM, 4 steps | 200 ms | 8 | 3.40 GB | 100 |" in text
    assert "| PickScore | no weights at ~/.cache/pick: fetch them with --fetch |" in text
    assert "| FID | torch-fidelity 0.3.0, inception-v3-compat (sha256 abc) |" in text
    assert "| real pictures | coco/val2017 |" in text


def test_prompts_are_listed_under_the_pictures_that_show_them():
    report = to_json(real_model())
    assert "1. a red bird\n2. a chair" in to_markdown(report, ["samples.png"])
    assert "a red bird" not in to_markdown(report)  # no pictures, no list


def test_the_summary_fits_long_names_and_raw_metrics(tmp_path):
    results = real_model(tcd="a-name-of-a-lora-that-goes-on-and-on-and-on-and-never-ends", floors={})
    lines = summary(results).splitlines()
    assert max(len(line) for line in lines if "steps:" not in line) <= 100
    assert line_of(summary(results), "FID") == "FID (no floor was measured), 5000 pictures each"
    assert "a-name-of-a-lora-that-goes-on-and-on-an…" in "\n".join(lines)


# -- claims --------------------------------------------------------------------------------------------------------


def test_claims_are_about_the_loras_of_the_papers_roles():
    text = to_markdown(to_json(real_model()))
    assert "Here TCD is my-model and LCM is lcm-lora." in text
    found = {claim.text: claim for claim in claims(to_json(real_model()))}
    assert found["TCD is above LCM by ImageReward at 4 steps"].paper == "52.72 < 68.49"
    assert found["TCD is below LCM, as LCM is sampled (γ = 1), at 20 steps"].holds is True


def test_the_difference_on_the_same_prompts_decides_where_there_is_one():
    def verdict(**interval):
        report = to_json(real_model())
        for entry in report["differences"]:
            entry |= interval
        (claim,) = [c for c in claims(report) if c.text == "TCD is above LCM by ImageReward at 4 steps"]
        return claim.holds

    assert verdict(mean=1.0, interval=[0.5, 1.5]) is True  # the figures' own intervals overlap
    assert verdict(mean=-1.0, interval=[-1.5, -0.5]) is False
    assert verdict(mean=1.0, interval=[-0.5, 1.5]) is None


def test_what_stands_in_for_a_metric_of_the_papers_is_said_to():
    told = {"metrics": known("fd", "attributes", "complexity"), "methods": {}, "groups": {}}
    results = Results({"name": "shapes", "measure": {"gamma": 0.2}}, "abc", 100, **told)
    for seed in (0, 1):
        results.add("attributes", "tcd", 4, 0.9 + seed / 1000, 0, seed)
        results.add("attributes", "lcm", 4, 0.8 + seed / 1000, 0, seed)
        results.add("fd", "tcd", 4, 1.0, 0, seed)
    text = to_markdown(to_json(results))
    assert "stands in for the paper's ImageReward" in text and "paper's ImageReward: 2" in text
    assert "| TCD is above LCM by Attributes as asked at 4 steps | yes |" in text


def test_without_methods_of_the_papers_roles_nothing_is_claimed(tmp_path):
    methods = {"a": Method("a", "student", 1.0), "b": Method("b", "student", 0.5)}
    results = Results(
        {"name": "x", "measure": {"gamma": 0.2}}, "h", 10, metrics=known("fid", "clip_score"), methods=methods
    )
    for method in methods:
        results.add("fid", method, 4, 10.0, 0, 0)
    report = write_report(results, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert claims(report) == [] and "claims" not in text and "None" not in text


# -- plots ---------------------------------------------------------------------------------------------------------


def test_any_metrics_and_methods_are_plotted(tmp_path, recwarn):
    report = to_json(real_model(tcd="$\\frac{broken_^ & <b>"))  # a name is no mathematics
    assert metric_against_steps(report, tmp_path / "steps.png") and metric_against_gamma(report, tmp_path / "gamma.png")
    assert not recwarn.list


def test_twenty_loras_can_be_told_apart():
    from training.plots import method_styles

    loras = {f"l{i}": Method(f"lora {i}", "student", 1.0, "tcd" if i < 2 else None) for i in range(20)}
    results = Results({"name": "x", "measure": {"gamma": 0.2}}, "h", 10, metrics=known("fid"), methods=loras)
    styles = method_styles(to_json(results))
    looks = {tuple(str(style.get(key)) for key in ("color", "marker", "linestyle")) for style in styles.values()}
    assert len(looks) == len(loras) >= len(STEPS)


def test_an_odd_number_of_panels_leaves_none_empty_and_long_names_keep_their_gamma():
    report = to_json(real_model(tcd="a-name-that-goes-on-" * 5))
    report["metrics"] = {name: report["metrics"][name] for name in ("fid", "kid", "complexity")}
    with styled(LIGHT):
        figure = steps_figure(report, LIGHT)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["FID", "KID", "Image complexity"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "a-name-that-goes-on-a-name-tha…, γ = 0.2" in names and max(map(len, names)) <= 40
