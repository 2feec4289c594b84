"""The VAE in little memory: large pictures are encoded one by one and decoded in bf16 or tiles, small ones as ever."""

import pytest
import torch
from training_support.pretrained import small_recipe

from training import families, models
from training.families import vae
from training.families.encoders import Encoders
from training.live_tensors import LiveTensors

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def found(sd15):
    return models.inspect(sd15, f"{sd15}.config")


@pytest.fixture(scope="module")
def loaded(found):
    """A VAE of Stable Diffusion's layers, narrow."""
    return models.load_vae(found)


@pytest.fixture
def small_is_large(monkeypatch):
    """More than 32 × 32 pixels are too many at a time."""
    monkeypatch.setattr(vae, "SMALL", 32**2)
    monkeypatch.setattr(vae, "PIXELS", 32**2)


def noise(*shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def calls_of(module, monkeypatch) -> list[int]:
    """How many pictures each call of a module has."""
    sizes, forward = [], module.forward
    monkeypatch.setattr(module, "forward", lambda x, *rest: sizes.append(len(x)) or forward(x, *rest))
    return sizes


def test_large_pictures_are_encoded_one_by_one_to_the_same_latents(loaded, monkeypatch):
    pictures, sizes = noise(3, 3, 64, 32).clamp(-1, 1), calls_of(loaded.encoder, monkeypatch)
    together = vae.encode(loaded, pictures)
    monkeypatch.setattr(vae, "PIXELS", 64 * 32)
    with LiveTensors() as live:
        one_by_one = vae.encode(loaded, pictures)
    assert sizes == [3, 1, 1, 1] and together.shape == (3, 4, 8, 4)
    torch.testing.assert_close(one_by_one, together, rtol=1e-4, atol=1e-5)
    with LiveTensors() as of_one:
        vae.encode(loaded, pictures[:1])
    assert live.peak < 1.1 * of_one.peak


def test_the_cache_s_pass_encodes_this_way(sd15, cats, monkeypatch):
    encoders = Encoders(families.build(small_recipe(sd15, cats)), CPU)
    encoders.latents(noise(1, 3, 64, 64))
    sizes = calls_of(encoders._loaded.encoder, monkeypatch)
    monkeypatch.setattr(vae, "PIXELS", 64 * 64)
    assert encoders.latents(noise(2, 3, 64, 64)).shape == (2, 4, 8, 8) and sizes == [1, 1]


def test_pictures_are_decoded_one_at_a_time(loaded, monkeypatch):
    latents, sizes = noise(3, 4, 4, 8), calls_of(loaded.decoder, monkeypatch)
    with LiveTensors() as live:
        pictures = vae.decode(loaded, latents)
    assert sizes == [1, 1, 1] and pictures.shape == (3, 3, 32, 64) and pictures.dtype == torch.float32
    with LiveTensors() as of_one:
        vae.decode(loaded, latents[:1])
    assert live.peak < of_one.peak + 3 * pictures.nbytes


def test_several_small_ones_are_decoded_together_up_to_the_pixels_of_a_large_one(loaded, monkeypatch):
    latents, sizes = noise(5, 4, 4, 8), calls_of(loaded.decoder, monkeypatch)
    one_by_one = vae.decode(loaded, latents)
    sizes.clear()
    monkeypatch.setattr(vae, "SMALL", 2 * 32 * 64)
    torch.testing.assert_close(vae.decode(loaded, latents, together=True), one_by_one, rtol=1e-4, atol=1e-5)
    assert sizes == [2, 2, 1]
    monkeypatch.setattr(vae, "SMALL", 32 * 64)
    vae.decode(loaded, latents, together=True)
    assert sizes[3:] == [1] * 5


@pytest.mark.parametrize(("side", "dtype"), [(512, torch.float32), (768, torch.float32), (1024, torch.bfloat16)])
def test_above_768_px_it_is_in_bf16_where_there_is_that(side, dtype, monkeypatch):
    latents = torch.empty(1, 4, side // 8, side // 8)
    assert vae.decoding_dtype(latents, CPU) == dtype
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert vae.decoding_dtype(latents, torch.device("cuda")) == torch.float32
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert vae.decoding_dtype(latents, torch.device("cuda")) == dtype


def test_bf16_s_pictures_are_float32_s_within_a_hundredth_of_their_range(sd15, cats, loaded, monkeypatch):
    """On average; of the largest differences a tenth."""
    latents, family = noise(1, 4, 8, 8), families.build(small_recipe(sd15, cats))
    whole = family.decode(latents)
    monkeypatch.setattr(vae, "SMALL", 32**2)
    half = family.decode(latents)
    assert whole.std() > 0.2 and half.dtype == torch.float32
    off = (half - whole).abs()
    assert 0 < off.mean() < 0.02 and off.max() < 0.2


def test_without_bf16_large_pictures_are_decoded_in_overlapping_tiles(loaded, small_is_large, monkeypatch):
    latents = noise(1, 4, 8, 8)
    monkeypatch.setattr(vae, "SMALL", 64**2)
    whole = vae.decode(loaded, latents)
    monkeypatch.setattr(vae, "SMALL", 32**2)
    sizes = calls_of(loaded.decoder, monkeypatch)
    with LiveTensors() as live:
        tiled = vae.decode(loaded, latents)
    assert len(sizes) == 9 and tiled.shape == whole.shape and torch.isfinite(tiled).all()
    monkeypatch.setattr(vae, "SMALL", 64**2)
    with LiveTensors() as at_once:
        assert torch.equal(vae.decode(loaded, latents), whole), "tiles are for large pictures alone"
    assert live.peak < at_once.peak / 2
