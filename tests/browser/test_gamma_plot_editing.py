"""Gamma's handles by mouse and by key, and the plot through undo, copies, subgraphs and reloads."""

import plots
import pytest
import ui

SCHEDULE, SAMPLER, KSAMPLER = "TCDToolkit_GammaSchedule", "TCDToolkit_Sampler", "TCDToolkit_KSampler"


def linear(start: float, end: float) -> dict:
    return {"shape": "linear", "start": start, "end": end}


def test_dragging_a_handle_is_one_undo_step(page):
    node = ui.build(page, {"it": (SCHEDULE, (0, 0), {})})["it"]
    assert [handle["label"] for handle in plots.handles(page, node)] == ["gamma at the start", "gamma at the end"]
    plots.drag(page, node, 0, 0.9)
    start = ui.widget(page, node, "start")
    assert start == plots.close(0.9) and start == round(start, 3)
    assert ui.widget(page, node, "end") == 0.1
    plots.wait_for_table(page, node, plots.run(gamma=linear(start, 0.1)))
    plots.drag(page, node, 1, 1.4)  # past the end of the scale
    assert ui.widget(page, node, "end") == 1.0
    for end, begin in ((0.1, start), (0.1, 0.5)):
        ui.undo(page)
        plots.wait_for_table(page, node, plots.run(gamma=linear(begin, end)))
        assert [handle["value"] for handle in plots.handles(page, node)] == [begin, end]
    for end, begin in ((0.1, start), (1.0, start)):
        ui.redo(page)
        plots.wait_for_table(page, node, plots.run(gamma=linear(begin, end)))
    assert page.errors == []


def test_handles_still_work_after_undo(page):
    """Undo makes new nodes: theirs must be the plot on the page."""
    node = ui.build(page, {"it": (KSAMPLER, (0, 0), {})})["it"]
    plots.drag(page, node, 0, 0.8)
    ui.undo(page)
    plots.wait_for_table(page, node, plots.run(gamma=0.3))
    plots.drag(page, node, 0, 0.55)
    gamma = ui.widget(page, node, "gamma")
    assert gamma == plots.close(0.55)
    plots.wait_for_table(page, node, plots.run(gamma=gamma))
    ui.set_widget(page, node, "gamma", 0.05)
    plots.wait_for_table(page, node, plots.run(gamma=0.05))
    assert page.evaluate("document.querySelectorAll('.tcd-plot').length") == 1


def test_dragging_moves_the_handle_and_not_the_node(page):
    node = ui.build(page, {"it": (SCHEDULE, (100, 50), {})})["it"]
    where = "() => [...app.canvas.graph._nodes[0].pos]"
    before = page.evaluate(where)
    plots.drag(page, node, 0, 0.8)
    assert page.evaluate(where) == before


def test_zooming_and_panning_over_a_plot_reach_the_canvas(page):
    node = ui.build(page, {"it": (SCHEDULE, (100, 50), {})})["it"]
    view = "() => [app.canvas.ds.scale, ...app.canvas.ds.offset]"
    box = plots.element(page, node).query_selector(".figure").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 12)
    scale, x, y = page.evaluate(view)
    page.mouse.down(button="middle")
    page.mouse.move(box["x"] + box["width"] * 0.6 + 50, box["y"] + 42, steps=4)
    page.mouse.up(button="middle")
    ui.settle(page)
    assert page.evaluate(view) == [scale, x + 50, y + 30]
    page.mouse.wheel(0, -120)
    ui.settle(page, 10)
    assert page.evaluate(view)[0] > scale


def test_list_s_points_are_dragged_and_the_text_keeps_its_form(page):
    node = ui.build(page, {"it": (SCHEDULE, (0, 0), {"shape": "list", "values": "0.5;  0.3, .1"})})["it"]
    assert [handle["value"] for handle in plots.handles(page, node)] == [0.5, 0.3, 0.1]
    plots.drag(page, node, 1, 0.75)
    new = plots.handles(page, node)[1]["value"]
    assert new == plots.close(0.75)
    assert ui.widget(page, node, "values") == f"0.5;  {new:g}, .1"
    plots.wait_for_table(page, node, plots.run(gamma={"shape": "list", "values": (0.5, new, 0.1)}))
    ui.undo(page)
    assert ui.widget(page, node, "values") == "0.5;  0.3, .1"


def test_list_with_chinese_commas_keeps_them(page):
    node = ui.build(page, {"it": (SCHEDULE, (0, 0), {"shape": "list", "values": "0.5，0.3；0.2、0.1"})})["it"]
    ui.set_widget(page, node, "interpolate", True)
    assert [handle["value"] for handle in plots.handles(page, node)] == [0.5, 0.3, 0.2, 0.1]
    plots.drag(page, node, 1, 0.75)
    new = plots.handles(page, node)[1]["value"]
    assert new == plots.close(0.75)
    assert ui.widget(page, node, "values") == f"0.5，{new:g}；0.2、0.1"
    values = (0.5, new, 0.2, 0.1)
    plots.wait_for_table(page, node, plots.run(gamma={"shape": "list", "values": values, "interpolate": True}))


def test_key_that_is_held_is_one_undo_step(page):
    node = ui.build(page, {"it": (KSAMPLER, (0, 0), {})})["it"]
    handle = plots.element(page, node).query_selector(".handle")
    handle.focus()
    for _ in range(12):  # the second and later are repeats
        page.keyboard.down("ArrowUp")
        ui.settle(page, 2)
    page.keyboard.up("ArrowUp")
    page.wait_for_timeout(150)  # the newest front end adds what changes within 50 ms to the step before
    for _ in range(7):
        page.keyboard.down("ArrowDown")
        ui.settle(page, 2)
    handle.evaluate("e => e.blur()")  # the key goes up elsewhere
    page.keyboard.up("ArrowDown")
    assert ui.widget(page, node, "gamma") == pytest.approx(0.35)
    for gamma in (0.42, 0.3):
        ui.undo(page)
        assert ui.widget(page, node, "gamma") == pytest.approx(gamma)
    ui.redo(page)
    plots.wait_for_table(page, node, plots.run(gamma=0.42))


def test_keys_move_a_handle_and_stay_in_the_plot(page):
    node = ui.build(page, {"it": (KSAMPLER, (0, 0), {})})["it"]
    page.evaluate("() => app.canvas.selectNode(app.canvas.graph._nodes[0])")
    handle = plots.element(page, node).query_selector(".handle")
    handle.focus()
    gamma = 0.3
    for key, change in (
        ("ArrowUp", 0.01),
        ("ArrowRight", 0.01),
        ("ArrowLeft", -0.01),
        ("PageUp", 0.1),
        ("PageDown", -0.1),
    ):
        page.keyboard.press(key)
        gamma += change
        assert ui.widget(page, node, "gamma") == pytest.approx(gamma), key
    for key, value in (("End", 1.0), ("Home", 0.0)):
        page.keyboard.press(key)
        assert ui.widget(page, node, "gamma") == value
    page.wait_for_function("handle => handle.ariaValueNow === '0' && handle.ariaValueText === '0.000'", arg=handle)
    for key in ("Delete", "Backspace", "m", "r", "."):  # on the canvas: delete, mute, refresh, fit
        page.keyboard.press(key)
    (left,) = ui.nodes(page)
    assert left["id"] == node and page.evaluate("() => app.canvas.graph._nodes[0].mode") == 0
    ui.undo(page)
    assert ui.widget(page, node, "gamma") == 1.0


def test_handles_before_the_run_s_start_stand_apart(page):
    """At denoise .4 the first three of five values lie before the run: side by side, said, movable by mouse and key."""
    ids = ui.build(
        page,
        {
            "schedule": (SCHEDULE, (0, 0), {"shape": "list", "values": "1, .8, .6, .4, .2", "interpolate": True}),
            "ksampler": (KSAMPLER, (400, 0), {"denoise": 0.4}),
        },
        [("schedule", 0, "ksampler", "gamma_schedule")],
    )
    node = ids["schedule"]
    gamma = {"shape": "list", "values": (1.0, 0.8, 0.6, 0.4, 0.2), "interpolate": True}
    plots.wait_for_table(page, node, plots.run(gamma=gamma, denoise=0.4))
    shown = plots.element(page, node).query_selector_all(".handle")
    boxes = [handle.bounding_box() for handle in shown]
    middles = [box["x"] + box["width"] / 2 for box in boxes]
    assert all(right - left >= 16 for left, right in zip(middles, middles[1:], strict=False)), middles
    assert all(box["width"] >= 16 for box in boxes)
    assert [bool("before" in handle.get_attribute("class").split()) for handle in shown] == [True] * 3 + [False] * 2
    plots.drag(page, node, 1, 0.5)
    new = plots.handles(page, node)[1]["value"]
    assert new == plots.close(0.5) and ui.widget(page, node, "values") == f"1, {new:g}, .6, .4, .2"
    shown[2].focus()
    page.keyboard.press("ArrowDown")
    assert ui.widget(page, node, "values") == f"1, {new:g}, 0.59, .4, .2"
    assert "before this run's start" in plots.element(page, node).query_selector(".readout").text_content()
    ui.set_widget(page, node, "shape", "linear")
    ui.set_widget(page, node, "start", 1.0)
    start, end = plots.element(page, node).query_selector_all(".handle")
    left = plots.element(page, node).query_selector("path.denoise.active").bounding_box()["x"]
    box = start.bounding_box()
    assert box["x"] + box["width"] / 2 < left - 16 and "before" in start.get_attribute("class")
    assert "before" not in end.get_attribute("class")
    ui.set_widget(page, ids["ksampler"], "denoise", 1.0)
    plots.wait_for_table(page, node, plots.run(gamma=linear(1.0, 0.1)))
    assert "before" not in start.get_attribute("class")


def test_handles_are_reached_by_tab(page):
    node = ui.build(page, {"it": (SCHEDULE, (0, 0), {})})["it"]
    plots.element(page, node).query_selector(".cursor").focus()
    focused = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.tagName"
    labels = []
    for _ in range(3):
        page.keyboard.press("Tab")
        labels.append(page.evaluate(focused))
    assert labels == ["gamma at the start", "gamma at the end", "SELECT"]


def test_copies_are_plots_of_their_own(page):
    node = ui.build(page, {"it": (KSAMPLER, (0, 0), {"gamma": 0.7, "steps": 5})})["it"]
    page.evaluate(
        """() => { const c = app.canvas; c.selectNode(c.graph._nodes[0]); c.copyToClipboard(c.selectedItems);
                   c.graph_mouse[0] = 420; c.graph_mouse[1] = 40; c.pasteFromClipboard(); }"""
    )
    ui.settle(page)
    (copy,) = [one["id"] for one in ui.nodes(page) if one["id"] != node]
    page.evaluate("id => { app.canvas.graph._nodes.find(n => String(n.id) === id).pos = [420, 0]; }", copy)
    plots.wait_for_table(page, copy, plots.run(5, 0.7))
    ui.set_widget(page, copy, "gamma", 0.2)
    plots.wait_for_table(page, copy, plots.run(5, 0.2))
    plots.wait_for_table(page, node, plots.run(5, 0.7))


def test_plot_follows_across_a_subgraph_s_border(page):
    """The sampler goes into a subgraph, the schedule stays out: each still finds the other."""
    ids = ui.build(
        page,
        {"schedule": (SCHEDULE, (0, 0), {}), "ksampler": (KSAMPLER, (400, 0), {"steps": 6})},
        [("schedule", 0, "ksampler", "gamma_schedule")],
    )
    ui.to_subgraph(page, ids["ksampler"])
    plots.wait_for_table(page, ids["schedule"], plots.run(6, linear(0.5, 0.1)))
    ui.set_widget(page, ids["schedule"], "start", 0.9)
    ui.open_subgraph(page)
    inner = ui.node_of(page, KSAMPLER)
    plots.wait_for_table(page, inner, plots.run(6, linear(0.9, 0.1)))
    ui.set_widget(page, inner, "steps", 3)
    plots.wait_for_table(page, inner, plots.run(3, linear(0.9, 0.1)))
    ui.close_subgraph(page)
    plots.wait_for_table(page, ids["schedule"], plots.run(3, linear(0.9, 0.1)))
    assert page.errors == []


def test_widget_promoted_to_a_subgraph_counts(page):
    node = ui.build(page, {"ksampler": (KSAMPLER, (400, 0), {})})["ksampler"]
    ui.to_subgraph(page, node)
    page.evaluate(
        """() => {
            const outer = app.canvas.graph._nodes.find(n => n.subgraph);
            const inner = outer.subgraph.nodes.find(n => n.type === "TCDToolkit_KSampler");
            outer.subgraph.addInput("steps", "INT").connect(inner.inputs.find(i => i.name === "steps"), inner);
        }"""
    )
    ui.settle(page)
    (outer,) = ui.nodes(page)
    ui.set_widget(page, outer["id"], "steps", 7)
    ui.open_subgraph(page)
    plots.wait_for_table(page, ui.node_of(page, KSAMPLER), plots.run(7))


def test_workflow_is_the_same_after_save_and_reload_of_the_page(page):
    ids = ui.build(
        page,
        {"schedule": (SCHEDULE, (0, 0), {"shape": "cosine", "start": 0.8}), "sampler": (SAMPLER, (400, 0), {})},
        [("schedule", 0, "sampler", "gamma_schedule")],
    )
    plots.drag(page, ids["schedule"], 1, 0.4)
    end = ui.widget(page, ids["schedule"], "end")
    before = ui.save(page)
    ui.open_app(page)
    ui.load(page, before)
    plots.wait_for_table(page, ids["sampler"], plots.run(gamma={"shape": "cosine", "start": 0.8, "end": end}))
    after = ui.save(page)
    values = [[node["type"], node["widgets_values"], node["size"]] for node in before["nodes"]]
    if not page.front_end.vue:  # which measures its nodes on the page, in steps of its own
        assert [[node["type"], node["widgets_values"], node["size"]] for node in after["nodes"]] == values
    assert [node["widgets_values"] for node in after["nodes"]] == [node["widgets_values"] for node in before["nodes"]]


def test_plots_can_be_switched_off_and_on(page):
    ids = ui.build(page, {"old": (KSAMPLER, (0, 0), {})})
    tall = ui.save(page)["nodes"][0]["size"][1]
    switch = "shown => app.extensionManager.setting.set('TCDToolkit.plot', shown)"
    page.evaluate(switch, False)
    try:
        ids |= ui.build(page, {"new": (KSAMPLER, (400, 0), {})})
        ui.settle(page)
        assert page.evaluate("document.querySelectorAll('.tcd-plot').length") == 0
        assert all("tcd_plot" not in node["widgets"] for node in ui.nodes(page))
        assert ui.save(page)["nodes"][0]["size"][1] < tall or page.front_end.vue
    finally:
        page.evaluate(switch, True)
    for node in ids.values():
        plots.wait_for_table(page, node, plots.run())
    assert page.errors == []
