"""Fixtures for tests in a real browser, on the real front end of a real server; without one of them they skip.

`page` is an app that is loaded once per front end and emptied between tests: `ui.load` puts a workflow into it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ui
from front_ends import FrontEnd, NoFrontEndError, newest_static
from host_support import tiny_checkpoints
from host_support.host import Host, HostNotFoundError, find_host
from host_support.server import make_base_directory, start_server, stop_server
from told import tell

FRONT_ENDS = {  # id → (whose front end, drawn with Vue)
    "pinned-litegraph": ("pinned", False),
    "newest-vue": ("newest", True),
    "newest-litegraph": ("newest", False),
}
NO_BROWSER = "no Chromium: `apt-get install chromium` (or set CHROMIUM_PATH), and `pip install playwright`, get one"
VIEWPORT = {"width": 1400, "height": 1000}
CHROMIUM_FLAGS = ("--no-sandbox", "--disable-background-networking", "--no-first-run")


def _skip(reason: str) -> None:
    tell(f"tests/browser: SKIPPED, {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def comfyui() -> Host:
    """The host's folder and interpreter."""
    try:
        return find_host()
    except HostNotFoundError as missing:
        _skip(str(missing))


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Debian's Chromium, headless, driven by playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _skip(NO_BROWSER)
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    executable = os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        _skip(NO_BROWSER)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        tell(f"tests/browser: ran in Chromium {started.version}")
        yield started
        started.close()


class Servers:
    """One server for each package of front end, started beside each other in threads, on first use."""

    def __init__(self, host: Host, folder: Path, cache: Path, wanted: set[str]):
        self._pool = ThreadPoolExecutor(len(wanted))
        self._started = {name: self._pool.submit(self._start, host, folder / name, cache, name) for name in wanted}

    @staticmethod
    def _start(host: Host, base: Path, cache: Path, name: str):
        flags = () if name == "pinned" else ("--front-end-root", str(newest_static(cache)))
        make_base_directory(base)
        tiny_checkpoints.write("sd15", base / "models" / "checkpoints")
        return start_server(host, base, flags=flags)

    def client(self, name: str):
        """Its client. Raises NoFrontEndError, ServerError."""
        return self._started[name].result()[0]

    def close(self) -> None:
        for started in self._started.values():
            if started.exception() is None:
                stop_server(started.result()[1])
        self._pool.shutdown()


@pytest.fixture(scope="session")
def servers(request, comfyui: Host, browser, tmp_path_factory) -> Iterator[Servers]:
    collected = [item.callspec.params.get("front_end") for item in request.session.items if hasattr(item, "callspec")]
    wanted = {FRONT_ENDS[name][0] for name in collected if name}
    kept = getattr(request.config, "cache", None)  # there is none under -p no:cacheprovider
    cache = kept.mkdir("comfyui-front-end") if kept else tmp_path_factory.mktemp("comfyui-front-end")
    started = Servers(comfyui, tmp_path_factory.mktemp("browser"), cache, wanted)
    yield started
    started.close()


@pytest.fixture(scope="session", params=FRONT_ENDS)
def front_end(request, servers: Servers) -> FrontEnd:
    """A running server with this pack in it, and which renderer its page is to use."""
    package, vue = FRONT_ENDS[request.param]
    try:
        return FrontEnd(request.param, servers.client(package), vue)
    except NoFrontEndError as missing:
        _skip(str(missing))


@pytest.fixture(scope="session")
def app_page(front_end: FrontEnd, browser) -> Iterator:
    """The loaded app, one for all tests of a front end."""
    context = browser.new_context(viewport=VIEWPORT)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=front_end.url)
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.front_end, page.errors = front_end, []
    ui.collect_errors(page)
    ui.open_app(page)
    tell(f"tests/browser: {front_end.id} is front end {ui.version(page)}")
    yield page
    context.close()


@pytest.fixture
def page(app_page) -> Iterator:
    """The app with an empty graph; console errors of this test in `page.errors`, the server in `page.front_end`."""
    ui.reset(app_page)
    yield app_page


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    """Where screenshots go: $TCD_SCREENSHOTS, else a folder that the summary names."""
    folder = Path(os.environ.get("TCD_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tell(f"tests/browser: screenshots are in {folder}")
    return folder
