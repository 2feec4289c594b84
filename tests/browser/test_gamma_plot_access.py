"""What axe finds in the plots, contrast included, in both themes; and the pictures that a person looks at."""

import plots
import pytest
import ui
from PIL import Image, ImageStat

NO_AXE = "no axe: `pip install axe-playwright-python` gets it"
THEMES = ("dark", "light")
NODES = {
    "schedule": ("TCDToolkit_GammaSchedule", (0, 0), {}),
    "ksampler": ("TCDToolkit_KSampler", (300, 0), {}),
    "advanced": ("TCDToolkit_KSamplerAdvanced", (600, 0), {"steps": 8, "start_at_step": 2, "end_at_step": 6}),
    "sampler": ("TCDToolkit_Sampler", (0, 410), {"gamma": 0.8}),
    "wrong": ("TCDToolkit_GammaSchedule", (930, 0), {"shape": "list", "values": "0.5"}),
    "many": ("TCDToolkit_KSampler", (930, 410), {"steps": 30, "gamma": 0.5, "denoise": 0.6}),
}
LINKS = [("schedule", 0, "ksampler", "gamma_schedule")]
# Of text and of what is drawn against the panel behind it: WCAG's contrast ratio. Returns the lowest of each.
CONTRAST = """plot => {
    const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgb = colour => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
        return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3); };
    const luminance = colour => rgb(colour).map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const panel = luminance(getComputedStyle(plot).backgroundColor);
    const ratio = l => (Math.max(l, panel) + 0.05) / (Math.min(l, panel) + 0.05);
    const of = (selector, key) =>
        [...plot.querySelectorAll(selector)].map(e => ratio(luminance(getComputedStyle(e)[key])));
    const written = of(".readout, .readout span, .note, label, select", "color");
    const lines = of("svg .denoise.active, svg .noise.active, svg .gamma.active", "stroke");
    return {
        text: Math.min(...of("svg text:not(.idle)", "fill"), ...written),
        drawn: Math.min(...lines, ...of("svg .bar.active", "fill")),
    };
}"""


@pytest.fixture(params=THEMES)
def themed(page, request):
    """The page with every kind of plot on it, in a theme."""
    page.evaluate("theme => app.extensionManager.setting.set('Comfy.ColorPalette', theme)", request.param)
    ids = ui.build(page, NODES, LINKS)
    plots.element(page, ids["many"])
    ui.settle(page, 20)
    yield page, ids, request.param
    page.evaluate("() => app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")


def test_axe_finds_nothing_serious(themed):
    page = themed[0]
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=NO_AXE).Axe()
    found = axe.run(page, context=".tcd-plot", options={"resultTypes": ["violations"]})
    serious = [one for one in found.response["violations"] if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"]]) for one in serious]
    checked = {one["id"] for one in found.response["passes"]}
    assert {"aria-input-field-name", "select-name", "svg-img-alt"} <= checked  # it has looked at the plots


def test_axe_would_find_a_handle_without_a_name(page):
    """The check above can fail."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=NO_AXE).Axe()
    node = ui.build(page, {"it": ("TCDToolkit_KSampler", (0, 0), {})})["it"]
    plots.element(page, node).query_selector(".handle").evaluate("e => e.removeAttribute('aria-label')")
    found = axe.run(page, context=".tcd-plot").response["violations"]
    assert "aria-input-field-name" in {one["id"] for one in found if one["impact"] in ("serious", "critical")}


def test_text_and_lines_stand_out_from_the_panel(themed):
    """WCAG AA: 4.5 for text, 3 for what is drawn; steps that are not run here are greyed on purpose."""
    page, ids, _ = themed
    for name, node in ids.items():
        ratios = plots.element(page, node).evaluate(CONTRAST)
        assert ratios["text"] >= 4.5 and (name == "wrong" or ratios["drawn"] >= 3), (name, ratios)


def test_plots_are_drawn_inside_their_nodes(themed, screenshots):
    """A screenshot of each theme; no plot hangs out of its node, and none of its texts out of the plot."""
    page, ids, theme = themed
    page.mouse.move(5, 500)
    page.screenshot(path=screenshots / f"{page.front_end.id}_plots_{theme}.png")
    for name, node in ids.items():
        plot = plots.element(page, node)
        outside = plot.evaluate(
            """plot => { const box = plot.getBoundingClientRect();
                return [...plot.querySelectorAll("svg text, .readout, .note, label")].filter(e => {
                    const own = e.getBoundingClientRect();
                    return own.width && (own.left < box.left - 1 || own.right > box.right + 1 ||
                                         own.top < box.top - 1 || own.bottom > box.bottom + 1);
                }).map(e => e.textContent); }"""
        )
        assert outside == [], (name, outside)
        assert ui.node_box(page, node)["bottom"] >= plot.bounding_box()["y"] + plot.bounding_box()["height"] - 1, name
    shot = Image.open(screenshots / f"{page.front_end.id}_plots_{theme}.png").convert("L")
    assert (ImageStat.Stat(shot).mean[0] > 128) == (theme == "light")


def test_picture_of_two_linked_nodes(page, screenshots):
    """docs/gamma_plot.png is this test's picture of the newest front end's nodes."""
    nodes = {
        "schedule": ("TCDToolkit_GammaSchedule", (0, 70), {"start": 0.8, "end": 0.2}),
        "ksampler": ("TCDToolkit_KSampler", (330, 0), {"steps": 6}),
    }
    ids = ui.build(page, nodes, LINKS)
    ui.view(page, 1.5, 140, 160)
    for node in ids.values():
        plots.wait_for_table(page, node, plots.run(6, {"shape": "linear", "start": 0.8, "end": 0.2}))
    boxes = [ui.node_box(page, node) for node in ids.values()]
    left, top = (min(box[side] for box in boxes) - 20 for side in ("left", "top"))
    right, bottom = (max(box[side] for box in boxes) + 20 for side in ("right", "bottom"))
    page.mouse.move(5, 500)
    ui.settle(page, 10)
    top -= 0 if page.front_end.vue else 45  # the title is not part of the node on the canvas
    clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    page.screenshot(path=screenshots / f"{page.front_end.id}_gamma_plot.png", clip=clip)
    assert right < page.viewport_size["width"] and clip["height"] > 300
