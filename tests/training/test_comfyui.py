"""Into ComfyUI: which folders, under which names, what the workflow says; nothing there is ever overwritten."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from training_support.runs import bytes_in, files_in

from training import comfyui_folders
from training.comfyui import NO_CHECKPOINT, export
from training.comfyui_folders import find_comfyui
from training.disk import OutputError
from training.lora_file import lora_metadata

SETTINGS = {
    "title": "tcd_mine",
    "architecture": "stable-diffusion-v1/lora",
    "base_model": "sd_v1",
    "prediction_type": "epsilon",
    "resolution": 512,
    "rank": 2,
    "alpha": 2.0,
    "form": "tcf1",
    "steps": 4,
    "gamma": 0.2,
    "cfg": 1.0,
    "training_span": "k=20, N=1000, s in [0, t_n]",
    "recipe_hash": "0123456789abcdef",
    "date": "2024-01-01T00:00:00+00:00",
}
SDXL = {"architecture": "stable-diffusion-xl-v1-base/lora", "resolution": 1024}
SD2 = {"architecture": "stable-diffusion-v2-768-v/lora", "prediction_type": "v_prediction", "resolution": 768}


@pytest.fixture
def host(tmp_path) -> Path:
    """An installation as ComfyUI lays it out, with the pack in it."""
    root = tmp_path / "ComfyUI"
    for folder in ("comfy", "models/checkpoints/sub", "models/loras", "custom_nodes/tcd-toolkit/tcd_core", "user"):
        (root / folder).mkdir(parents=True)
    return root


def make_lora(folder: Path, value: float = 1.0, name: str = "tcd_mine.safetensors", **settings) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({"lora_unet_x.alpha": torch.tensor(value)}, folder / name, lora_metadata(**(SETTINGS | settings)))
    return folder / name


def make_checkpoint(path: Path, **tensors) -> Path:
    save_file(tensors or {"x": torch.zeros(1)}, path)
    return path


def nodes_of(exported) -> dict[str, dict]:
    workflow = json.loads(exported.workflow.read_text(encoding="utf-8"))
    return {node["type"]: node for node in workflow["nodes"]}


def values_of(exported) -> dict[str, list]:
    return {name: node["widgets_values"] for name, node in nodes_of(exported).items()}


# -- what is written where -----------------------------------------------------------------------------------------


def test_lora_and_workflow_stand_where_comfyui_lists_them(host, tmp_path):
    lora = make_lora(tmp_path / "run")
    file = make_checkpoint(host / "models" / "checkpoints" / "sub" / "mine.safetensors")
    exported = export(host, lora, file)
    assert exported.lora == host / "models" / "loras" / "tcd_mine.safetensors"
    assert exported.lora.read_bytes() == lora.read_bytes()
    assert exported.workflow == host / "user" / "default" / "workflows" / "tcd_mine.json"
    assert exported.notes == () and str(exported.lora) in str(exported)
    assert not [name for name in files_in(host) if name.endswith(".tmp")]


def test_workflow_is_filled_in(host, tmp_path):
    file = make_checkpoint(host / "models" / "checkpoints" / "sub" / "mine.safetensors")
    exported = export(host, make_lora(tmp_path / "run"), file, prompt="a $5 “fox” {at night}")
    values = values_of(exported)
    assert values["CheckpointLoaderSimple"] == [os.path.join("sub", "mine.safetensors")]
    assert values["TCDToolkit_LoraLoader"] == ["tcd_mine.safetensors", 1.0]
    assert values["TCDToolkit_KSampler"] == [42, "fixed", 4, 1.0, 0.2, 1.0, "1"]
    assert values["EmptyLatentImage"] == [512, 512, 1]
    note = values["MarkdownNote"][0]
    assert "sub" in note and "tcd_mine.safetensors" in note and "gamma 0.2" in note and "To do" not in note
    assert '"a $5 “fox” {at night}"' in exported.workflow.read_text(encoding="utf-8")


def test_steps_gamma_size_and_order_are_the_loras(host, tmp_path):
    settings = {"steps": 8, "gamma": 0.35, "form": "tcf2", "tcf2_form": "data"}
    lora = make_lora(tmp_path / "run", **SDXL, **settings)
    values = values_of(export(host, lora, None))
    assert values["TCDToolkit_KSampler"] == [42, "fixed", 8, 1.0, 0.35, 1.0, "2"]
    assert values["EmptyLatentImage"] == [1024, 1024, 1]
    chosen = values_of(export(host, lora, None, steps=2, gamma=0.0))
    assert chosen["TCDToolkit_KSampler"] == [42, "fixed", 2, 1.0, 0.0, 1.0, "2"]


def test_links_join_what_they_name(host, tmp_path):
    """With ModelSamplingDiscrete and without: each link's ends know it, and no node is left over."""
    for settings in ({}, SD2):
        workflow = json.loads(export(host, make_lora(tmp_path / "run", **settings), None).workflow.read_text())
        nodes = {node["id"]: node for node in workflow["nodes"]}
        links = {link[0]: link for link in workflow["links"]}
        assert len(links) == len(workflow["links"]) and max(links) <= workflow["last_link_id"]
        for number, source, slot, target, place, kind in workflow["links"]:
            assert number in nodes[source]["outputs"][slot]["links"] and kind == nodes[source]["outputs"][slot]["type"]
            assert nodes[target]["inputs"][place]["link"] == number
        told = {n for node in nodes.values() for out in node["outputs"] for n in out["links"]}
        assert told == set(links) == {i["link"] for node in nodes.values() for i in node["inputs"]} - {None}


# -- nothing is overwritten ----------------------------------------------------------------------------------------


def test_another_file_of_the_name_stays_and_the_next_free_one_is_taken(host, tmp_path):
    loras, workflows = host / "models" / "loras", host / "user" / "default" / "workflows"
    workflows.mkdir(parents=True)
    (loras / "tcd_mine.safetensors").write_bytes(b"somebody's")
    (loras / "tcd_mine-2.safetensors").symlink_to(tmp_path / "gone")
    (workflows / "tcd_mine-3.json").write_text("{}")
    before = bytes_in(workflows) | {"lora": (loras / "tcd_mine.safetensors").read_bytes()}
    exported = export(host, make_lora(tmp_path / "run"), None)
    assert (exported.lora.name, exported.workflow.name) == ("tcd_mine-3.safetensors", "tcd_mine-3-2.json")
    assert values_of(exported)["TCDToolkit_LoraLoader"][0] == "tcd_mine-3.safetensors"
    after = bytes_in(workflows)
    del after["tcd_mine-3-2.json"]
    assert after | {"lora": (loras / "tcd_mine.safetensors").read_bytes()} == before
    assert not (tmp_path / "gone").exists()


def test_a_second_export_of_the_same_keeps_the_first(host, tmp_path):
    lora = make_lora(tmp_path / "run")
    first = export(host, lora, None)
    before = bytes_in(host)
    assert export(host, lora, None) == first
    assert bytes_in(host) == before


def test_a_lora_that_was_trained_again_gets_a_name_of_its_own(host, tmp_path):
    export(host, make_lora(tmp_path / "run"), None)
    again = export(host, make_lora(tmp_path / "again", value=2.0), None)
    assert again.lora.name == "tcd_mine-2.safetensors" and again.workflow.name == "tcd_mine-2.json"


def test_a_name_taken_while_copying_is_left_to_who_took_it(host, tmp_path, monkeypatch):
    lora, copy = make_lora(tmp_path / "run"), comfyui_folders.shutil.copyfileobj

    def copy_late(source, target, length):
        copy(source, target, length)
        (host / "models" / "loras" / "tcd_mine.safetensors").touch()

    monkeypatch.setattr(comfyui_folders.shutil, "copyfileobj", copy_late)
    exported = export(host, lora, None)
    assert exported.lora.name == "tcd_mine-2.safetensors"
    assert files_in(host / "models" / "loras") == {"tcd_mine.safetensors", "tcd_mine-2.safetensors"}
    assert (host / "models" / "loras" / "tcd_mine.safetensors").read_bytes() == b""


def test_a_full_disk_is_told_and_leaves_nothing(host, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    lora = make_lora(tmp_path / "run")
    monkeypatch.setattr(comfyui_folders.shutil, "copyfileobj", full)
    with pytest.raises(OutputError, match=r"was not written: No space left.*The LoRA is whole in .*copy it by hand"):
        export(host, lora, None)
    assert not files_in(host)


# -- the checkpoint, as ComfyUI lists it ---------------------------------------------------------------------------


def test_checkpoint_in_an_extra_folder_has_its_name_there(host, tmp_path):
    (tmp_path / "other" / "Stable-diffusion" / "a").mkdir(parents=True)
    file = make_checkpoint(tmp_path / "other" / "Stable-diffusion" / "a" / "mine.safetensors")
    (host / "extra_model_paths.yaml").write_text(
        f"a111:\n  base_path: {tmp_path / 'other'}\n  checkpoints: |\n    nowhere\n    Stable-diffusion\nempty:\n"
    )
    exported = export(host, make_lora(tmp_path / "run"), file)
    assert values_of(exported)["CheckpointLoaderSimple"] == [os.path.join("a", "mine.safetensors")]
    assert exported.notes == ()


@pytest.mark.parametrize("text", ["\t- [", "just words", "a: 3\nb:\n  checkpoints: [1]\n"])
def test_extra_paths_that_cannot_be_read_add_nothing(host, text):
    (host / "extra_model_paths.yaml").write_text(text)
    assert find_comfyui(host).checkpoints == (host / "models" / "checkpoints",)


def test_checkpoint_behind_a_link_has_the_links_name(host, tmp_path):
    file = make_checkpoint(tmp_path / "downloaded.safetensors")
    (host / "models" / "checkpoints" / "mine.safetensors").symlink_to(file)
    exported = export(host, make_lora(tmp_path / "run"), file)
    assert values_of(exported)["CheckpointLoaderSimple"] == ["mine.safetensors"] and exported.notes == ()


def test_checkpoint_elsewhere_is_told_and_noted_in_the_workflow(host, tmp_path):
    file = make_checkpoint(tmp_path / "mine.safetensors")
    make_checkpoint(host / "models" / "checkpoints" / "mine.safetensors", y=torch.ones(2))  # another of the name
    exported = export(host, make_lora(tmp_path / "run"), file)
    (note,) = exported.notes
    assert str(file) in note and str(host / "models" / "checkpoints") in note
    values = values_of(exported)
    assert values["CheckpointLoaderSimple"] == ["mine.safetensors"]
    assert note in values["MarkdownNote"][0] and note in str(exported)


@pytest.mark.parametrize(
    ("given", "words"), [(None, "not known what"), ("owner/name", "owner/name, which is no single")]
)
def test_no_file_to_name_leaves_the_choice(host, tmp_path, given, words):
    exported = export(host, make_lora(tmp_path / "run", **SDXL), given)
    assert words in exported.notes[0] and "choose a checkpoint of Stable Diffusion XL" in exported.notes[0]
    assert values_of(exported)["CheckpointLoaderSimple"] == [NO_CHECKPOINT]


def test_a_missing_pack_is_told(host, tmp_path):
    (host / "custom_nodes" / "tcd-toolkit" / "tcd_core").rmdir()
    file = make_checkpoint(host / "models" / "checkpoints" / "mine.safetensors")
    (note,) = export(host, make_lora(tmp_path / "run"), file).notes
    assert "install it in" in note and "custom_nodes" in note


# -- what ComfyUI takes the model to be ----------------------------------------------------------------------------

PROBE = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
WIDE, NARROW = torch.tensor([-1.0, 1.0]), torch.tensor([-0.01, 0.01])
SDXL_V = SDXL | {"prediction_type": "v_prediction"}
MARK = torch.zeros(1)


@pytest.mark.parametrize(
    ("lora", "zero_snr", "tensors", "told"),
    [
        ({}, False, {}, None),
        ({"prediction_type": "v_prediction"}, False, {}, ["v_prediction", False]),
        ({"prediction_type": "v_prediction"}, True, {}, ["v_prediction", True]),
        (SD2, False, {PROBE: WIDE}, None),
        (SD2, False, {PROBE: NARROW}, ["v_prediction", False]),
        (SD2, True, {PROBE: WIDE}, ["v_prediction", True]),
        (SD2 | {"prediction_type": "epsilon"}, False, {PROBE: NARROW}, None),
        (SD2 | {"prediction_type": "epsilon"}, False, {PROBE: WIDE}, ["eps", False]),
        (SDXL, False, {"x": MARK}, None),
        (SDXL_V, False, {"x": MARK}, ["v_prediction", False]),
        (SDXL_V, False, {"v_pred": MARK}, None),
        (SDXL_V, True, {"v_pred": MARK}, ["v_prediction", True]),
        (SDXL_V, True, {"v_pred": MARK, "ztsnr": MARK + 1}, None),
    ],
)
def test_model_sampling_is_set_where_comfyui_would_not_see_it(host, tmp_path, lora, zero_snr, tensors, told):
    file = make_checkpoint(host / "models" / "checkpoints" / "mine.safetensors", **tensors)
    exported = export(host, make_lora(tmp_path / "run", **lora), file, zero_terminal_snr=zero_snr)
    assert values_of(exported).get("ModelSamplingDiscrete") == told


def test_a_pickled_checkpoint_is_not_opened(host, tmp_path):
    """What is in it, nobody asks: the workflow says what the model is."""
    file = host / "models" / "checkpoints" / "mine.ckpt"
    file.write_bytes(b"\x80\x04cos\nabort\n(tR.")
    exported = export(host, make_lora(tmp_path / "run", **SD2), file)
    assert values_of(exported)["ModelSamplingDiscrete"] == ["v_prediction", False]


# -- what is refused -----------------------------------------------------------------------------------------------


def test_no_comfyui_is_refused_with_what_is_near(host, tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        find_comfyui(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=rf"is no ComfyUI, it lacks models/ and comfy/\. {host} is one: give that"):
        find_comfyui(tmp_path)
    with pytest.raises(ValueError, match=rf"{host} is one: give that"):
        find_comfyui(host / "models" / "loras")
    (host / "comfy").rmdir()
    assert find_comfyui(host).root == host  # a base directory
    (host / "models" / "loras").rmdir()
    (host / "models" / "loras").touch()
    with pytest.raises(ValueError, match=r"cannot write to .*loras: make .* a folder"):
        find_comfyui(host)


def test_loras_that_have_no_place_there_are_refused_before_anything_is_written(host, tmp_path):
    digits = make_lora(tmp_path / "run", architecture="digits/lora")
    with pytest.raises(ValueError, match=r"of architecture digits/lora, which ComfyUI's checkpoint loader"):
        export(host, digits, None)
    bare = make_checkpoint(tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match=r"is no LoRA of this trainer: its metadata lack modelspec.architecture"):
        export(host, bare, None)
    (tmp_path / "cut.safetensors").write_bytes(b"\0" * 20)
    for broken in ("cut", "missing"):
        with pytest.raises(ValueError, match=rf"cannot read the LoRA .*{broken}"):
            export(host, tmp_path / f"{broken}.safetensors", None)
    assert not files_in(host)
