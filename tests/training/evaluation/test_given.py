"""What an evaluation is given: LoRAs in anybody's file, prompts and COCO, real pictures and their statistics."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from training_support.evaluations import small_model, write_lora

from training.data.items import DataError
from training.evaluation import lora, prompts
from training.evaluation.reference import FEW, notes_on, open_reference

# -- LoRAs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "style"), [("sd15", "kohya"), ("sd15", "diffusers"), ("sd15", "peft"), ("sdxl", "kohya")]
)
def test_a_lora_is_merged_as_peft_merges_it(family, style, checkpoint, tmp_path):
    theirs = write_lora(checkpoint(family), tmp_path / "x.safetensors", style)
    ours = small_model(checkpoint(family)).base()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    found = lora.merge(ours, tmp_path / "x.safetensors")
    for module in theirs.modules():
        if hasattr(module, "lora_A"):
            module.merge()
    expected = {k.replace(".base_layer", ""): v for k, v in theirs.state_dict().items() if "lora_" not in k}
    changed = [name for name, value in ours.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) == len(found.modules) == {"sd15": 278, "sdxl": 788}[family]
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def test_the_original_model_s_block_names_are_diffusers_modules(checkpoint, tmp_path):
    """As Hyper-SD's files for SDXL may have them."""
    write_lora(checkpoint("sdxl"), tmp_path / "x.safetensors")
    kept, renamed = {}, {}
    names = {  # diffusers' → the original's, of three blocks
        "lora_unet_down_blocks_1_attentions_0_": "lora_unet_input_blocks_4_1_",
        "lora_unet_mid_block_attentions_0_": "lora_unet_middle_block_1_",
        "lora_unet_up_blocks_0_attentions_1_": "lora_unet_output_blocks_1_1_",
    }
    for key, value in load_file(tmp_path / "x.safetensors").items():
        for mine, theirs in names.items():
            if key.startswith(mine):
                kept[key], renamed[key.replace(mine, theirs)] = value, value
    save_file(kept, tmp_path / "kept.safetensors")
    save_file(renamed, tmp_path / "renamed.safetensors")
    ours, theirs = (small_model(checkpoint("sdxl")).base() for _ in range(2))
    counts = [len(lora.merge(network, tmp_path / f"{name}.safetensors").modules)
              for network, name in ((ours, "kept"), (theirs, "renamed"))]  # fmt: skip
    assert counts[0] == counts[1] > 100
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_a_lora_of_another_family_is_refused_with_counts(checkpoint, tmp_path):
    for family in ("sd15", "sdxl", "sd21"):
        write_lora(checkpoint(family), tmp_path / f"{family}.safetensors")
    skeleton = small_model(checkpoint("sd15")).skeleton()
    with pytest.raises(ValueError, match="of its 788 modules 162 are in the UNet by name and .* give a LoRA of the"):
        lora.read(skeleton, tmp_path / "sdxl.safetensors")
    with pytest.raises(
        ValueError, match="of its 278 modules 278 are in the UNet by name and .* attends to text 64 wide"
    ):
        lora.read(skeleton, tmp_path / "sd21.safetensors")
    tensors = load_file(tmp_path / "sd15.safetensors")
    save_file(tensors | {"lora_te_text_model_x.lora_down.weight": torch.ones(2, 2)}, tmp_path / "te.safetensors")
    found = lora.read(skeleton, tmp_path / "te.safetensors")
    assert len(found.modules) == 278 and found.text_encoder == 1
    save_file({"emb_params": torch.ones(2, 2)}, tmp_path / "embedding.safetensors")
    with pytest.raises(ValueError, match="embedding.safetensors"):
        lora.read(skeleton, tmp_path / "embedding.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "sd15.safetensors").read_bytes()[:5000])
    with pytest.raises(ValueError, match="cut.safetensors is no whole safetensors file"):
        lora.read(skeleton, tmp_path / "cut.safetensors")


# -- prompts -----------------------------------------------------------------------------------------------------------


def write_coco(folder, count: int):
    (folder / "annotations").mkdir(parents=True)
    (folder / "val2017").mkdir()
    images = [{"id": 10 * i, "file_name": f"{i}.jpg"} for i in reversed(range(count))]
    for image in images:
        Image.new("RGB", (80, 70)).save(folder / "val2017" / image["file_name"])
    captions = [{"image_id": 10 * (n % count), "id": 1000 - n, "caption": f"caption {n}\n"} for n in range(3 * count)]
    path = folder / "annotations" / "captions_val2017.json"
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    return path


def test_coco_gives_each_picture_s_first_caption_by_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "COCO_COUNT", 4)
    write_coco(tmp_path / "coco", 4)
    found, pictures = prompts.read_coco(tmp_path / "coco")
    assert [prompt.text for prompt in found] == [f"caption {8 + i}" for i in range(4)]  # ids fall with n
    assert pictures == tmp_path / "coco" / "val2017"
    assert len(prompts.read_coco(tmp_path / "coco", 3)[0]) == 3


def test_what_is_not_coco_is_refused(tmp_path, monkeypatch):
    path = write_coco(tmp_path / "coco", 2)
    with pytest.raises(DataError, match="lists 2 pictures, COCO-2017 validation has 5000"):
        prompts.read_coco(tmp_path / "coco")
    monkeypatch.setattr(prompts, "COCO_COUNT", 2)
    (tmp_path / "coco" / "val2017" / "1.jpg").unlink()
    with pytest.raises(DataError, match="1 of its 2 pictures are not in"):
        prompts.read_coco(tmp_path / "coco")
    path.write_text("[]")
    with pytest.raises(DataError, match="does not hold COCO's captions"):
        prompts.read_coco(tmp_path / "coco")
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file or directory. Give COCO's"):
        prompts.read_coco(tmp_path / "coco")
    with pytest.raises(DataError, match="val2017 is missing: unpack COCO's"):
        prompts.read_coco(tmp_path)


def test_a_prompt_s_key_follows_from_its_text_and_turn_alone():
    a, b = prompts.numbered(["x", "y", "x"]), prompts.numbered(["y", "z", "x", "x"])
    assert [p.key for p in a] == [b[2].key, b[0].key, b[3].key] and len({p.key for p in a}) == 3
    assert all(0 <= p.key < 2**63 for p in a)


# -- real pictures -----------------------------------------------------------------------------------------------------


def test_real_pictures_are_counted_and_what_is_odd_is_noted(tmp_path):
    (tmp_path / "below").mkdir()
    for i, side in enumerate((64, 80, 40)):
        Image.new("RGB", (side, side)).save(tmp_path / ("below" if i else ".") / f"{i}.png")
    found = open_reference(tmp_path, 4, 64)
    assert (len(found.pictures), found.smaller) == (3, 1)
    notes = notes_on(found, 4)
    assert f"FID is of 3 pictures only: with fewer than {FEW} it comes out far too high" in notes[0]
    assert notes[1].startswith("1 of the 3 reference pictures are smaller") and "4 generated" in notes[2]
    (tmp_path / "3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="3.png is no PNG, JPEG, WebP or BMP, or its beginning is damaged: delete it"):
        open_reference(tmp_path, 4, 64)


def test_two_pictures_in_place_of_5000_are_refused(tmp_path):
    for i in range(2):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match="holds 2 pictures, for 5000 generated ones: FID and KID would say nothing"):
        open_reference(tmp_path, 5000, 64)


def test_statistics_are_read_as_pytorch_fid_and_clean_fid_write_them(tmp_path):
    mu, sigma = np.zeros(2048), np.eye(2048)
    np.savez(tmp_path / "good.npz", mu=mu, sigma=sigma)
    found = open_reference(tmp_path / "good.npz", 5000, 64)
    assert found.pictures == () and found.statistics.mean.shape == (2048,) and notes_on(found, 5000) == []
    for name, arrays, expected in [
        ("keys", {"m": mu}, "holds m and no mu and sigma"),
        ("small", {"mu": mu[:64], "sigma": sigma[:64, :64]}, r"mu \(64,\) and sigma \(64, 64\), not \(2048,\)"),
        ("skew", {"mu": mu, "sigma": np.triu(np.ones((2048, 2048)))}, "not finite, or not symmetric"),
        ("nan", {"mu": mu * np.nan, "sigma": sigma}, "not finite, or not symmetric"),
    ]:
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(DataError, match=expected):
            open_reference(tmp_path / f"{name}.npz", 5000, 64)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:1000])
    with pytest.raises(DataError, match="cut.npz cannot be read"):
        open_reference(tmp_path / "cut.npz", 5000, 64)
