"""The gamma plot says what tcd_core plans, for each node that has one, and follows widgets and links."""

import math

import plots
import pytest
import ui

SCHEDULE, SAMPLER = "TCDToolkit_GammaSchedule", "TCDToolkit_Sampler"
KSAMPLER, ADVANCED = "TCDToolkit_KSampler", "TCDToolkit_KSamplerAdvanced"
LINEAR = {"shape": "linear", "start": 0.5, "end": 0.1}


def one(page, kind: str, **widgets) -> str:
    return ui.build(page, {"it": (kind, (0, 0), widgets)})["it"]


def test_numbers_follow_the_widgets_of_ksampler(page):
    node = one(page, KSAMPLER)
    plots.wait_for_table(page, node, plots.run())
    for name, value, settings in (
        ("gamma", 0.6, {"gamma": 0.6}),
        ("steps", 8, {"gamma": 0.6, "steps": 8}),
        ("denoise", 0.5, {"gamma": 0.6, "steps": 8, "denoise": 0.5}),
        ("steps", 30, {"gamma": 0.6, "steps": 30, "denoise": 0.5}),
    ):
        ui.set_widget(page, node, name, value)
        plots.wait_for_table(page, node, plots.run(**settings))
    assert page.errors == []


@pytest.mark.parametrize(
    ("widgets", "gamma"),
    [
        ({"shape": "linear"}, LINEAR),
        ({"shape": "cosine", "start": 1.0, "end": 0.0}, {"shape": "cosine", "start": 1.0, "end": 0.0}),
        ({"shape": "power", "exponent": 3.0}, {**LINEAR, "shape": "power", "exponent": 3.0}),
        ({"shape": "list", "values": "0.9 0.5;0.1"}, {"shape": "list", "values": (0.9, 0.5, 0.1)}),
        (
            {"shape": "list", "values": "1, 0.2", "interpolate": True},
            {"shape": "list", "values": (1.0, 0.2), "interpolate": True},
        ),
    ],
    ids=["linear", "cosine", "power", "list", "interpolated"],
)
def test_every_shape_of_a_gamma_schedule(page, widgets, gamma):
    node = one(page, SCHEDULE, **widgets)
    plots.wait_for_table(page, node, plots.run(gamma=gamma))
    assert "not connected" in plots.note(page, node)


def test_schedule_and_sampler_take_each_other_s_settings_across_links(page):
    """γ from the schedule, through a reroute; steps from the sampler; both follow."""
    ids = ui.build(
        page,
        {
            "schedule": (SCHEDULE, (0, 0), {}),
            "reroute": ("Reroute", (320, 40), {}),
            "ksampler": (KSAMPLER, (460, 0), {"steps": 6}),
        },
        [("schedule", 0, "reroute", ""), ("reroute", 0, "ksampler", "gamma_schedule")],
    )
    for node in (ids["schedule"], ids["ksampler"]):
        plots.wait_for_table(page, node, plots.run(6, LINEAR))
    assert "γ from TCD Gamma Schedule" in plots.note(page, ids["ksampler"])
    ui.set_widget(page, ids["schedule"], "end", 0.9)
    ui.set_widget(page, ids["ksampler"], "steps", 3)
    for node in (ids["schedule"], ids["ksampler"]):
        plots.wait_for_table(page, node, plots.run(3, {**LINEAR, "end": 0.9}))
    assert plots.handles(page, ids["ksampler"]) == []  # γ is the schedule's to move
    ui.disconnect(page, ids["ksampler"], "gamma_schedule")
    plots.wait_for_table(page, ids["ksampler"], plots.run(3, 0.3))


def test_sampler_and_schedule_find_the_scheduler_of_their_samplercustom(page):
    ids = ui.build(
        page,
        {
            "schedule": (SCHEDULE, (0, 0), {}),
            "sampler": (SAMPLER, (320, 0), {}),
            "scheduler": ("TCDToolkit_Scheduler", (0, 420), {"steps": 5, "denoise": 0.8}),
            "custom": ("SamplerCustom", (640, 0), {}),
        },
        [
            ("schedule", 0, "sampler", "gamma_schedule"),
            ("sampler", 0, "custom", "sampler"),
            ("scheduler", 0, "custom", "sigmas"),
        ],
    )
    for node in (ids["schedule"], ids["sampler"]):
        plots.wait_for_table(page, node, plots.run(5, LINEAR, 0.8))
    ui.set_widget(page, ids["scheduler"], "times", "900, 500, 100")
    times = plots.plan(plots.VP, [900, 500, 100][1:], plots.GammaSchedule(**LINEAR))  # strength keeps the last two
    plots.wait_for_table(page, ids["sampler"], times)


def test_what_the_page_cannot_know_is_said(page):
    ids = ui.build(
        page,
        {
            "alone": (SAMPLER, (0, 0), {}),
            "karras": ("KarrasScheduler", (0, 320), {"steps": 7}),
            "ksampler": (KSAMPLER, (320, 0), {}),
        },
        [("karras", 0, "ksampler", "sigmas")],
    )
    assert plots.note(page, ids["alone"]) == "not connected: drawn for 4 steps"
    assert "sigmas of KarrasScheduler are not known here" in plots.note(page, ids["ksampler"])
    plots.wait_for_table(page, ids["ksampler"], plots.run(7))


def test_schedule_finds_the_stock_ksampler_behind_a_patch(page):
    ids = ui.build(
        page,
        {
            "schedule": (SCHEDULE, (0, 0), {}),
            "patch": ("TCDToolkit_GammaPatch", (320, 0), {}),
            "stock": ("KSampler", (640, 0), {"steps": 5, "scheduler": "tcd"}),
        },
        [("schedule", 0, "patch", "gamma_schedule"), ("patch", 0, "stock", "model")],
    )
    plots.wait_for_table(page, ids["schedule"], plots.run(5, LINEAR))
    assert plots.note(page, ids["schedule"]) == ""
    ui.set_widget(page, ids["stock"], "scheduler", "karras")
    page.wait_for_function(f"id => ({plots.PLOT})(id).textContent.includes('are not drawn')", arg=ids["schedule"])


def test_bypassed_schedule_counts_for_nothing(page):
    """As on Run: a node that is bypassed hands nothing on, and gamma holds."""
    ids = ui.build(
        page,
        {"schedule": (SCHEDULE, (0, 0), {}), "ksampler": (KSAMPLER, (400, 0), {"gamma": 0.7})},
        [("schedule", 0, "ksampler", "gamma_schedule")],
    )
    plots.wait_for_table(page, ids["ksampler"], plots.run(4, LINEAR))
    page.evaluate("id => { app.canvas.graph._nodes.find(n => String(n.id) === id).mode = 4; }", ids["schedule"])
    plots.wait_for_table(page, ids["ksampler"], plots.run(4, 0.7))
    (sampler,) = ui.to_prompt(page).values()
    assert "gamma_schedule" not in sampler["inputs"]
    assert sampler["inputs"]["gamma"] == pytest.approx(0.7)


def test_steps_outside_a_stage_are_set_apart(page):
    node = one(page, ADVANCED, steps=6, start_at_step=1, end_at_step=4)
    steps = plots.run(6)
    landed = plots.plan(plots.VP, [step.t.t for step in steps[1:4]], 0.3)[-1]  # leftover noise disabled: to the end
    names = ["1 (not run here)", "2", "3", "4", "5 (not run here)", "6 (not run here)"]
    plots.wait_for_table(page, node, [*steps[:3], landed, *steps[4:]], names)
    ui.set_widget(page, node, "return_with_leftover_noise", "enable")
    plots.wait_for_table(page, node, steps, names)


def test_flow_model_s_times_are_a_choice_that_is_saved(page):
    node = one(page, KSAMPLER)
    plots.element(page, node).query_selector("select").select_option("Flow, shift 3 (SD3)")
    plots.wait_for_table(page, node, plots.run(shift=3.0))
    ui.undo(page)
    plots.wait_for_table(page, node, plots.run())
    ui.redo(page)
    plots.wait_for_table(page, node, plots.run(shift=3.0))
    saved = ui.save(page)
    ui.reset(page)
    ui.load(page, saved)
    plots.wait_for_table(page, node, plots.run(shift=3.0))


def test_flux_has_ten_thousand_times(page):
    """Steps past the coarse grid's 50 points land between the thousandths; so does a low denoise."""
    node = one(page, KSAMPLER)
    plots.element(page, node).query_selector("select").select_option("Flow, shift 3.16 (Flux)")
    flux = {"shift": math.exp(1.15), "total": 10_000}
    plots.wait_for_table(page, node, plots.run(**flux))
    for steps, denoise in ((60, 1.0), (60, 0.35), (3, 0.35)):
        ui.set_widget(page, node, "steps", steps)
        ui.set_widget(page, node, "denoise", denoise)
        plots.wait_for_table(page, node, plots.run(steps, denoise=denoise, **flux))


def test_plot_follows_the_mouse_on_a_widget(page):
    """A click where a user raises a number by one step: the arrow on the canvas, the plus button of Vue's input."""
    node = one(page, KSAMPLER)
    plots.wait_for_table(page, node, plots.run())
    for name, settings in (("gamma", {"gamma": 0.31}), ("steps", {"gamma": 0.31, "steps": 5})):
        ui.click_more(page, node, name)
        assert ui.widget(page, node, name) == pytest.approx(settings[name])
        plots.wait_for_table(page, node, plots.run(**settings))
    assert page.errors == []


@pytest.mark.parametrize("front_end", ["newest-vue"], indirect=True)
def test_plot_speaks_the_app_s_chinese(page):
    """And English again afterwards, without a reload."""
    node = one(page, KSAMPLER)
    alone = ui.build(page, {"it": (SAMPLER, (400, 0), {})})["it"]
    wrong = ui.build(page, {"it": (SCHEDULE, (800, 0), {"shape": "list", "values": "0.5, x"})})["it"]
    plots.wait_for_table(page, node, plots.run())
    says = f"([id, text]) => ({plots.PLOT})(id)?.querySelector('.readout').textContent === text"
    switch = "locale => app.extensionManager.setting.set('Comfy.Locale', locale)"
    try:
        page.evaluate(switch, "zh")
        page.wait_for_function(says, arg=[node, "↘ 降噪 t → s\u2002↑ 加噪 σ\u2002─ γ"])
        assert plots.note(page, alone) == "未连接：按 4 步绘制"
        assert plots.element(page, node).query_selector("caption").text_content().startswith("本次运行的各步")
        assert "'x' is not a number" in plots.note(page, wrong)  # the node's own sentence stays the node's
    finally:
        page.evaluate(switch, "en")
    page.wait_for_function(says, arg=[node, "↘ denoise t → s\u2002↑ noise σ\u2002─ γ"])


def test_a_schedule_draws_the_times_of_the_node_it_feeds(page):
    """A flow's, chosen on the sampler; its own choice goes first."""
    linear = {"start": 0.8, "end": 0.2}
    nodes = {"schedule": (SCHEDULE, (0, 0), linear), "sampler": (KSAMPLER, (400, 0), {})}
    ids = ui.build(page, nodes, [("schedule", 0, "sampler", "gamma_schedule")])
    find = "app.canvas.graph._nodes.find(n => String(n.id) === id)"
    choose = f"([id, shift]) => {{ {find}.properties.tcd_flow_shift = shift; }}"
    linear["shape"] = "linear"
    page.evaluate(choose, [ids["sampler"], 3])
    for node in ids.values():
        plots.wait_for_table(page, node, plots.run(4, linear, shift=3))
    page.evaluate(choose, [ids["schedule"], 1])
    plots.wait_for_table(page, ids["schedule"], plots.run(4, linear, shift=1))


def test_wrong_settings_get_the_node_s_own_sentence(page):
    node = one(page, SCHEDULE, shape="list", values="0.5, 0.1")
    assert "the gamma list has 2 values, this run of 4 steps needs 3" in plots.note(page, node)
    ui.set_widget(page, node, "values", "0.5, x, 0.1")
    assert "'x' is not a number" in plots.note(page, node)


def test_widget_stays_out_of_prompt_and_workflow(page):
    ids = ui.build(page, {"a": (KSAMPLER, (0, 0), {}), "b": (SCHEDULE, (400, 0), {})})
    inputs = [node["inputs"] for node in ui.to_prompt(page).values()]
    assert {tuple(one) for one in inputs if "shape" in one} == {
        ("shape", "start", "end", "exponent", "values", "interpolate")
    }
    assert not any("tcd_plot" in one for one in inputs)
    lengths = {str(node["id"]): len(node["widgets_values"]) for node in ui.save(page)["nodes"]}
    assert lengths == {ids["a"]: 7, ids["b"]: 6}


def test_cursor_reads_the_steps_out(page):
    node = one(page, KSAMPLER)
    plot = plots.element(page, node)
    readout = plot.query_selector(".readout")
    assert "noise σ" in readout.text_content()
    box = plot.query_selector(".cursor").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
    ui.settle(page)
    noise = f"{plots.run()[1].b:.3f}".lstrip("0")
    assert readout.text_content() == f"2/4 · t 759 → s 349, σ {noise} → 499, γ .3"
    page.mouse.move(5, 5)
    cursor = plot.query_selector(".cursor")
    cursor.focus()
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight"):
        cursor.press(key)
    assert cursor.get_attribute("aria-valuetext") == "4/4 · t 259 → 0, the end"
    assert (cursor.get_attribute("aria-valuenow"), cursor.get_attribute("aria-valuemax")) == ("4", "4")
