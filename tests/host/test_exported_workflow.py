"""What the trainer puts into ComfyUI's folders, in a real one: listed there, and its workflow makes a picture."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from host_support import tiny_checkpoints
from host_support.ui_workflow import to_prompt
from safetensors.torch import load_file, save_file
from test_example_workflows import of_type, place_lora, without_text_encoder

from training.comfyui import NO_CHECKPOINT, Exported, export
from training.lora_file import lora_metadata

KINDS = {  # tiny checkpoint → (architecture, prediction, side)
    "sd15": ("stable-diffusion-v1/lora", "epsilon", 512),
    "sd21v": ("stable-diffusion-v2-768-v/lora", "v_prediction", 768),
    "sdxl": ("stable-diffusion-xl-v1-base/lora", "epsilon", 1024),
}


def trained(folder: Path, family: str, name: str, prediction: str | None = None) -> Path:
    """A LoRA of the tiny checkpoint, with the metadata that the trainer writes."""
    architecture, own, side = KINDS[family]
    place_lora(folder / "bare.safetensors", family)
    metadata = lora_metadata(
        title=name,
        architecture=architecture,
        base_model=family,
        prediction_type=prediction or own,
        resolution=side,
        rank=4,
        alpha=4.0,
        form="tcf1",
        steps=4,
        gamma=0.2,
        cfg=1.0,
        training_span="k=20, N=1000, s in [0, t_n]",
        recipe_hash="0123456789abcdef",
    )
    save_file(load_file(folder / "bare.safetensors"), folder / f"{name}.safetensors", metadata)
    return folder / f"{name}.safetensors"


def run(exported: Exported, family: str, server, checkpoint: str | None = None):
    """The exported workflow as the front end would send it, at a small size; its result."""
    prompt = to_prompt(json.loads(exported.workflow.read_text(encoding="utf-8")), server.object_info())
    if checkpoint:
        (loader,) = of_type(prompt, "CheckpointLoaderSimple").values()
        assert loader["ckpt_name"] == NO_CHECKPOINT
        loader["ckpt_name"] = checkpoint
    return server.run(without_text_encoder(prompt, family))


@pytest.mark.parametrize("family", KINDS)
def test_exported_files_are_listed_and_make_a_picture(family, server, checkpoints, base_directory, tmp_path):
    lora, file = trained(tmp_path, family, f"tcd_{family}"), checkpoints / tiny_checkpoints.FAMILIES[family].file
    exported = export(base_directory, lora, file)
    assert exported.notes == ()
    assert exported.lora.name in json.dumps(server.object_info()["TCDToolkit_LoraLoader"]["input"])
    assert f"tcd_{family}.json" in server._request("/userdata?dir=workflows")

    result = run(exported, family, server)

    modules = len(load_file(lora)) // 3
    assert f"{modules} of {modules}" in result.text("9")
    assert len(result.images) == 1 and result.images[0].std() > 1


def test_checkpoint_in_a_subfolder_is_found_by_the_name_it_is_given(server, checkpoints, base_directory, tmp_path):
    (checkpoints / "fine-tunes").mkdir()
    file = checkpoints / "fine-tunes" / "mine.safetensors"
    shutil.copy(checkpoints / tiny_checkpoints.FAMILIES["sd15"].file, file)
    exported = export(base_directory, trained(tmp_path, "sd15", "tcd_sub"), file)
    assert run(exported, "sd15", server).images[0].std() > 1


@pytest.mark.parametrize("family", KINDS)
def test_host_takes_the_checkpoint_for_what_the_export_says_it_does(
    family, server, checkpoints, base_directory, tmp_path
):
    """Told explicitly (the file not known to `export`) and left to the host's detection: the same picture."""
    lora, file = trained(tmp_path, family, f"tcd_{family}_told"), tiny_checkpoints.FAMILIES[family].file
    left = run(export(base_directory, lora, checkpoints / file), family, server)
    unknown = export(base_directory, lora, None)
    assert ("ModelSamplingDiscrete" in unknown.workflow.read_text()) == (family == "sd21v")
    told = run(unknown, family, server, checkpoint=file)
    assert np.array_equal(left.images[0], told.images[0])


def test_prediction_that_the_file_does_not_tell_reaches_the_sampler(server, checkpoints, base_directory, tmp_path):
    """One file, three things it may have been trained as: three pictures."""
    file, pictures = checkpoints / tiny_checkpoints.FAMILIES["sd15"].file, []
    for name, prediction, zero_snr in (("e", "epsilon", False), ("v", "v_prediction", False), ("z", None, True)):
        lora = trained(tmp_path, "sd15", f"tcd_as_{name}", prediction or "v_prediction")
        exported = export(base_directory, lora, file, zero_terminal_snr=zero_snr)
        pictures.append(run(exported, "sd15", server).images[0].astype(int))
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert abs(pictures[a] - pictures[b]).max() > 2, (a, b)
