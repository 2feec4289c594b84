"""The front ends the browser tests run: the one the host pins, and the newest published."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from host_support.client import Client

PACKAGE = "comfyui-frontend-package"
STATIC = Path("comfyui_frontend_package", "static")


class NoFrontEndError(Exception):
    """The newest front end can't be had here; the message is one sentence."""


@dataclass(frozen=True)
class FrontEnd:
    """A running server and how its front end draws nodes."""

    id: str
    client: Client
    vue: bool

    @property
    def url(self) -> str:
        return self.client.url


def newest_static(cache: Path) -> Path:
    """The `static` folder of the newest published front end, installed once into `cache`.

    Raises:
        NoFrontEndError: none is there and none can be installed.
    """
    listed = _pip("index", "versions", PACKAGE)
    found = re.search(r"\(([\d.]+)\)", listed.stdout)
    kept = sorted(cache.glob(f"*/{STATIC}/index.html"), key=lambda file: _number(file.relative_to(cache).parts[0]))
    if found is None:
        if not kept:
            raise NoFrontEndError(f"the newest {PACKAGE} can't be had (`pip install {PACKAGE}` failed)")
        return kept[-1].parent
    target = cache / found[1]
    if not (target / STATIC / "index.html").is_file():
        done = _pip("install", "--no-deps", "--target", str(target), f"{PACKAGE}=={found[1]}")
        if done.returncode:
            shutil.rmtree(target, ignore_errors=True)
            raise NoFrontEndError(f"the newest {PACKAGE} can't be had (`pip install {PACKAGE}=={found[1]}` failed)")
    return target / STATIC


def _pip(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    environment = {name: value for name, value in os.environ.items() if name != "PIP_QUIET"}  # its words are read
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)


def _number(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
