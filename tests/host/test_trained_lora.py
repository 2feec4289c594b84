"""The loop closed: what the trainer saves, loaded and sampled inside a real ComfyUI, is what it samples itself.

`make_artefacts` writes what a run leaves behind (the teacher's folder, its label tokens, LoRA files); everything else
here reads only those files.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from host_support.host import Host
from host_support.trained import Answers, ask, distance, merged_weights
from lora_files import randomise
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from tcd_core import KeyedNoise, VPSchedule, inference_times, plan, sample, to_x0
from tcd_core.target_embedding import TargetTimeEmbedding
from training.lora_file import load_lora, lora_metadata, save_lora

TOKENS = 4
LABELS = list(range(10))
STEPS, GAMMA, SEED = 4, 0.2, 11
RANK, ALPHA = 6, 3.0
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv_in"]
TARGETS += ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "linear_1", "linear_2", "downsamplers.0.conv"]
TARGETS += ["upsamplers.0.conv", "conv_out"]
FILES = {  # name: (form, form of TCF(2), dtype)
    "tcf1": ("tcf1", None, "fp32"),
    "half": ("tcf1", None, "fp16"),
    "tcf2": ("tcf2", "epsilon", "fp32"),
    "s_plus": ("tcf_s_plus", None, "fp32"),
}
CASES = {  # name: (file, order, route)
    "tcf1": ("tcf1", "1", "custom"),
    "ksampler": ("tcf1", "1", "ksampler"),
    "half": ("half", "1", "custom"),
    "tcf1, order 2": ("tcf1", "2", "custom"),
    "tcf2": ("tcf2", "2", "custom"),
    "s_plus": ("s_plus", "1", "custom"),
}


@dataclass(frozen=True)
class Artefacts:
    """What training leaves behind: the teacher, its tokens (`weight`, a row per label), LoRA files by name."""

    teacher: Path
    tokens: Path
    loras: dict[str, Path]

    def network(self) -> UNet2DConditionModel:
        return UNet2DConditionModel.from_pretrained(self.teacher).requires_grad_(False)

    def label_tokens(self, labels: list[int], width: int) -> torch.Tensor:
        return load_file(self.tokens)["weight"][labels].unflatten(1, (TOKENS, width))


def make_artefacts(folder: Path) -> Artefacts:
    """A random teacher with random students: as good as trained ones for asking whether both sides agree."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    )
    made = Artefacts(folder / "teacher", folder / "label_tokens.safetensors", {})
    network.save_pretrained(made.teacher)
    save_file({"weight": torch.randn(len(LABELS) + 1, TOKENS * 32)}, made.tokens)
    embedding = TargetTimeEmbedding(32, 128)
    torch.nn.init.normal_(embedding.linear_2.weight, std=0.1)
    network.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS))
    (folder / "loras").mkdir()
    for seed, (name, (form, tcf2_form, dtype)) in enumerate(FILES.items()):
        randomise(network, seed)
        metadata = metadata_of(form, tcf2_form)
        made.loras[name] = folder / "loras" / f"{name}.safetensors"
        save_lora(made.loras[name], network, metadata, dtype, embedding if form == "tcf_s_plus" else None)
    return made


def metadata_of(form: str, tcf2_form: str | None) -> dict[str, str]:
    return lora_metadata(
        title="digits",
        architecture="digits/lora",
        base_model="digits",
        prediction_type="epsilon",
        resolution=8,
        rank=RANK,
        alpha=ALPHA,
        form=form,
        tcf2_form=tcf2_form,
        steps=STEPS,
        gamma=GAMMA,
        cfg=1.0,
        training_span="k=50, N=1000, s in [0, t_n]",
        recipe_hash="0123456789abcdef" * 4,
    )


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Artefacts:
    return make_artefacts(tmp_path_factory.mktemp("run"))


def forward_inputs(artefacts: Artefacts) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    config = artefacts.network().config
    x = torch.randn(3, config.in_channels, config.sample_size, config.sample_size, generator=generator)
    tokens = artefacts.label_tokens([3, 7, 10], config.cross_attention_dim)
    return {"x": x, "t": torch.tensor([999.0, 259.0, 0.0]), "tokens": tokens}


@pytest.fixture(scope="module")
def host(comfyui: Host, artefacts: Artefacts, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """One run of the driver over all cases."""
    folder, cases = tmp_path_factory.mktemp("host"), []
    for name, (lora, order, route) in CASES.items():
        network = artefacts.network()
        load_lora(network, artefacts.loras[lora])
        save_file(merged_weights(network), folder / f"{lora}.safetensors")
        case = {"name": name, "file": artefacts.loras[lora].name, "order": order, "route": route, "labels": LABELS}
        case |= {"seed": SEED, "steps": STEPS, "gamma": GAMMA, "weights": str(folder / f"{lora}.safetensors")}
        cases.append(case)
    job = {"teacher": str(artefacts.teacher), "tokens": str(artefacts.tokens), "prediction": "epsilon"}
    job |= {"loras": str(artefacts.loras["tcf1"].parent)}
    return ask(comfyui, folder, job, forward_inputs(artefacts), cases)


def headless(artefacts: Artefacts, lora: str, order: str, noise: torch.Tensor, form: str | None = None) -> torch.Tensor:
    """The pictures as the trainer samples them: `tcd_core` on the diffusers network with the file's LoRA."""
    network = artefacts.network()
    loaded = load_lora(network, artefacts.loras[lora])
    tokens = artefacts.label_tokens(LABELS, network.config.cross_attention_dim)
    told = {}
    if loaded.target_embedding is not None:
        network.time_embedding.register_forward_hook(
            lambda module, inputs, emb: emb + loaded.target_embedding(told["s"])
        )

    def model(x, t, s):
        told["s"] = torch.full((len(x),), s.t)
        return to_x0(network(x, t.t, tokens).sample, x, t, "epsilon")

    form = form or loaded.metadata.get("tcd.tcf2_form", "data")
    steps = plan(VPSchedule.scaled_linear(), inference_times(STEPS), GAMMA, order, form=form)
    return sample(model, noise, steps, KeyedNoise(noise, SEED))


def test_host_network_is_the_teacher(artefacts, host):
    given = forward_inputs(artefacts)
    with torch.no_grad():
        expected = artefacts.network()(given["x"], given["t"], given["tokens"]).sample
    assert distance(host.tensors["forward"], expected) <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_every_module_is_matched(artefacts, host, name):
    network = artefacts.network()
    load_lora(network, artefacts.loras[CASES[name][0]])
    count = len(merged_weights(network))
    assert f"matched {count} of {count} modules" in host.told[name]["report"]


@pytest.mark.parametrize("name", CASES)
def test_weights_are_peft_s_through_our_loader_and_the_stock_one(host, name):
    assert host.told[name]["weights"] <= 1e-6
    assert host.told[name]["stock"] <= 1e-6


@pytest.mark.parametrize("name", CASES)
def test_pictures_are_the_headless_sampler_s(artefacts, host, name):
    lora, order, _ = CASES[name]
    pictures, noise = host.tensors[f"{name}/pictures"], host.tensors[f"{name}/noise"]
    assert pictures.shape == (len(LABELS), 1, 8, 8) and torch.isfinite(pictures).all()
    assert distance(pictures, headless(artefacts, lora, order, noise)) <= 1e-3


def test_both_routes_give_the_same_pictures(host):
    assert distance(host.tensors["ksampler/pictures"], host.tensors["tcf1/pictures"]) <= 1e-5


def test_target_time_counts(artefacts, host, tmp_path):
    """Without its embedding the S+ network gives other pictures: the comparison above is not of two that ignore s."""
    noise, tensors = host.tensors["s_plus/noise"], load_file(artefacts.loras["s_plus"])
    bare = tmp_path / "without_s.safetensors"
    save_file({key: tensor for key, tensor in tensors.items() if key.startswith("lora_unet_")}, bare)
    without = Artefacts(artefacts.teacher, artefacts.tokens, {"s_plus": bare})
    assert distance(headless(without, "s_plus", "1", noise), host.tensors["s_plus/pictures"]) > 1e-2


@pytest.mark.parametrize(("name", "other"), [("tcf2", "data"), ("tcf1, order 2", "epsilon")])
def test_order_2_takes_the_form_the_file_was_distilled_with(artefacts, host, name, other):
    """The file's form is what the pictures above were equal with; the other form gives others."""
    lora, order, _ = CASES[name]
    pictures = headless(artefacts, lora, order, host.tensors[f"{name}/noise"], form=other)
    assert distance(host.tensors[f"{name}/pictures"], pictures) > 1e-2


@pytest.mark.parametrize("name", CASES)
def test_report_shows_what_the_trainer_wrote(artefacts, host, name):
    lora = CASES[name][0]
    form, tcf2_form, _ = FILES[lora]
    metadata, lines = (
        load_lora(artefacts.network(), artefacts.loras[lora]).metadata,
        host.told[name]["report"].split("\n"),
    )
    which = f": sample it with order 2, which then takes its {tcf2_form} form"
    shown = {"tcf1": "TCF(1)", "tcf2": f"TCF(2){which}", "tcf_s_plus": "TCF(S+)"}[form]
    assert f"distilled with {shown}" in lines and f"trained over {metadata['tcd.training_span']}" in lines
    assert f"recipe {metadata['tcd.recipe_hash'][:12]}" in lines
    assert f"modelspec.architecture: {metadata['modelspec.architecture']}" in lines
    assert lines[-1].startswith(f"recommended by the file: steps {metadata['tcd.steps']}, gamma ")
    assert ("TCF(S+): the network is told each step's target time" in lines) == (form == "tcf_s_plus")
