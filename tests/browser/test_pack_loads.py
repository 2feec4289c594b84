"""The app starts with the pack in it and takes a workflow."""

import json
from pathlib import Path

import ui

EXAMPLE = Path(__file__).resolve().parents[2] / "example_workflows" / "text_to_image_sd15.json"


def test_app_takes_a_workflow(page, screenshots):
    ui.load(page, json.loads(EXAMPLE.read_text()))
    assert "TCDToolkit_KSampler" in {node["type"] for node in ui.nodes(page)}
    assert page.errors == []
    page.screenshot(path=screenshots / f"{page.front_end.id}_example.png")
