"""Workflow files with values that no user enters: no script runs, nothing hangs, and the plot says what is wrong."""

import plots
import pytest
import ui

pytestmark = pytest.mark.parametrize("front_end", ["pinned-litegraph", "newest-vue"], indirect=True)

SCRIPT = "<img src=x onerror='window.ran = true'><script>window.ran = true</script>"
HUGE = ", ".join(["0.5"] * 10_000)
SCHEDULE = ["linear", 0.5, 0.1, 2.0, "", False]
KSAMPLER = [1, "fixed", 4, 1.0, 0.3, 1.0, "1"]


def workflow(kind: str, values: list, title: str = "", **properties) -> dict:
    """One node as a file has it."""
    node = {"id": 1, "type": kind, "pos": [0, 0], "size": [300, 400], "flags": {}, "order": 0, "mode": 0}
    node |= {"inputs": [], "outputs": [], "properties": properties, "widgets_values": values}
    if title:
        node["title"] = title
    return {"last_node_id": 1, "last_link_id": 0, "nodes": [node], "links": [], "version": 0.4}


def with_value(values: list, index: int, value) -> list:
    return [*values[:index], value, *values[index + 1 :]]


def no_script_ran(page) -> bool:
    inside = "document.querySelectorAll('.tcd-plot img, .tcd-plot script').length"
    return page.evaluate(f"window.ran === undefined && {inside} === 0")


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        ("TCDToolkit_KSampler", with_value(KSAMPLER, 2, 1e308), "steps"),
        ("TCDToolkit_KSampler", with_value(KSAMPLER, 2, 10_000), "10000 steps at denoise 1 are more than the 1000"),
        ("TCDToolkit_KSampler", with_value(KSAMPLER, 2, None), "steps must be a whole number"),
        ("TCDToolkit_KSampler", with_value(KSAMPLER, 4, "NaN"), "gamma must lie in [0, 1]"),
        ("TCDToolkit_KSampler", with_value(KSAMPLER, 4, SCRIPT), "gamma must lie in [0, 1]"),
        ("TCDToolkit_KSampler", with_value(KSAMPLER, 5, 1e308), "denoise must lie in [0, 1]"),
        ("TCDToolkit_GammaSchedule", with_value(SCHEDULE, 0, SCRIPT), "shape must be one of"),
        ("TCDToolkit_GammaSchedule", with_value(SCHEDULE, 1, -1e308), "gamma must lie in [0, 1]"),
        ("TCDToolkit_GammaSchedule", ["list", 0.5, 0.1, 2.0, SCRIPT, False], "is not a number"),
        ("TCDToolkit_GammaSchedule", ["list", 0.5, 0.1, 2.0, "nan 1 2", False], "'nan' is not a number"),
        ("TCDToolkit_GammaSchedule", ["list", 0.5, 0.1, 2.0, HUGE, False], "10000 values"),
    ],
    ids=["steps", "many", "null", "NaN", "html", "denoise", "shape", "start", "text", "nan", "list"],
)
def test_what_is_wrong_is_said(page, kind, values, says):
    ui.load(page, workflow(kind, values, title=SCRIPT))
    page.wait_for_function(
        f"says => ({plots.PLOT})('1')?.querySelector('.note.error')?.textContent.includes(says)", arg=says
    )
    assert len(plots.note(page, "1")) < 300 and plots.handles(page, "1") == []
    assert no_script_ran(page)


def test_ten_thousand_interpolated_points_and_a_thousand_steps_are_drawn(page):
    ui.load(page, workflow("TCDToolkit_GammaSchedule", ["list", 0.5, 0.1, 2.0, HUGE, True]))
    plots.wait_for_table(page, "1", plots.run(gamma=0.5))
    assert plots.handles(page, "1") == []  # too many to take hold of
    ui.load(page, workflow("TCDToolkit_KSampler", with_value(KSAMPLER, 2, 1000)))
    rows = plots.table(page, "1")
    assert len(rows) == 201 and rows[-1] == ["800 more steps"]
    plots.drag(page, "1", 0, 0.8)
    assert ui.widget(page, "1", "gamma") == plots.close(0.8)


@pytest.mark.parametrize("shift", [SCRIPT, 1e308, 5e-324, 7, -1, None, {"a": 1}, "3"], ids=str)
def test_property_of_any_kind_leaves_a_plot(page, shift):
    ui.load(page, workflow("TCDToolkit_KSampler", KSAMPLER, tcd_flow_shift=shift))
    assert len(plots.table(page, "1")) == 4
    shown = plots.element(page, "1").query_selector("select").evaluate("e => e.selectedOptions[0].text")
    assert shown == ("Flow, shift 7" if shift == 7 else "Stable Diffusion (1.5, 2, XL)")
    assert no_script_ran(page)


def test_circle_of_reroutes_ends(page):
    """A file can hold links that no user could draw."""
    base = {"size": [75, 26], "flags": {}, "order": 0, "mode": 0, "properties": {}, "pos": [400, 0]}
    a, b = (
        base | {"id": i, "type": "Reroute", "inputs": [{"name": "", "type": "*", "link": i}]}
        | {"outputs": [{"name": "", "type": "*", "links": links}]}
        for i, links in ((2, [3, 1]), (3, [2]))
    )  # fmt: skip
    file = workflow("TCDToolkit_KSampler", KSAMPLER)
    names = ("model", "positive", "negative", "latent_image", "gamma_schedule")
    file["nodes"][0]["inputs"] = [
        {"name": name, "type": "TCD_GAMMA" if name == "gamma_schedule" else "MODEL", "link": None} for name in names
    ]
    file["nodes"][0]["inputs"][4]["link"] = 1
    file["nodes"] += [a, b]
    file["links"] = [[1, 2, 0, 1, 4, "TCD_GAMMA"], [2, 3, 0, 2, 0, "*"], [3, 2, 0, 3, 0, "*"]]
    ui.load(page, file)
    plots.element(page, "1")
    assert page.evaluate("() => app.canvas.graph._nodes.length") == 3
