"""Draws the example workflows' thumbnails: `python docs/workflows/draw.py URL`, of a running ComfyUI with this pack.

Each is the graph itself as that front end shows it, without its note and without any picture a model made. Needs
playwright, Pillow and a Chromium (CHROMIUM_PATH, or `chromium` on the path).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
MARGIN, BARS = 30, 100  # around the graph; the front end's own bars, left and on top
WIDTH, HEIGHT = 960, 540
BACKGROUND = (32, 32, 32)
LARGEST = 58_000  # bytes
OPEN = "async workflow => { await window.app.loadGraphData(workflow, true, true, 'thumbnail'); }"
MOVE = """([x, y]) => {
    const canvas = window.app.canvas, box = canvas.canvas.getBoundingClientRect();
    canvas.ds.scale = 1;
    canvas.ds.offset = [x - box.left, y - box.top];
    canvas.setDirty(true, true);
}"""


def photograph(page: Page, workflow: dict, whole: bool = False) -> Image.Image:
    """The graph at its own size; the note too if `whole`."""
    boxes = [group["bounding"] for group in workflow["groups"]]
    boxes += [[*node["pos"], *node["size"]] for node in workflow["nodes"] if whole and node["type"] == "MarkdownNote"]
    left, top = (min(box[i] for box in boxes) - MARGIN for i in (0, 1))
    right, bottom = (max(box[i] + box[i + 2] for box in boxes) + MARGIN for i in (0, 1))
    width, height = round(right - left), round(bottom - top)
    page.set_viewport_size({"width": width + 2 * BARS, "height": height + 2 * BARS})
    page.evaluate(OPEN, workflow)
    page.keyboard.press("Escape")  # the dialog about a pack that is not there
    page.wait_for_timeout(500)
    page.evaluate(MOVE, [BARS - left, BARS - top])
    page.wait_for_timeout(700)
    clip = {"x": BARS, "y": BARS, "width": width, "height": height}
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")


def stand_in() -> bytes:
    """What Load Image shows: a hill and a sun, in place of whatever picture lies on that machine."""
    picture = Image.new("RGB", (256, 256), "#7aa5c9")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((170, 30, 220, 80), fill="#f3d36b")
    draw.ellipse((-80, 140, 340, 520), fill="#7ba05b")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def thumbnail(picture: Image.Image) -> bytes:
    """A JPEG of the browser's shape and of at most LARGEST bytes."""
    picture.thumbnail((WIDTH, HEIGHT), Image.LANCZOS)
    card = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    card.paste(picture, ((WIDTH - picture.width) // 2, (HEIGHT - picture.height) // 2))
    for quality in range(88, 20, -4):
        file = io.BytesIO()
        card.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= LARGEST:
            break
    return file.getvalue()


def main(url: str, large: Path | None = None) -> None:
    """Thumbnails into example_workflows; where a folder is named, whole graphs as PNG into it as well."""
    chromium = os.environ.get("CHROMIUM_PATH") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.route("**/view?*example.png*", lambda route: route.fulfill(body=stand_in(), content_type="image/png"))
        page.goto(url)
        page.wait_for_function("window.app?.extensionManager && window.app.canvas?.graph", timeout=60_000)
        page.wait_for_timeout(2000)
        for file in sorted(FOLDER.glob("*.json")):
            workflow = json.loads(file.read_text(encoding="utf-8"))
            file.with_suffix(".jpg").write_bytes(thumbnail(photograph(page, workflow)))
            if large:
                photograph(page, workflow, whole=True).save(large / f"{file.stem}.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
