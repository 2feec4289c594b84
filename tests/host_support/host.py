"""Finding a ComfyUI and its interpreter, and running scripts under it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

NO_HOST = "no ComfyUI at $COMFYUI_PATH or ~/comfy/ComfyUI: `pip install comfy-cli && comfy install` gets one"
NO_PYTHON = "ComfyUI at {root} has no .venv or venv: set COMFYUI_PYTHON to the interpreter that runs it"


class HostNotFoundError(Exception):
    """There is no ComfyUI to test against; the message is one sentence that says how to get one."""


class DriverError(Exception):
    """A script failed under the host's interpreter; the message holds its output."""


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without what would make the host's interpreter import our tree (or our packages)."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    # The networks are tiny. A second thread gains a fifth on an idle machine; on a busy one the two spin waiting for
    # each other and a run takes ten times as long.
    return {**kept, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **extra}


@dataclass(frozen=True)
class Host:
    """A ComfyUI checkout and the interpreter that has its requirements."""

    root: Path
    python: Path

    @property
    def version(self) -> str:
        """ComfyUI's version, read without importing it; "unknown" where it is kept elsewhere."""
        file = self.root / "comfyui_version.py"
        found = re.search(r'__version__ = "([^"]+)"', file.read_text() if file.is_file() else "")
        return found[1] if found else "unknown"

    def run_driver(self, script: Path, *arguments: object, timeout: float = 120.0) -> str:
        """Run `script` under the host's interpreter, outside this repository, and return what it printed.

        The script finds the host in the environment variable COMFYUI_PATH and has to put it on `sys.path` itself.
        Tensors travel through files named in `arguments`. Raises DriverError with all output if the script fails.
        """
        command = [str(self.python), str(Path(script).resolve()), *map(str, arguments)]
        with tempfile.TemporaryDirectory() as folder:
            try:
                done = subprocess.run(
                    command,
                    cwd=folder,
                    env=clean_environment(COMFYUI_PATH=str(self.root)),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                    timeout=timeout,
                )
            except subprocess.TimeoutExpired as late:
                raise DriverError(f"{script} ran past {timeout} s\n{late.stdout}\n{late.stderr}") from late
        if done.returncode:
            raise DriverError(f"{script} exited with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout


def find_host() -> Host:
    """The ComfyUI at $COMFYUI_PATH, else where `comfy install` puts it. Raises HostNotFoundError."""
    root = Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser().resolve()
    if not (root / "main.py").is_file():
        raise HostNotFoundError(NO_HOST)
    inside = Path("Scripts/python.exe") if os.name == "nt" else Path("bin/python")
    candidates = [root / ".venv" / inside, root / "venv" / inside]
    if os.environ.get("COMFYUI_PYTHON"):
        candidates.append(Path(os.environ["COMFYUI_PYTHON"]).expanduser())
    for python in candidates:
        if python.is_file():
            return Host(root, python)  # unresolved: a virtual environment's python is a link that must stay one
    raise HostNotFoundError(NO_PYTHON.format(root=root))
