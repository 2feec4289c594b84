"""The metrics' networks on small random weights, against transformers, other implementations and plain arithmetic."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from training_support.evaluations import CLIP_CONFIG, write_clip, write_inception
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from training.evaluation import clip_like, image_reward
from training.evaluation.clip_like import AESTHETIC, Aesthetic, Clip, ClipScore, PickScore
from training.evaluation.inception import FIDELITY, SCRIPT, Inception
from training.evaluation.judging import Complexity
from training.evaluation.weights import Unavailable, Weights, load_state

CPU = torch.device("cpu")
CAPTIONS = ["a cat", "two dogs, a bird!"]


def some_pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, shape or (2, 3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("shape", [(2, 3, 60, 80), (2, 3, 512, 300), (1, 3, 224, 224)])
def test_pictures_are_prepared_as_clip_s_own_processor_does(shape):
    pictures = some_pictures(*shape)
    processor = CLIPImageProcessorPil()
    expected = processor([np.asarray(p.permute(1, 2, 0)) for p in pictures], return_tensors="pt").pixel_values
    torch.testing.assert_close(clip_like.clip_pixels(pictures), expected, rtol=0, atol=1e-6)


def test_clip_score_and_pick_score_are_the_whole_network_s_logits(tmp_path):
    network, pictures = write_clip(tmp_path / "clip-vit-large-patch14"), some_pictures()
    write_clip(tmp_path / "PickScore_v1")
    tokens = Clip(network, CPU).tokenizer(CAPTIONS, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        logits = network(**tokens, pixel_values=clip_like.clip_pixels(pictures, 28)).logits_per_image.diagonal()
        score = ClipScore(Weights(tmp_path), CPU)(pictures, CAPTIONS)["clip_score"]
        pick = PickScore(Weights(tmp_path), CPU)(pictures, CAPTIONS)["pick_score"]
    torch.testing.assert_close(pick, logits)
    torch.testing.assert_close(score, (100 * logits / network.logit_scale.exp()).clamp(min=0))


def test_the_aesthetic_score_is_linear_layers_over_clip_s_unit_vector(tmp_path):
    network, pictures = write_clip(tmp_path / "clip-vit-large-patch14"), some_pictures()
    sizes, state = (16, 8, 4, 1), {}
    for number, n_in, n_out in zip((0, 2, 4), sizes, sizes[1:], strict=False):
        state |= {f"layers.{number}.weight": torch.randn(n_out, n_in), f"layers.{number}.bias": torch.randn(n_out)}
    torch.save(state, tmp_path / AESTHETIC)
    with torch.no_grad():
        found = Aesthetic(Weights(tmp_path), CPU)(pictures, CAPTIONS)["aesthetic"]
        x = network.get_image_features(clip_like.clip_pixels(pictures, 28))
        x = x if torch.is_tensor(x) else x.pooler_output
        x = x / x.norm(dim=-1, keepdim=True)
        for number in (0, 2, 4):
            x = x @ state[f"layers.{number}.weight"].T + state[f"layers.{number}.bias"]
    torch.testing.assert_close(found, x[:, 0], rtol=1e-4, atol=1e-5)


def test_a_network_in_open_clip_s_names_is_the_same_network(tmp_path):
    """Renamed here, by hand, as open_clip has it: q, k and v in one, projections turned."""
    network, state = write_clip(tmp_path / "clip"), {}
    ours = network.state_dict()
    for side, start in (("vision_model", "visual."), ("text_model", "")):
        for i in range(2):
            layer, block = f"{side}.encoder.layers.{i}.", f"{start}transformer.resblocks.{i}."
            for kind in ("weight", "bias"):
                qkv = [ours[f"{layer}self_attn.{part}_proj.{kind}"] for part in "qkv"]
                state[f"{block}attn.in_proj_{kind}"] = torch.cat(qkv)
                for mine, theirs in (
                    ("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                    ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
                ):  # fmt: skip
                    state[f"{block}{theirs}.{kind}"] = ours[f"{layer}{mine}.{kind}"]
    for kind in ("weight", "bias"):
        for mine, theirs in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post")):
            state[f"visual.{theirs}.{kind}"] = ours[f"vision_model.{mine}.{kind}"]
        state[f"ln_final.{kind}"] = ours[f"text_model.final_layer_norm.{kind}"]
    embeddings = "vision_model.embeddings."
    state["visual.conv1.weight"] = ours[f"{embeddings}patch_embedding.weight"]
    state["visual.class_embedding"] = ours[f"{embeddings}class_embedding"]
    state["visual.positional_embedding"] = ours[f"{embeddings}position_embedding.weight"]
    state["visual.proj"] = ours["visual_projection.weight"].T.contiguous()
    state["token_embedding.weight"] = ours["text_model.embeddings.token_embedding.weight"]
    state["positional_embedding"] = ours["text_model.embeddings.position_embedding.weight"]
    state["text_projection"] = ours["text_projection.weight"].T.contiguous()
    state["logit_scale"] = ours["logit_scale"]
    found = clip_like.from_open_clip(state, CLIP_CONFIG, tmp_path / "hps.pt").state_dict()
    assert found.keys() == ours.keys() and all(torch.equal(found[key], ours[key]) for key in ours)
    del state["visual.proj"]
    with pytest.raises(Unavailable, match="hps.pt is not the network it should be: 1 of"):
        clip_like.from_open_clip(state, CLIP_CONFIG, tmp_path / "hps.pt")


# -- ImageReward -------------------------------------------------------------------------------------------------------


SIZES = {"width": 16, "heads": 2, "depth": 2, "text": 12}


def blip_state() -> dict[str, torch.Tensor]:
    """Random weights in ImageReward's names, at small sizes."""
    w, t, state = SIZES["width"], SIZES["text"], {}

    def linear(name: str, n_in: int, n_out: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = 0.4 * torch.randn(n_out, n_in), 0.1 * torch.randn(n_out)

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + 0.1 * torch.randn(width), 0.1 * torch.randn(width)

    torch.manual_seed(0)
    vision, text = "blip.visual_encoder.", "blip.text_encoder."
    state[f"{vision}cls_token"], state[f"{vision}pos_embed"] = torch.randn(1, 1, w), torch.randn(1, 5, w)
    state[f"{vision}patch_embed.proj.weight"] = 0.1 * torch.randn(w, 3, 16, 16)
    state[f"{vision}patch_embed.proj.bias"] = torch.randn(w)
    for i in range(SIZES["depth"]):
        block = f"{vision}blocks.{i}."
        norm(f"{block}norm1", w), norm(f"{block}norm2", w)
        linear(f"{block}attn.qkv", w, 3 * w), linear(f"{block}attn.proj", w, w)
        linear(f"{block}mlp.fc1", w, 2 * w), linear(f"{block}mlp.fc2", 2 * w, w)
    norm(f"{vision}norm", w)
    state[f"{text}embeddings.word_embeddings.weight"] = torch.randn(50, t)
    state[f"{text}embeddings.position_embeddings.weight"] = torch.randn(40, t)
    norm(f"{text}embeddings.LayerNorm", t)
    for i in range(SIZES["depth"]):
        layer = f"{text}encoder.layer.{i}."
        for kind, seen in (("attention", t), ("crossattention", w)):
            linear(f"{layer}{kind}.self.query", t, t)
            linear(f"{layer}{kind}.self.key", seen, t), linear(f"{layer}{kind}.self.value", seen, t)
            linear(f"{layer}{kind}.output.dense", t, t), norm(f"{layer}{kind}.output.LayerNorm", t)
        linear(f"{layer}intermediate.dense", t, 2 * t)
        linear(f"{layer}output.dense", 2 * t, t), norm(f"{layer}output.LayerNorm", t)
    linear("mlp.layers.0", t, 8), linear("mlp.layers.2", 8, 1)
    return state


def blip_score(state, pixels, ids, mask) -> torch.Tensor:
    """ImageReward's score in plain torch, from its own names: the reference."""
    heads = SIZES["heads"]

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name, x, eps):
        return nn.functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def attend(q, k, v, mask=None):
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        weights = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        weights = weights if mask is None else weights.masked_fill(mask[:, None, None] == 0, -torch.inf)
        return (weights.softmax(-1) @ v).transpose(1, 2).flatten(2)

    start = "blip.visual_encoder."
    patches = nn.functional.conv2d(
        pixels, state[f"{start}patch_embed.proj.weight"], state[f"{start}patch_embed.proj.bias"], 16
    )
    x = patches.flatten(2).transpose(1, 2)
    x = torch.cat([state[f"{start}cls_token"].expand(len(x), 1, -1), x], 1) + state[f"{start}pos_embed"]
    for i in range(SIZES["depth"]):
        block = f"{start}blocks.{i}."
        q, k, v = linear(f"{block}attn.qkv", norm(f"{block}norm1", x, 1e-6)).chunk(3, -1)
        x = x + linear(f"{block}attn.proj", attend(q, k, v))
        hidden = nn.functional.gelu(linear(f"{block}mlp.fc1", norm(f"{block}norm2", x, 1e-6)))
        x = x + linear(f"{block}mlp.fc2", hidden)
    seen = norm(f"{start}norm", x, 1e-6)
    start = "blip.text_encoder."
    x = state[f"{start}embeddings.word_embeddings.weight"][ids]
    x = x + state[f"{start}embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm(f"{start}embeddings.LayerNorm", x, 1e-12)
    for i in range(SIZES["depth"]):
        layer = f"{start}encoder.layer.{i}."
        for kind in ("attention", "crossattention"):
            of, own = f"{layer}{kind}.", x if kind == "attention" else seen
            q, k, v = (linear(f"{of}self.{n}", y) for n, y in (("query", x), ("key", own), ("value", own)))
            found = attend(q, k, v, mask if kind == "attention" else None)
            x = norm(f"{of}output.LayerNorm", linear(f"{of}output.dense", found) + x, 1e-12)
        hidden = nn.functional.gelu(linear(f"{layer}intermediate.dense", x))
        x = norm(f"{layer}output.LayerNorm", linear(f"{layer}output.dense", hidden) + x, 1e-12)
    reward = linear("mlp.layers.2", linear("mlp.layers.0", x[:, 0]))[:, 0]
    return (reward - 0.16717362830052426) / 1.0333394966054072


def test_image_reward_by_transformers_blip_is_the_score_in_plain_arithmetic(tmp_path):
    state, w, t = blip_state(), SIZES["width"], SIZES["text"]
    vision = {"hidden_size": w, "intermediate_size": 2 * w, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": 50, "hidden_size": t, "encoder_hidden_size": w, "intermediate_size": 2 * t}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 40, "sep_token_id": 1}
    text |= {"bos_token_id": 1, "eos_token_id": 1}
    sizes = image_reward.VISION | vision | {"image_size": 32}, image_reward.TEXT | text
    parts = image_reward.networks(state, tmp_path / "x.pt", *sizes)
    pixels, ids = torch.randn(3, 3, 32, 32), torch.randint(1, 50, (3, 35))
    mask = torch.ones(3, 35, dtype=torch.long)
    mask[1, 9:], ids[1, 9:] = 0, 0
    with torch.no_grad():
        found = image_reward.score(*parts, pixels, ids, mask)
        expected = blip_score(state, pixels, ids, mask)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    del state["blip.visual_encoder.norm.weight"]
    with pytest.raises(Unavailable, match="x.pt is not ImageReward: 1 of its visual_encoder's"):
        image_reward.networks(state, tmp_path / "x.pt", *sizes)


# -- the others, and where weights are ---------------------------------------------------------------------------------


def test_complexity_is_the_mean_difference_of_neighbouring_pixels():
    stripes = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    stripes[..., ::2] = 255  # 2 apart across, 0 down
    assert Complexity(Weights(), CPU)(stripes, [""])["complexity"].tolist() == pytest.approx([1.0])


def test_inception_by_torch_fidelity_gives_2048_features(tmp_path):
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Theirs
    except Exception as error:
        pytest.skip(f"torch-fidelity cannot be imported: {error}")
    import unittest.mock

    with unittest.mock.patch.object(Theirs, "load_state_dict"), unittest.mock.patch("torch.load"):
        theirs = Theirs("x", ["2048"], feature_extractor_weights_path="none")
    torch.save(theirs.state_dict(), tmp_path / FIDELITY)
    ours = Inception(Weights(tmp_path), CPU)
    pictures = some_pictures(2, 3, 64, 64)
    found = ours(pictures)["inception"]
    assert found.shape == (2, 2048) and ours.source.startswith("torch-fidelity ")
    torch.testing.assert_close(found, theirs(pictures)[0])


def test_a_file_that_is_not_inception_is_one_clear_line(tmp_path):
    (tmp_path / SCRIPT).write_bytes(b"no script")
    with pytest.raises(Unavailable, match="is damaged, or no TorchScript file: fetch it again"):
        Inception(Weights(tmp_path), CPU)
    write_inception(tmp_path)
    assert Inception(Weights(tmp_path), CPU)(some_pictures())["inception"].shape == (2, 32)


def test_weights_that_are_nowhere_are_one_line_that_says_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    weights = Weights(tmp_path)
    for ask in (
        lambda: weights.file(("no-such.pt",), repository="nobody/has-this", size="2 GB"),
        lambda: weights.file(("no-such.pt",), url="https://example.org/no-such.pt", size="2 GB"),
        lambda: weights.repository("nobody/no-such.pt", ("*",), "2 GB"),
    ):
        with pytest.raises(Unavailable) as told:
            ask()
        line = str(told.value)
        assert line.startswith("its weights are not on this machine: put no-such.pt (") and "\n" not in line
        assert "2 GB) into --weights FOLDER, or add --fetch" in line


def test_pickles_of_more_than_tensors_are_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    (tmp_path / "cut.safetensors").write_bytes(b"1")
    for name in ("evil.pt", "cut.pt", "cut.safetensors"):
        with pytest.raises(Unavailable, match="fetch it again"):
            load_state(tmp_path / name)
    assert not (tmp_path / "written").exists()
    save_file({"a": torch.ones(2)}, tmp_path / "whole.safetensors")
    assert load_state(tmp_path / "whole.safetensors")["a"].tolist() == [1, 1]


def test_pictures_of_any_sort_are_read_into_one_size(tmp_path):
    from training.data.items import DataError
    from training.evaluation import pictures
    from training.evaluation.reference import square

    for i, (mode, size) in enumerate([("RGB", (90, 70)), ("L", (64, 64)), ("RGBA", (40, 200)), ("P", (64, 65))]):
        Image.new(mode, size).save(tmp_path / f"{i}.png")
    paths = sorted(tmp_path.glob("*.png"))
    assert [tuple(batch.shape) for batch in pictures.batches(paths, 3, square(64))] == [(3, 3, 64, 64), (1, 3, 64, 64)]
    with pytest.raises(DataError, match="1.png is 64 × 64 pixels, .*0.png 90 × 70: pictures of one size"):
        list(pictures.batches(paths, 3))
