"""A small client of ComfyUI's HTTP and websocket interface: post a workflow, wait, look at what came out."""

from __future__ import annotations

import io
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import websocket
from PIL import Image
from safetensors.torch import load_file

Workflow = dict[str, dict[str, Any]]
LOADERS = ("CheckpointLoaderSimple",)  # what a fresh run need not do again
PREVIEW_IMAGE = 1  # binary websocket message: event type, image format (4 bytes each), then the image file


def tail(text: str, lines: int = 60) -> str:
    """The last lines of a log."""
    return "\n".join(text.splitlines()[-lines:])


class WorkflowError(Exception):
    """The host refused a workflow or failed while executing it.

    `kind` is "validation", "execution" or "interrupted"; `exception_type` and `exception_message` are those of the
    exception in the node (for a refusal: the host's error type and message); `node_id` and `node_type` say where.
    """

    def __init__(self, kind: str, message: str, exception_type: str = "", node_id: str = "", node_type: str = ""):
        where = f" in {node_type} (node {node_id})" if node_id else ""
        super().__init__(f"{kind}{where}: " + ": ".join(filter(None, (exception_type, message))))
        self.kind, self.exception_type, self.exception_message = kind, exception_type, message
        self.node_id, self.node_type = node_id, node_type

    @property
    def interrupted(self) -> bool:
        return self.kind == "interrupted"


@dataclass
class Result:
    """What one workflow left behind."""

    client: Client
    prompt_id: str
    outputs: dict[str, dict]  # node id -> what the node showed
    seconds: float  # execution alone, by the host's clock
    cached: frozenset[str]  # ids of nodes that did not run again

    @cached_property
    def images(self) -> list[np.ndarray]:
        """The saved pictures (uint8, H × W × C), by node id and then in the order the node saved them."""
        by_node = sorted(self.outputs.items(), key=lambda item: (len(item[0]), item[0]))
        files = [file for _, output in by_node for file in output.get("images", [])]
        return [np.asarray(Image.open(io.BytesIO(self.client.view(file)))) for file in files]

    def text(self, node_id: str) -> str:
        """What TCDTest_ShowText or TCDTest_CallCount showed (any node's ui text)."""
        return "".join(self.outputs[node_id]["text"])

    def calls(self, node_id: str) -> Calls:
        """What TCDTest_CallCount counted."""
        return Calls(**json.loads(self.text(node_id)))

    def latent(self, node_id: str = "latent") -> torch.Tensor:
        """The tensor TCDTest_SaveLatent wrote, bit for bit."""
        return load_file(self.client.base / "output" / self.outputs[node_id]["tcd_latent"][0])["samples"]


@dataclass(frozen=True)
class Calls:
    """The network's evaluations between TCDTest_SlowModel and TCDTest_CallCount."""

    evaluations: int
    batches: list[int]  # rows of each evaluation; condition and no condition may share one
    times: list[float]  # the sigma of each evaluation, as the host hands it to the model
    cond_or_uncond: list[list[int]]  # per evaluation: 0 condition, 1 no condition


@dataclass(frozen=True)
class Progress:
    """One step of a node's progress bar."""

    node_id: str
    value: int
    maximum: int


@dataclass
class Events:
    """What the host told while a workflow ran, and how it ended: exactly one of result and error is set."""

    progress: list[Progress] = field(default_factory=list)
    previews: list[np.ndarray] = field(default_factory=list)
    result: Result | None = None
    error: WorkflowError | None = None


@dataclass
class Client:
    """A running server: `url`, its `--base-directory`, its log file and its process."""

    url: str
    base: Path
    log_file: Path
    process: subprocess.Popen = field(repr=False)

    @property
    def loras(self) -> Path:
        """The folder LoraLoader lists; files may be added at any time."""
        return self.base / "models" / "loras"

    @property
    def inputs(self) -> Path:
        """The folder LoadImage and TCDTest_LoadLatent read from."""
        return self.base / "input"

    def log(self) -> str:
        """Everything the server has printed."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def is_up(self) -> bool:
        try:
            self._request("/system_stats", timeout=2.0)
        except OSError:
            return False
        return True

    def object_info(self) -> dict[str, dict]:
        """All nodes' definitions, as the front end gets them."""
        return self._request("/object_info")

    def interrupt(self) -> None:
        """Stop the running workflow."""
        self._request("/interrupt", {})

    def view(self, file: dict[str, str]) -> bytes:
        """A file some node saved: {"filename", "subfolder", "type"}."""
        return self._open("/view?" + urllib.parse.urlencode(file)).read()

    def run(self, workflow: Workflow, timeout: float = 60.0, fresh: bool = True) -> Result:
        """Post an API-format workflow and wait for its end. Raises WorkflowError.

        With `fresh` every node but the loaders runs again: the host keeps the outputs of nodes whose inputs are as
        before, and two runs compared with each other would then be one. TimeoutError after `timeout` seconds.
        """
        return self._wait(self._post(workflow, fresh), timeout)

    def events(
        self,
        workflow: Workflow,
        on_progress: Callable[[Progress], Any] | None = None,
        timeout: float = 60.0,
        fresh: bool = True,
    ) -> Events:
        """Run a workflow and listen. A failed run is not raised here but held in `error`.

        `on_progress` is called with each Progress as it comes: the place to call `interrupt()` from.
        """
        client_id = uuid.uuid4().hex
        events = Events()
        address = f"{self.url.replace('http', 'ws', 1)}/ws?clientId={client_id}"
        socket = websocket.create_connection(address, timeout=timeout)
        try:
            prompt_id = self._post(workflow, fresh, client_id)
            while self._listen(socket.recv(), prompt_id, events, on_progress):
                pass
        finally:
            socket.close()
        try:
            events.result = self._wait(prompt_id, timeout)
        except WorkflowError as error:
            events.error = error
        return events

    def _listen(self, message: str | bytes, prompt_id: str, events: Events, on_progress: Callable | None) -> bool:
        """Note one websocket message; False when the workflow has ended."""
        if isinstance(message, bytes):
            if int.from_bytes(message[:4], "big") == PREVIEW_IMAGE:
                events.previews.append(np.asarray(Image.open(io.BytesIO(message[8:]))))
            return True
        message = json.loads(message)
        data = message["data"]
        if data.get("prompt_id") != prompt_id:
            return True
        if message["type"] == "progress":
            events.progress.append(Progress(str(data["node"]), data["value"], data["max"]))
            if on_progress is not None:
                on_progress(events.progress[-1])
        return not (message["type"] == "executing" and data["node"] is None)

    def _post(self, workflow: Workflow, fresh: bool, client_id: str | None = None) -> str:
        body = {"prompt": _never_seen(workflow) if fresh else workflow}
        if client_id is not None:
            body["client_id"] = client_id
        try:
            answer = self._request("/prompt", body)
        except urllib.error.HTTPError as refusal:
            answer = json.loads(refusal.read())
        if answer.get("error") or answer.get("node_errors"):
            raise _refusal(answer)
        return answer["prompt_id"]

    def _wait(self, prompt_id: str, timeout: float) -> Result:
        deadline = time.monotonic() + timeout
        while True:
            history = self._request(f"/history/{prompt_id}")
            if prompt_id in history:
                return self._result(prompt_id, history[prompt_id])
            if time.monotonic() > deadline:
                self.interrupt()
                raise TimeoutError(f"no end after {timeout} s:\n{tail(self.log())}")
            time.sleep(0.02)

    def _result(self, prompt_id: str, entry: dict) -> Result:
        messages = dict(entry["status"]["messages"])
        for kind in ("execution_error", "execution_interrupted"):
            if kind in messages:
                raise _failure(kind, messages[kind])
        seconds = (messages["execution_success"]["timestamp"] - messages["execution_start"]["timestamp"]) / 1000
        return Result(self, prompt_id, entry["outputs"], seconds, frozenset(messages["execution_cached"]["nodes"]))

    def _request(self, path: str, body: dict | None = None, timeout: float = 30.0) -> Any:
        text = self._open(path, body, timeout).read()
        return json.loads(text) if text else None

    def _open(self, path: str, body: dict | None = None, timeout: float = 30.0) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            return urllib.request.urlopen(request, timeout=timeout)
        except urllib.error.URLError as error:
            if self.process.poll() is None:
                raise
            raise RuntimeError(f"the server ended with {self.process.returncode}:\n{tail(self.log())}") from error


def _never_seen(workflow: Workflow) -> Workflow:
    """The same workflow with an input that no node declares, and so none gets, but which the host's cache looks at."""
    nonce = uuid.uuid4().hex
    return {
        node_id: node if node["class_type"] in LOADERS else {**node, "inputs": {**node["inputs"], "_run": nonce}}
        for node_id, node in workflow.items()
    }


def _refusal(answer: dict) -> WorkflowError:
    """The first node's error if there is one: the error above it only says that some node has one."""
    for node_id, node in answer.get("node_errors", {}).items():
        first = node["errors"][0]
        message = f"{first['message']}: {first['details']}"
        return WorkflowError("validation", message, first["type"], node_id, node["class_type"])
    error = answer["error"]
    return WorkflowError("validation", f"{error['message']} {error['details']}", error["type"])


def _failure(kind: str, message: dict) -> WorkflowError:
    place = {"node_id": message["node_id"], "node_type": message["node_type"]}
    if kind == "execution_interrupted":
        return WorkflowError("interrupted", "by the user", **place)
    text, exception = message["exception_message"].strip(), message["exception_type"]
    return WorkflowError("execution", text, exception.rpartition(".")[2], **place)
