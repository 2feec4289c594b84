"""Models by a Hub name: what would be fetched is said; only what training needs is."""

from types import SimpleNamespace

import pytest

from training.models import ModelError, hub, inspect

LISTED = [
    "README.md",
    "model_index.json",
    "sd_xl_base_1.0.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "text_encoder/openvino_model.bin",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "unet/config.json",
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/model.onnx",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "vae_1_0/diffusion_pytorch_model.safetensors",
]
WANTED = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "unet/config.json",
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
}


@pytest.mark.parametrize(
    ("path", "is_name"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", True),
        ("owner/name", True),
        ("checkpoints/x.safetensors", False),
        ("models/x.ckpt", False),
        ("/owner/name", False),
        ("a/b/c", False),
        ("name", False),
        ("../name", False),
    ],
)
def test_what_reads_as_a_name(path, is_name):
    assert hub.is_hub_name(path) == is_name


def test_only_what_training_needs_is_fetched():
    assert set(hub.wanted_files(LISTED)) == WANTED


def test_what_is_fetched_is_said_with_its_size(monkeypatch, tmp_path):
    asked, said = [], []

    def snapshot(name, allow_patterns=None, local_files_only=False):
        asked.append((name, set(allow_patterns)))
        return str(tmp_path)

    files = [SimpleNamespace(rfilename=name, size=100_000_000) for name in LISTED]
    listing = SimpleNamespace(model_info=lambda name, files_metadata: SimpleNamespace(siblings=files))
    monkeypatch.setattr(hub, "HfApi", lambda: listing)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert hub.fetch("owner/name", said.append) == tmp_path
    assert asked == [("owner/name", WANTED)]
    assert said == ["owner/name: 1.2 GB from https://huggingface.co/owner/name, or from the cache on this machine"]


def test_without_network_the_cache_is_used(monkeypatch, tmp_path):
    def snapshot(name, allow_patterns=None, local_files_only=False):
        assert local_files_only
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert hub.fetch("owner/name") == tmp_path


def test_without_network_and_cache_the_way_out_is_named():
    with pytest.raises(ModelError) as error:
        inspect("owner/no-such-model")
    said = str(error.value)
    assert said.startswith("owner/no-such-model is no file or folder here")
    assert "fetched from https://huggingface.co/owner/no-such-model: model_index.json" in said
    assert "Without network, give a .safetensors checkpoint or a diffusers folder" in said
