"""A running ComfyUI with this pack, open in a browser: for the scripts here that take pictures of it.

Needs what the tests in tests/browser need: a ComfyUI, Chromium and playwright.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "browser")]

import ui  # noqa: E402
from host_support.host import find_host  # noqa: E402
from host_support.server import make_base_directory, start_server, stop_server  # noqa: E402

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def opened(fill: Callable[[Path], None] = lambda models: None, settings: dict | None = None, **window) -> Iterator:
    """The page, for `ui`'s functions; the server has folders of its own, which are removed afterwards.

    Args:
        fill: puts files into the models folder.
        settings: of the front end, beside those the tests have.
        window: viewport, device_scale_factor, as playwright takes them.
    """
    from playwright.sync_api import sync_playwright

    base = make_base_directory(Path(tempfile.mkdtemp()))
    fill(base / "models")
    client, process = start_server(find_host(), base)
    try:
        with sync_playwright() as playwright:
            executable = os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, CHROMIUM)))
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            page = browser.new_page(**window)
            page.front_end, page.errors = SimpleNamespace(url=client.url, vue=False), []
            ui.SETTINGS.update(settings or {})
            ui.open_app(page)
            yield page
            browser.close()
    finally:
        stop_server(process)
        shutil.rmtree(base, ignore_errors=True)
