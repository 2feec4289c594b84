"""A report's page in a browser: what axe finds in light and dark, on a phone's width, and that names run nothing."""

import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
pytest.importorskip("matplotlib", reason="the trainer is not installed")
from report_figures import AS_IN_THE_PAPER, measured, real_model  # noqa: E402

from training.compare import comparison  # noqa: E402
from training.plots import metric_against_steps  # noqa: E402
from training.report import to_json, write_report  # noqa: E402
from training.report_html import page  # noqa: E402

NO_AXE = "no axe: `pip install axe-playwright-python` gets it"
HOSTILE = (
    "</title></style><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>\" onload=\"window.ran = 1"
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    folder, found = tmp_path_factory.mktemp("pages"), {}
    made = {
        "digits": measured(AS_IN_THE_PAPER),
        "real": real_model(tcd=HOSTILE, title=HOSTILE, conditions={HOSTILE: HOSTILE}, shown={"samples.png": [HOSTILE]}),
    }
    for name, results in made.items():
        (folder / name).mkdir()
        pictures = [folder / name / "samples.png", folder / name / "metric_against_steps.png"]
        Image.new("RGB", (1600, 900), "white").save(pictures[0])
        metric_against_steps(to_json(results), pictures[1])
        write_report(results, folder / name, pictures)
        found[name] = folder / name / "report.html"
    blocks, _ = comparison([to_json(made["real"])] * 2, ["a.json", HOSTILE])
    found["compared"] = folder / "compared.html"
    found["compared"].write_text(page(blocks), encoding="utf-8")
    return found


@pytest.fixture(params=["digits", "real", "compared"])
def report_page(request, browser, pages):
    """(page, every address that it asked for)."""
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    asked = []
    opened.on("request", lambda sent: asked.append(sent.url))
    opened.goto(pages[request.param].as_uri())
    yield opened, asked
    opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(report_page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=NO_AXE).Axe()
    opened, _ = report_page
    opened.emulate_media(color_scheme=scheme)
    found = axe.run(opened)
    told = [(one["id"], one["help"], one["nodes"][0]["html"][:200]) for one in found.response["violations"]]
    assert not told
    checked = {one["id"] for one in found.response["passes"]}
    assert {"color-contrast", "scope-attr-valid", "document-title"} <= checked  # it has looked at text and tables


def test_no_script_runs_and_nothing_is_fetched(report_page):
    opened, asked = report_page
    assert opened.evaluate("() => window.ran") is None
    assert opened.evaluate("() => document.scripts.length") == 0
    assert [url for url in asked if not url.startswith("data:")] == [opened.url]


def test_plots_follow_the_colour_scheme(browser, pages):
    opened = browser.new_page()
    opened.goto(pages["digits"].as_uri())
    shown = "() => [...document.images].find(i => i.src.includes('svg')).currentSrc"
    opened.emulate_media(color_scheme="light")
    opened.wait_for_function(shown)
    light = opened.evaluate(shown)
    opened.emulate_media(color_scheme="dark")
    opened.wait_for_function(f"light => ![light, ''].includes(({shown})())", arg=light)
    opened.close()


def test_a_narrow_page_scrolls_in_its_tables_alone(browser, pages):
    opened = browser.new_page(viewport={"width": 390, "height": 800})
    for path in pages.values():
        opened.goto(path.as_uri())
        assert opened.evaluate("() => document.documentElement.scrollWidth") <= 390
    opened.close()
