"""Every node's help opens in the real front end, with its picture, in the user's language; so are the nodes' names."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import ui

REPOSITORY = Path(__file__).resolve().parents[2]
NODES = sorted(json.loads((REPOSITORY / "tests/host/snapshots/nodes.json").read_text(encoding="utf-8")))
CONTENT = ".markdown-content:visible, .comfy-markdown-content:visible"
LABELS = """() => { const node = app.graph._nodes[0]; return {
    title: node.title, inputs: Object.fromEntries(node.inputs.map(i => [i.name, i.label ?? i.localized_name])),
    widgets: Object.fromEntries((node.widgets ?? []).map(w => [w.name, w.label])) }; }"""


def names(language: str, node: str) -> dict:
    return json.loads((REPOSITORY / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))[node]


def headings(node: str, language: str) -> list[str]:
    file = f"{node}.md" if language == "en" else f"{node}/{language}.md"
    lines = (REPOSITORY / "web" / "docs" / file).read_text(encoding="utf-8").splitlines()
    return [line.lstrip("# ") for line in lines if line.startswith("#")]


def add_node(page, node: str) -> None:
    ui.load(page, {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "version": 0.4})
    page.evaluate("type => { const n = LiteGraph.createNode(type); n.pos = [0, 0]; app.graph.add(n); }", node)
    ui.view(page, 1, 450, 200)


def open_help(page):
    """Press the selected node's info button; returns the rendered page."""
    page.evaluate("() => { app.canvas.selectNode(app.graph._nodes[0]); app.canvas.setDirty(true, true); }")
    page.locator("[data-testid=info-button]:visible").first.click()
    content = page.locator(CONTENT).last
    content.locator("img").first.wait_for()
    return content


def check_page(page, node: str, language: str) -> None:
    content = open_help(page)
    title, *sections = headings(node, language)
    content.get_by_role("heading", name=title, exact=True).wait_for()
    shown = content.get_by_role("heading").all_inner_texts()
    assert [title, *sections] == [text.strip() for text in shown], node
    image = content.locator("img").first
    page.wait_for_function("image => image.complete", arg=image.element_handle())
    assert image.evaluate("image => image.naturalWidth") > 300, node
    assert "*" not in content.inner_text() and "](" not in content.inner_text(), node
    assert content.locator("table").count() == 1 and content.locator("script").count() == 0


@pytest.fixture
def chinese(page) -> Iterator:
    """The app in Simplified Chinese; afterwards in English again."""
    ui.set_settings(page, Comfy__Locale="zh")
    ui.open_app(page)
    yield page
    ui.set_settings(page, Comfy__Locale="en")
    ui.open_app(page)


def test_every_help_page_opens_with_its_picture(page, screenshots):
    for node in NODES:
        add_node(page, node)
        check_page(page, node, "en")
        page.screenshot(path=screenshots / f"{page.front_end.id}_help_{node}.png")


def test_nodes_and_their_help_are_chinese_for_a_chinese_user(chinese, screenshots):
    for node in NODES:
        add_node(chinese, node)
        expected, shown = names("zh", node), chinese.evaluate(LABELS)
        assert shown["title"] == expected["display_name"]
        for name, words in expected["inputs"].items():
            labels = [shown[kind][name] for kind in ("inputs", "widgets") if name in shown[kind]]
            assert words["name"] in labels, (node, name, labels)
        check_page(chinese, node, "zh")
        chinese.screenshot(path=screenshots / f"{chinese.front_end.id}_help_zh_{node}.png")
