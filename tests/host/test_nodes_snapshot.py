"""The nodes' definitions, as the front end and stored workflows know them, are what they were.

After an intended change: `UPDATE_SNAPSHOTS=1 pytest tests/host/test_nodes_snapshot.py`, then look at the difference.
"""

import json
import os
from pathlib import Path

import pytest
from host_support.client import Client

SNAPSHOT = Path(__file__).parent / "snapshots" / "nodes.json"
DIFFERS = (
    "the nodes are not those of tests/host/snapshots/nodes.json, and stored workflows depend on their ids, inputs and "
    "outputs. If the change is intended: UPDATE_SNAPSHOTS=1 pytest tests/host/test_nodes_snapshot.py, and commit the "
    "difference"
)
KEPT = ("default", "min", "max", "step", "round", "control_after_generate")

# Ids, input names and defaults that are a contract: `None` for an input without a default.
CONTRACT = {
    "TCDToolkit_Sampler": {"gamma": 0.3, "order": "1", "gamma_schedule": None},
    "TCDToolkit_Scheduler": {"model": None, "steps": 4, "denoise": 1.0, "original_steps": 50, "times": ""},
    "TCDToolkit_GammaSchedule": {
        "shape": "linear",
        "start": 0.5,
        "end": 0.1,
        "exponent": 2.0,
        "values": "",
        "interpolate": False,
    },
    "TCDToolkit_KSampler": {
        "model": None,
        "seed": 0,
        "steps": 4,
        "cfg": 1.0,
        "gamma": 0.3,
        "positive": None,
        "negative": None,
        "latent_image": None,
        "denoise": 1.0,
        "order": "1",
        "gamma_schedule": None,
        "sigmas": None,
    },
    "TCDToolkit_KSamplerAdvanced": {
        "model": None,
        "add_noise": "enable",
        "noise_seed": 0,
        "steps": 4,
        "cfg": 1.0,
        "gamma": 0.3,
        "positive": None,
        "negative": None,
        "latent_image": None,
        "start_at_step": 0,
        "end_at_step": 10000,
        "return_with_leftover_noise": "disable",
        "order": "1",
        "gamma_schedule": None,
    },
    "TCDToolkit_GammaPatch": {"model": None, "gamma": 0.3, "order": "1", "gamma_schedule": None},
    "TCDToolkit_LoraLoader": {"model": None, "lora_name": None, "strength": 1.0},
    "TCDToolkit_Grid": {
        "model": None,
        "vae": None,
        "positive": None,
        "negative": None,
        "latent_image": None,
        "steps": "2, 4, 8",
        "gammas": "0, 0.3, 1",
        "cfg": 1.0,
        "denoise": 1.0,
        "order": "1",
        "seed": 0,
        "seeds": "",
        "max_cell": 2048,
    },
}
OUTPUTS = {
    "TCDToolkit_Sampler": ["SAMPLER"],
    "TCDToolkit_Scheduler": ["SIGMAS"],
    "TCDToolkit_GammaSchedule": ["TCD_GAMMA"],
    "TCDToolkit_KSampler": ["LATENT"],
    "TCDToolkit_KSamplerAdvanced": ["LATENT"],
    "TCDToolkit_GammaPatch": ["MODEL"],
    "TCDToolkit_LoraLoader": ["MODEL", "STRING"],
    "TCDToolkit_Grid": ["IMAGE", "IMAGE", "STRING"],
}
LISTS = {"TCDToolkit_Grid": [False, True, True]}
OPTIONAL = {
    "TCDToolkit_Sampler": {"gamma_schedule"},
    "TCDToolkit_Scheduler": {"times"},
    "TCDToolkit_KSampler": {"order", "gamma_schedule", "sigmas"},
    "TCDToolkit_KSamplerAdvanced": {"order", "gamma_schedule"},
    "TCDToolkit_GammaPatch": {"order", "gamma_schedule"},
    "TCDToolkit_Grid": {"seeds", "max_cell"},
}


@pytest.fixture(scope="module")
def nodes(server: Client) -> dict[str, dict]:
    return {name: node for name, node in server.object_info().items() if name.startswith("TCDToolkit_")}


def inputs(node: dict) -> dict[str, tuple[bool, object, dict]]:
    """name -> (optional, type, options); a list of choices is type COMBO, wherever the host puts the choices."""
    found = {}
    for group in ("required", "optional"):
        for name, (kind, *rest) in node["input"].get(group, {}).items():
            options = dict(rest[0]) if rest else {}
            if isinstance(kind, list):
                kind, options = "COMBO", {**options, "options": kind}
            found[name] = (group == "optional", kind, options)
    return found


def described(name: str, node: dict) -> dict:
    """One node's definition without its wording, and without choices that come from the user's folders."""
    listed = []
    for input_name, (optional, kind, options) in inputs(node).items():
        kept = {key: options[key] for key in KEPT if options.get(key) is not None}
        if kind == "COMBO" and input_name != "lora_name":
            kept["options"] = options["options"]
        listed.append({"name": input_name, "type": kind, "optional": optional, **kept})
    outputs = [{"type": kind, "name": label} for kind, label in zip(node["output"], node["output_name"], strict=True)]
    about = {"display_name": node["display_name"], "category": node["category"]}
    return {**about, "inputs": listed, "outputs": outputs, "output_node": node["output_node"]}


def test_ids_inputs_and_outputs_are_those_of_the_snapshot(nodes):
    current = {name: described(name, nodes[name]) for name in sorted(nodes)}
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(json.dumps(current, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stored = json.loads(SNAPSHOT.read_text(encoding="utf-8")) if SNAPSHOT.exists() else {}
    assert current == stored, DIFFERS


def test_the_contract_holds(nodes):
    assert set(nodes) == set(CONTRACT)
    for name, defaults in CONTRACT.items():
        given = inputs(nodes[name])
        assert {key: options.get("default") for key, (_, _, options) in given.items()} == defaults, name
        assert {key for key, (optional, _, _) in given.items() if optional} == OPTIONAL.get(name, set()), name
        assert nodes[name]["output"] == OUTPUTS[name], name
        assert nodes[name]["output_is_list"] == LISTS.get(name, [False] * len(OUTPUTS[name])), name


def test_choices_are_those_of_the_contract(nodes):
    orders = {name: inputs(node)["order"][2]["options"] for name, node in nodes.items() if "order" in inputs(node)}
    assert len(orders) == 5 and all(choices == ["1", "2", "2M"] for choices in orders.values()), orders
    advanced = inputs(nodes["TCDToolkit_KSamplerAdvanced"])
    for name in ("add_noise", "return_with_leftover_noise"):
        assert set(advanced[name][2]["options"]) == {"enable", "disable"}


def test_every_node_is_described_and_every_input_has_a_tooltip(nodes):
    for name, node in nodes.items():
        assert len(node["description"]) > 40, name
        for input_name, (_, _, options) in inputs(node).items():
            assert len(options.get("tooltip") or "") > 5, f"{name}: {input_name}"


def test_sampler_and_scheduler_stand_in_the_host_s_lists(server: Client):
    info = server.object_info()

    def choices(node: str, name: str) -> list[str]:
        return inputs(info[node])[name][2]["options"]

    for node in ("KSampler", "KSamplerAdvanced", "KSamplerSelect"):
        assert choices(node, "sampler_name").count("tcd") == 1, node
    for node in ("KSampler", "KSamplerAdvanced", "BasicScheduler"):
        assert choices(node, "scheduler").count("tcd") == 1, node
    assert "tcd_toolkit" not in choices("KSampler", "sampler_name")
    log = server.log()
    assert "TCD Toolkit: sampler registered as 'tcd'" in log and "TCD Toolkit: scheduler registered as 'tcd'" in log
