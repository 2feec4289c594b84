"""Every example workflow in the real front end: no node is missing, nothing overlaps, and Queue sends what we think."""

import json
from itertools import combinations
from pathlib import Path

import pytest
import ui
from host_support.ui_workflow import to_prompt
from PIL import Image

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "example_workflows").glob("*.json"))
OTHER_PACKS = {"ip_adapter": {"IPAdapter", "IPAdapterUnifiedLoader"}}
FILES = {  # node type → folder of the file that is its first widget
    "CheckpointLoaderSimple": "checkpoints",
    "ControlNetLoader": "controlnet",
    "LoraLoader": "loras",
    "TCDToolkit_LoraLoader": "loras",
}
BOXES = """() => app.canvas.graph._nodes.map(n => {
    const [x, y, w, h] = n.getBounding ? n.getBounding() : n.boundingRect;
    return { id: n.id, title: n.title || n.type, x, y, w, h };
})"""


@pytest.fixture
def page(page):
    """With placeholder files under the names that the workflows ask for."""
    base, new = page.front_end.client.base, []
    for file in EXAMPLES:
        for node in json.loads(file.read_text(encoding="utf-8"))["nodes"]:
            new += [base / "models" / FILES[node["type"]] / node["widgets_values"][0]] if node["type"] in FILES else []
    new = [file for file in {*new, base / "input" / "example.png"} if not file.exists()]
    for file in new:
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64)).save(file, "PNG") if file.suffix == ".png" else file.touch()
    if new:
        ui.open_app(page)
        ui.reset(page)
    return page


def known_nodes(workflow: dict, others: set[str]) -> dict:
    """The workflow without other packs' nodes and their links."""
    kept = [node for node in workflow["nodes"] if node["type"] not in others]
    ids = {node["id"] for node in kept}
    links = [link for link in workflow["links"] if link[1] in ids and link[3] in ids]
    alive = {link[0] for link in links}
    slots = [[{**i, "link": i["link"] if i["link"] in alive else None} for i in node["inputs"]] for node in kept]
    return {**workflow, "links": links, "nodes": [{**n, "inputs": i} for n, i in zip(kept, slots, strict=True)]}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_opens_whole(page, file, screenshots):
    workflow = json.loads(file.read_text(encoding="utf-8"))
    ui.load(page, workflow)
    assert len(ui.nodes(page)) == len(workflow["nodes"])
    missing = {node["type"] for node in ui.nodes(page) if node["unknown"]}
    assert missing == OTHER_PACKS.get(file.stem, set())
    if missing:
        dismiss_dialog(page)
        ui.load(page, workflow := known_nodes(workflow, missing))
        page.errors.clear()
    assert page.errors == [] and ui.dialogs(page) == []
    check_prompt(page, workflow)
    check_layout(page, workflow)
    ui.view(page, 1250 / max(x + w for x, _, w, _ in (group["bounding"] for group in workflow["groups"])))
    page.screenshot(path=screenshots / f"{page.front_end.id}_{file.stem}.png")


def dismiss_dialog(page) -> None:
    """What tells of missing nodes: a dialog, which takes its time, or in the newest front end a note in a corner."""
    for _ in range(50):
        if ui.dialogs(page):
            page.keyboard.press("Escape")
            break
        page.wait_for_timeout(100)
    page.wait_for_timeout(500)


def check_prompt(page, workflow: dict) -> None:
    """What Queue would send is what tests/host runs."""
    info = page.front_end.client.object_info()
    sent = ui.to_prompt(page)
    for node in sent.values():  # PreviewAny's own display is sent too, and not read
        read = {name for names in info[node["class_type"]]["input"].values() for name in names}
        node["inputs"] = {name: value for name, value in node["inputs"].items() if name in read}
        node.pop("_meta", None)
    assert sent == dict(to_prompt(workflow, info))


def check_layout(page, workflow: dict) -> None:
    """Nothing overlaps at the sizes that the front end gives, plots included; all but the note lie in a group."""
    boxes = page.evaluate(BOXES)
    for a, b in combinations(boxes, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)
    for box in boxes:
        inside = [
            x <= box["x"] and y <= box["y"] and box["x"] + box["w"] <= x + w and box["y"] + box["h"] <= y + h
            for x, y, w, h in (group["bounding"] for group in workflow["groups"])
        ]
        assert any(inside) or box["title"] == "Read me", box
