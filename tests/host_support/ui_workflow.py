"""Turns a workflow as the front end saves it into the prompt the server takes, by the server's own node definitions."""

from __future__ import annotations

from .workflows import Graph, Link

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
NOTES = ("Note", "MarkdownNote")


def to_prompt(workflow: dict, object_info: dict) -> Graph:
    """The API-format prompt. Raises KeyError for a node the server does not know, ValueError for widgets left over."""
    sources = {link[0]: Link([str(link[1]), link[2]]) for link in workflow["links"]}
    graph = Graph()
    for node in workflow["nodes"]:
        if node["type"] not in NOTES:
            inputs = _widgets(node, object_info[node["type"]]["input"]) | _links(node, sources)
            graph.add(node["type"], str(node["id"]), **inputs)
    return graph


def _links(node: dict, sources: dict[int, Link]) -> dict[str, Link]:
    return {slot["name"]: sources[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}


def _widgets(node: dict, definition: dict) -> dict[str, object]:
    values = iter(node["widgets_values"])
    inputs = {}
    for name, (kind, *options) in {**definition.get("required", {}), **definition.get("optional", {})}.items():
        if isinstance(kind, list) or kind in WIDGET_TYPES:
            inputs[name] = next(values)
            if options and options[0].get("control_after_generate"):
                next(values)
    if left := list(values):
        raise ValueError(f"{node['type']}: more widget values than inputs: {left}")
    return inputs
