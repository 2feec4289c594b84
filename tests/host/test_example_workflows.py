"""The example workflows on a real server: placeholder files lie under the names they ask for.

Every one is validated as it stands; those that fit a tiny checkpoint are run to their pictures. The other pack that one
of them needs is not here: its nodes are checked against what it declares, and stepped over.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from host_support import tiny_checkpoints, workflows
from host_support.client import WorkflowError
from host_support.ui_workflow import NOTES, to_prompt
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
RUN = [file for file in EXAMPLES if file.stem != "flow_flux"]  # Flux can't be made tiny: its width, 3072, is fixed
FAMILY = {  # of the tiny checkpoint that takes a file's place
    "v1-5-pruned-emaonly-fp16.safetensors": "sd15",
    "my-model.safetensors": "sd15",
    "sd_xl_base_1.0.safetensors": "sdxl",
    "animagine-xl-3.0.safetensors": "sdxl",
    "sd3_medium_incl_clips_t5xxlfp8.safetensors": "sd3",
}
FILES = {"ckpt_name": "checkpoints", "lora_name": "loras", "control_net_name": "controlnet"}
OWN = ("my-model.safetensors", "tcd_my-model.safetensors")  # the user's: without a source
IP_ADAPTER = {  # cubiq/ComfyUI_IPAdapter_plus at 9d076a3, in the form of /object_info
    "IPAdapterUnifiedLoader": {
        "required": {
            "model": ["MODEL"],
            "preset": [["LIGHT - SD1.5 only (low strength)", "STANDARD (medium strength)", "PLUS (high strength)"]],
        },
        "optional": {"ipadapter": ["IPADAPTER"]},
    },
    "IPAdapter": {
        "required": {
            "model": ["MODEL"],
            "ipadapter": ["IPADAPTER"],
            "image": ["IMAGE"],
            "weight": ["FLOAT"],
            "start_at": ["FLOAT"],
            "end_at": ["FLOAT"],
            "weight_type": [["standard", "prompt is more important", "style transfer"]],
        },
        "optional": {"attn_mask": ["MASK"]},
    },
}
SETTINGS = {  # steps, cfg, γ of KSampler (TCD), and others': the model cards' and diffusers' (whose eta is γ, and whose
    # guidance_scale 0 is cfg 1)
    "text_to_image_sd15": ((4, 1, 0.3), {}),
    "text_to_image_sdxl": ((4, 1, 0.3), {}),
    "community_checkpoint": ((8, 1, 0.3), {}),
    "controlnet_depth": ((4, 1, 0.3), {"ControlNetApplyAdvanced": {"strength": 0.5}}),
    "ip_adapter": ((4, 1, 0.3), {"IPAdapter": {"weight": 0.5}}),
    "style_lora": ((4, 1, 0.3), {"LoraLoader": {"strength_model": 1}, "TCDToolkit_LoraLoader": {"strength": 1}}),
    "inpainting": ((8, 1, 0.3), {}),
    "hyper_sd_1_step": ((1, 1, 1), {}),
    "hyper_sd_8_steps": ((8, 1, 0), {"TCDToolkit_Scheduler": {"steps": 8, "original_steps": 1000}}),
    "flow_sd3": ((4, 3, 0), {"TCDToolkit_LoraLoader": {"strength": 0.125}}),
    "flow_flux": ((8, 1, 0), {"TCDToolkit_LoraLoader": {"strength": 0.125}, "FluxGuidance": {"guidance": 3.5}}),
}


def of_type(prompt: dict, class_type: str) -> dict[str, dict]:
    return {key: node["inputs"] for key, node in prompt.items() if node["class_type"] == class_type}


def read(file: Path, server) -> workflows.Graph:
    """The prompt of an example; other packs' nodes are known by IP_ADAPTER."""
    others = {name: {"input": inputs} for name, inputs in IP_ADAPTER.items()}
    return to_prompt(json.loads(file.read_text(encoding="utf-8")), others | server.object_info())


def stepped_over(prompt: workflows.Graph) -> workflows.Graph:
    """Without other packs' nodes: what they did to the model is left out."""
    replaced = {key: node["inputs"]["model"] for key, node in prompt.items() if node["class_type"] in IP_ADAPTER}
    for key in replaced:
        del prompt[key]
    for node in prompt.values():
        while isinstance(link := node["inputs"].get("model"), list) and link[0] in replaced:
            node["inputs"]["model"] = replaced[link[0]]
    return prompt


def files_of(prompt: workflows.Graph) -> list[tuple[str, str]]:
    """(folder of the models' folder, name) of every file that a loader asks for."""
    return [(FILES[key], v) for node in prompt.values() for key, v in node["inputs"].items() if key in FILES]


def place_lora(file: Path, family: str) -> int:
    """A rank 4 LoRA for each attention projection of the tiny network; returns how many modules it has."""
    prefix = "model.diffusion_model."
    tensors = {}
    for key, weight in tiny_checkpoints.state_dict(family).items():
        if key.startswith(prefix) and ".attn" in key and weight.ndim == 2:
            module = "lora_unet_" + key.removeprefix(prefix).removesuffix(".weight").replace(".", "_")
            tensors[f"{module}.lora_down.weight"] = torch.full((4, weight.shape[1]), 0.01)
            tensors[f"{module}.lora_up.weight"] = torch.full((weight.shape[0], 4), 0.01)
            tensors[f"{module}.alpha"] = torch.tensor(4.0)
    save_file(tensors, file)
    return len(tensors) // 3


def place(server, prompt: workflows.Graph, family: str | None) -> int:
    """Tiny models under every name that a prompt asks for, else empty files; returns a LoRA's modules."""
    modules = 0
    for folder, name in files_of(prompt):
        file = server.base / "models" / folder / name
        file.parent.mkdir(exist_ok=True)
        if family is None:
            file.touch()
        elif folder == "checkpoints":
            shutil.copy(file.parent / tiny_checkpoints.FAMILIES[family].file, file)
        elif folder == "loras":
            modules = place_lora(file, family)
        else:
            save_file(tiny_checkpoints.controlnet(family), file)
    image = Image.linear_gradient("L").convert("RGB")
    image.paste("white", (64, 64, 192, 192))  # edges, for Canny
    image.save(server.inputs / "example.png")
    return modules


def without_text_encoder(prompt: workflows.Graph, family: str) -> workflows.Graph:
    """The tiny checkpoints hold no text encoder: fixed conditionings take its place; pictures become 64 pixels wide."""
    kind = tiny_checkpoints.FAMILIES[family]
    for seed, inputs in enumerate(of_type(prompt, "CLIPTextEncode")):
        widths = {"width": kind.context, "pooled_width": kind.pooled, "tokens": 8, "seed": seed}
        prompt[inputs] = {"class_type": "TCDTest_Conditioning", "inputs": widths}
    for class_type in ("EmptyLatentImage", "EmptySD3LatentImage", "ImageScale"):
        for sized in of_type(prompt, class_type).values():
            sized.update(width=64, height=64)
    return prompt


def outcome(server, prompt: workflows.Graph) -> WorkflowError:
    with pytest.raises(WorkflowError) as stopped:
        server.run(prompt)
    return stopped.value


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_is_accepted_as_it_stands(file, server, checkpoints):
    """Files of its names lie there, empty ones: the server takes the prompt and fails at reading one of them."""
    prompt = read(file, server)
    fed = {link[0] for node in prompt.values() for link in node["inputs"].values() if isinstance(link, list)}
    ends = {node["class_type"] for key, node in prompt.items() if key not in fed}
    assert ends <= {"SaveImage", "PreviewImage", "PreviewAny"}, "the server does not look at what leads to no output"
    place(server, prompt, None)
    stopped = outcome(server, stepped_over(prompt))
    assert stopped.kind == "execution" and stopped.node_type in ("CheckpointLoaderSimple", "ControlNetLoader")


def test_a_file_that_is_not_there_is_refused(server, checkpoints):
    """So the test above does find names that the server does not list."""
    prompt = read(ROOT / "example_workflows" / "controlnet_canny.json", server)
    place(server, prompt, None)
    (loader,) = of_type(prompt, "ControlNetLoader").values()
    loader["control_net_name"] = "nowhere.safetensors"
    assert outcome(server, prompt).kind == "validation"


@pytest.mark.parametrize("file", RUN, ids=lambda file: file.stem)
def test_example_makes_its_pictures(file, server, checkpoints):
    prompt = stepped_over(read(file, server))
    (checkpoint,) = of_type(prompt, "CheckpointLoaderSimple").values()
    family = FAMILY[checkpoint["ckpt_name"]]
    modules = place(server, prompt, family)

    result = server.run(without_text_encoder(prompt, family))

    for key in of_type(prompt, "PreviewAny"):
        assert f"{modules} of {modules}" in result.text(key)
    shown = [*of_type(prompt, "SaveImage"), *of_type(prompt, "PreviewImage")]
    assert len(result.images) == len(shown) and all(image.std() > 1 for image in result.images)


def test_other_pack_s_nodes_are_given_what_they_take(server):
    (file,) = [file for file in EXAMPLES if file.stem == "ip_adapter"]
    for node in read(file, server).values():
        if inputs := IP_ADAPTER.get(node["class_type"]):
            assert inputs["required"].keys() == node["inputs"].keys()
            for name, value in node["inputs"].items():
                kind = inputs["required"][name][0]
                assert value in kind if isinstance(kind, list) else isinstance(value, list | float), (name, value)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_names_its_files_and_their_sources(file, server):
    """In the note, and where the front end looks when it offers to download what is missing."""
    nodes = json.loads(file.read_text(encoding="utf-8"))["nodes"]
    (note,) = (node["widgets_values"][0] for node in nodes if node["type"] in NOTES)
    offered = {m["name"]: m for node in nodes for m in node["properties"].get("models", [])}
    for folder, name in files_of(read(file, server)):
        (line,) = re.findall(rf"^- `{re.escape(name)}` in `models/{folder}`.*$", note, re.M)
        if name not in OWN:
            (page,) = re.findall(r"\]\((https://huggingface.co/[\w.-]+/[\w.-]+)\)", line)
            assert offered[name]["directory"] == folder and offered[name]["url"].startswith(f"{page}/resolve/main/")
            stored = offered[name]["url"].rsplit("/", 1)[1].removesuffix("?download=true")
            assert (stored == name) != ("renamed" in line)
    assert {*re.findall(r"^- `([^`]+)` in `models/", note, re.M)} - {*OWN} == {*offered}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_those_of_the_source(name, server):
    prompt = read(ROOT / "example_workflows" / f"{name}.json", server)
    sampler, others = SETTINGS[name][0], dict(SETTINGS[name][1])
    others["TCDToolkit_KSampler"] = dict(zip(("steps", "cfg", "gamma"), sampler, strict=True))
    for class_type, wanted in others.items():
        (inputs,) = of_type(prompt, class_type).values()
        assert {key: inputs[key] for key in wanted} == wanted


def test_committed_files_are_what_the_script_writes(tmp_path):
    subprocess.run([sys.executable, ROOT / "docs" / "workflows" / "make.py", tmp_path], check=True)
    assert [file.name for file in EXAMPLES] == sorted(file.name for file in tmp_path.iterdir())
    for file in EXAMPLES:
        assert file.read_bytes() == (tmp_path / file.name).read_bytes(), f"{file.name}: run docs/workflows/make.py"


def test_every_example_has_a_thumbnail():
    assert {file.stem for file in EXAMPLES} == {file.stem for file in EXAMPLES[0].parent.glob("*.jpg")}
    for file in EXAMPLES:
        with Image.open(picture := file.with_suffix(".jpg")) as image:
            assert image.format == "JPEG" and image.size == (720, 720) and picture.stat().st_size < 60_000


def test_template_browser_gets_them_all(server):
    assert sorted(server._request("/workflow_templates")["tcd-toolkit"]) == [file.stem for file in EXAMPLES]
    for file in EXAMPLES:
        for path in (file, file.with_suffix(".jpg")):
            assert server._open(f"/api/workflow_templates/tcd-toolkit/{path.name}").read() == path.read_bytes()


def test_stock_samplers_go_on_with_a_lora_from_our_loader(server):
    """One workflow: each sampler with the LoRA and without it; both finite, and not the same."""
    place_lora(server.loras / "stock.safetensors", "sd15")
    samplers = ("ddim", "euler", "dpmpp_2m_sde", "dpmpp_2m", "lcm", "uni_pc")
    g = workflows.Graph()
    setup = workflows.load(g, "sd15")
    patched = g.add("TCDToolkit_LoraLoader", model=setup.model, lora_name="stock.safetensors", strength=1.0)
    latent = workflows.empty_latent(g, "sd15")
    for name in samplers:
        for suffix, model in (("with", patched), ("without", setup.model)):
            settings = {"sampler_name": name, "scheduler": "normal"}
            sampled = workflows.ksampler(g, model, latent, setup, **settings)
            g.add("TCDTest_SaveLatent", f"{name} {suffix}", samples=sampled, name="latent")
    result = server.run(g)
    for name in samplers:
        a, b = (result.latent(f"{name} {suffix}") for suffix in ("with", "without"))
        assert a.isfinite().all() and (a - b).norm() / b.norm() > 1e-4, name
