"""What a user does in the front end, as functions of a page; everything goes through the app's own objects and keys."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Sequence
from typing import Any

SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.Persist": False,
    "Comfy.UseNewMenu": "Top",
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Workflow.ShowMissingNodesWarning": True,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.VersionCompatibility.DisableWarnings": True,
    "Comfy.Notification.ShowVersionUpdates": False,
}
# What the hosts themselves report: the newest front end asks an older server for things it does not have.
NOT_OURS = re.compile(r"(?i)Failed to load resource: .* 404 (?!.*/extensions/)|.*Jobs ?Api|Attempted to cleanup event")
READY = "window.app?.extensionManager && window.app.canvas?.graph && document.querySelector('canvas')"


def collect_errors(page) -> None:
    """Note exceptions and console errors in `page.errors`; other hosts than the server are out of reach."""
    ours = page.front_end.url

    def on_console(message) -> None:
        url = message.location.get("url", "")
        text = f"{message.text} {url}"
        if message.type == "error" and url.startswith(ours) and not NOT_OURS.match(text):
            page.errors.append(text)

    page.on("console", on_console)
    page.on("pageerror", lambda error: page.errors.append(f"exception: {error}"))
    page.route(lambda url: not url.startswith((ours, "data:", "blob:")), lambda route: route.abort())


def set_settings(page, **settings: Any) -> None:
    """Write settings to the server; `__` in a name stands for a dot."""
    body = json.dumps({name.replace("__", "."): value for name, value in settings.items()}).encode()
    request = urllib.request.Request(page.front_end.url + "/api/settings", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()


def open_app(page) -> None:
    """Load the app afresh, with this front end's renderer."""
    set_settings(page, **SETTINGS, **{"Comfy.VueNodes.Enabled": page.front_end.vue})
    page.goto(page.front_end.url)
    page.wait_for_function(READY, timeout=60_000)
    page.wait_for_function("document.querySelector('#comfyui-body-top, .comfyui-body-top, .side-tool-bar-container')")
    page.evaluate("() => { window.app.canvas.ds.scale = 1; }")


def version(page) -> str:
    return page.evaluate("window.__COMFYUI_FRONTEND_VERSION__ ?? 'unknown'")


def reset(page) -> None:
    """An empty graph, no dialog, no errors."""
    page.keyboard.press("Escape")
    load(page, {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "version": 0.4})
    page.errors.clear()


def settle(page, frames: int = 3) -> None:
    """Wait until the app has drawn what was asked of it."""
    script = "n => new Promise(done => { const f = () => n-- > 0 ? requestAnimationFrame(f) : done(); f(); })"
    page.evaluate(script, frames)


def load(page, workflow: dict, scale: float = 1.0) -> None:
    """Open a workflow as the front end saves it, in the tab that is open (the first: in one of its own)."""
    page.evaluate(
        """async workflow => {
            const tab = app.extensionManager.workflow?.activeWorkflow;
            await app.loadGraphData(workflow, true, true, tab?.changeTracker ? tab : "test");
        }""",
        workflow,
    )
    settle(page)
    view(page, scale)


def view(page, scale: float = 1.0, x: float = 110, y: float = 130) -> None:
    """Zoom, and put the graph's point (0, 0) at (x, y) of the window."""
    move = """([s, x, y]) => { const { ds } = app.canvas; ds.scale = s; ds.offset = [x / s, y / s];
                               app.canvas.setDirty(true, true); }"""
    page.evaluate(move, [scale, x, y])
    settle(page)


def build(page, nodes: dict[str, tuple], links: Sequence[tuple] = ()) -> dict[str, str]:
    """Make nodes {name: (type, (x, y), {widget: value})} and links (name, output, name, input's name); name → id."""
    ids = page.evaluate(
        """([nodes, links]) => {
            const made = {};
            for (const [name, [type, pos, values]] of Object.entries(nodes)) {
                const node = (made[name] = LiteGraph.createNode(type));
                node.pos = pos;
                app.canvas.graph.add(node);
                for (const [widget, value] of Object.entries(values)) {
                    const found = node.widgets.find(w => w.name === widget);
                    found.value = value;
                    found.callback?.(value, app.canvas, node, node.pos, undefined);
                }
            }
            for (const [from, output, to, input] of links)
                made[from].connect(output, made[to], made[to].inputs.findIndex(i => i.name === input));
            app.extensionManager.workflow?.activeWorkflow?.changeTracker?.checkState();
            return Object.fromEntries(Object.entries(made).map(([name, node]) => [name, String(node.id)]));
        }""",
        [nodes, list(links)],
    )
    settle(page)
    view(page)
    return ids


def save(page) -> dict:
    """The workflow as the front end would save it."""
    return page.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")


def to_prompt(page) -> dict:
    """The API-format prompt that Queue would send."""
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def nodes(page) -> list[dict]:
    """id (as text), type, title, widgets {name: value} and whether it is known, of the graph that is open."""
    return page.evaluate(
        """() => app.canvas.graph._nodes.map(n => ({
            id: String(n.id), type: n.type, title: n.title, unknown: !!n.has_errors,
            widgets: Object.fromEntries((n.widgets ?? []).map(w => [w.name, w.value ?? null])) }))"""
    )


def node_of(page, node_type: str) -> str:
    """The id of the one node of a type."""
    (found,) = [node["id"] for node in nodes(page) if node["type"] == node_type]
    return found


def widget(page, node_id: str, name: str) -> Any:
    return next(node for node in nodes(page) if node["id"] == str(node_id))["widgets"][name]


def set_widget(page, node_id: str, name: str, value: Any) -> None:
    """Set a widget as an edit on the canvas does: value, callback, and a look at what changed for undo."""
    page.evaluate(
        """([id, name, value]) => {
            const node = app.canvas.graph._nodes.find(n => String(n.id) === id);
            const widget = node.widgets.find(w => w.name === name);
            widget.value = value;
            widget.callback?.(widget.value, app.canvas, node, node.pos, undefined);
            app.canvas.setDirty(true, true);
            app.extensionManager.workflow?.activeWorkflow?.changeTracker?.checkState();
        }""",
        [str(node_id), name, value],
    )
    settle(page)


def click_more(page, node_id: str, name: str) -> None:
    """Click with the mouse what raises a number widget by a step."""
    shown = page.query_selector(f'[data-node-id="{node_id}"] [data-widget-name="{name}"]')
    if shown:
        shown.hover()  # Vue's buttons appear under the mouse
        box = shown.query_selector_all("button")[-1].bounding_box()
        at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    else:
        right, y = page.evaluate(
            """([id, name]) => {
                const node = app.canvas.graph._nodes.find(n => String(n.id) === id);
                const widget = node.widgets.find(w => w.name === name);
                return [node.size[0] - 24, (widget.last_y ?? widget.y) + LiteGraph.NODE_WIDGET_HEIGHT / 2];
            }""",
            [str(node_id), name],
        )
        box, scale = node_box(page, node_id), page.evaluate("() => app.canvas.ds.scale")
        at = box["left"] + right * scale, box["top"] + y * scale
    page.mouse.move(*at)
    settle(page)
    page.mouse.click(*at)
    settle(page)


def disconnect(page, node_id: str, name: str) -> None:
    """Take the link off an input."""
    page.evaluate(
        "([id, name]) => app.canvas.graph._nodes.find(n => String(n.id) === id).disconnectInput(name)", [node_id, name]
    )
    settle(page)


def to_subgraph(page, node_id: str) -> None:
    """Convert a node to a subgraph."""
    convert = """id => { const { graph } = app.canvas;
        graph.convertToSubgraph(new Set([graph._nodes.find(n => String(n.id) === id)])); }"""
    page.evaluate(convert, node_id)
    settle(page)


def open_subgraph(page) -> None:
    """Step into the open graph's subgraph."""
    page.evaluate(
        """() => { const outer = app.canvas.graph._nodes.find(n => n.subgraph);
                   app.canvas.openSubgraph(outer.subgraph, outer); }"""
    )
    page.wait_for_function("() => app.canvas.graph.rootGraph !== app.canvas.graph")
    settle(page)
    view(page)


def close_subgraph(page) -> None:
    """Back to the whole workflow."""
    page.evaluate("() => app.canvas.setGraph(app.canvas.graph.rootGraph)")
    settle(page)
    view(page)


def undo(page) -> None:
    _key_on_canvas(page, "Control+z")


def redo(page) -> None:
    _key_on_canvas(page, "Control+y")


def _key_on_canvas(page, key: str) -> None:
    page.evaluate("() => { document.activeElement?.blur?.(); app.canvas.canvas.focus(); }")
    page.keyboard.press(key)
    page.wait_for_timeout(150)
    settle(page)


def queue(page) -> None:
    """Queue the open graph once, as the Run button does."""
    page.evaluate("async () => { await app.queuePrompt(0, 1); }")


def watch_run(page) -> None:
    """Note from now on what the server tells the app about a run."""
    page.evaluate(
        """() => {
            const told = (window.told = { progress: [], previews: 0, images: [], error: null, done: false });
            const { api } = window.comfyAPI.api;
            const on = (name, act) => api.addEventListener(name, event => act(event.detail));
            on("progress", p => told.progress.push({ node: String(p.node), value: p.value, max: p.max }));
            on("b_preview", () => told.previews++);
            on("executed", e => told.images.push(...(e.output?.images ?? [])));
            on("execution_error", e => { told.error = e.exception_message; told.done = true; });
            on("execution_success", () => { told.done = true; });
        }"""
    )


def wait_for_run(page) -> dict:
    """progress [{node, value, max}], previews (how many), images [file], error, of the run that is watched."""
    page.wait_for_function("window.told.done", timeout=60_000)
    settle(page)
    return page.evaluate("window.told")


def picture_size(page, file: dict) -> list[int]:
    """[width, height] of a picture that a node saved, as the page loads it."""
    return page.evaluate(
        """async file => { const image = new Image();
            image.src = window.comfyAPI.api.api.apiURL("/view?" + new URLSearchParams(file));
            await image.decode(); return [image.naturalWidth, image.naturalHeight]; }""",
        file,
    )


def node_box(page, node_id: str) -> dict[str, float]:
    """left, top, right and bottom of a node in the window, title not included."""
    return page.evaluate(
        """id => {
            const shown = document.querySelector(`[data-node-id="${id}"]`)?.getBoundingClientRect();
            if (shown) return { left: shown.left, top: shown.top, right: shown.right, bottom: shown.bottom };
            const node = app.canvas.graph._nodes.find(n => String(n.id) === id), { ds, canvas } = app.canvas;
            const at = canvas.getBoundingClientRect();
            const [left, top] = [0, 1].map(i => (node.pos[i] + ds.offset[i]) * ds.scale + [at.left, at.top][i]);
            return { left, top, right: left + node.size[0] * ds.scale, bottom: top + node.size[1] * ds.scale };
        }""",
        str(node_id),
    )


def dialogs(page) -> list[str]:
    """Texts of the dialogs that are open (missing nodes, missing models, errors)."""
    texts = page.locator(".p-dialog:visible, [role=dialog]:visible").all_inner_texts()
    return [text.strip() for text in texts if text.strip()]
