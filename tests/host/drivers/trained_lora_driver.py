"""Samples a trainer's teacher with its LoRAs inside the host; arguments: job.json results.safetensors answers.json.

The job names the teacher's folder (a diffusers UNet2DConditionModel) and prediction, its label tokens, the folder of
LoRA files, a forward pass to repeat (x, t, tokens) and cases: a LoRA file, labels and sampler settings. The teacher
becomes the host's own UNet, of the same weights, in a model of the SD 1.5 kind whose latents are the teacher's.
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
from host_support import in_host  # noqa: E402

in_host.start_host()
import comfy.latent_formats  # noqa: E402
import comfy.model_base  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.supported_models  # noqa: E402
import comfy.utils  # noqa: E402
import folder_paths  # noqa: E402
import torch  # noqa: E402
from comfy_extras.nodes_custom_sampler import SamplerCustom  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

CPU = torch.device("cpu")
loader, custom = in_host.load_pack("nodes.lora_loader"), in_host.load_pack("nodes.custom_sampling")
ksampler = in_host.load_pack("nodes.ksampler")


class Unscaled(comfy.latent_formats.LatentFormat):
    """Latents as the teacher's network sees them: no scale, as many channels as it has."""

    def __init__(self, channels: int):
        self.latent_channels = channels


def per_level(value, levels: int) -> list:
    return list(value) if isinstance(value, list | tuple) else [value] * levels


def unet_config(config: dict) -> dict:
    """The host's UNetModel arguments for a diffusers UNet2DConditionModel's config.json."""
    widths = config["block_out_channels"]
    levels = len(widths)
    blocks = per_level(config["layers_per_block"], levels)
    depth = per_level(config.get("transformer_layers_per_block", 1), levels)
    heads = set(per_level(config.get("num_attention_heads") or config["attention_head_dim"], levels))
    assert len(heads) == 1, "one number of heads for all levels"
    down = [depth[i] if "CrossAttn" in kind else 0 for i, kind in enumerate(config["down_block_types"])]
    up = [depth[i] if "CrossAttn" in kind else 0 for i, kind in enumerate(reversed(config["up_block_types"]))]
    return {
        "image_size": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": widths[0],
        "channel_mult": [width // widths[0] for width in widths],
        "num_res_blocks": blocks,
        "transformer_depth": [down[i] for i in range(levels) for _ in range(blocks[i])],
        "transformer_depth_output": [up[i] for i in range(levels) for _ in range(blocks[i] + 1)],
        "transformer_depth_middle": depth[-1] if config["mid_block_type"] else -2,
        "context_dim": config["cross_attention_dim"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": config["use_linear_projection"],
        "num_heads": heads.pop(),
        "num_head_channels": -1,
        "use_checkpoint": False,
        "legacy": False,
        "adm_in_channels": None,
    }


def load_teacher(folder: Path, prediction: str) -> tuple[comfy.model_patcher.ModelPatcher, dict[str, str]]:
    """(the teacher as a model of the host's, the host's weight key of each of its diffusers names)."""
    config = json.loads((folder / "config.json").read_text())
    arguments = unet_config(config)
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    names = {name: key for name, key in comfy.utils.unet_to_diffusers(arguments).items() if name in weights}
    kind = comfy.supported_models.SD15(arguments)
    kind.unet_config |= arguments  # SD 1.5's own number of heads out again
    kind.latent_format = Unscaled(config["in_channels"])
    kind.set_inference_dtype(torch.float32, None)
    types = comfy.model_base.ModelType
    model_type = {"epsilon": types.EPS, "v_prediction": types.V_PREDICTION}[prediction]
    model = comfy.model_base.BaseModel(kind, model_type=model_type, device="cpu")
    model.diffusion_model.load_state_dict({key: weights[name] for name, key in names.items()}, strict=True)
    assert names.keys() == weights.keys(), "every weight of the teacher has a place in the host's network"
    patcher = comfy.model_patcher.ModelPatcher(model.eval(), load_device=CPU, offload_device=CPU)
    return patcher, {name: f"diffusion_model.{key}" for name, key in names.items()}


def tokens_of(table: torch.Tensor, labels: list[int], width: int) -> torch.Tensor:
    """Label tokens (B, tokens, width) from the table (labels, tokens · width)."""
    return table[labels].unflatten(1, (-1, width))


def worst_weight(model, expected: dict[str, torch.Tensor], keys: dict[str, str]) -> float:
    """Largest relative distance of the patched model's weights from those expected, by diffusers' names."""
    model.patch_model(device_to=CPU)
    try:
        found = model.model.state_dict()
        return max(float((found[keys[name]] - w).norm() / w.norm()) for name, w in expected.items())
    finally:
        model.unpatch_model(device_to=CPU)


def sampled(case: dict, model, cond: list, shape: list[int]) -> torch.Tensor:
    """The pictures of SamplerCustom with this pack's sampler and times, or of its own KSampler."""
    latent = {"samples": torch.zeros(shape)}
    if case["route"] == "ksampler":
        settings = (case["seed"], case["steps"], 1.0, case["gamma"], cond, cond, latent, 1.0, case["order"])
        return ksampler.KSampler.execute(model, *settings).args[0]["samples"]
    sigmas = custom.Scheduler.execute(model, case["steps"], 1.0, 50).args[0]
    sampler = custom.Sampler.execute(case["gamma"], case["order"]).args[0]
    return SamplerCustom().sample(model, True, case["seed"], 1.0, cond, cond, sampler, sigmas, latent)[0]["samples"]


def run_case(case: dict, teacher, keys: dict[str, str], table: torch.Tensor) -> tuple[dict, dict]:
    """(tensors, answers) of one case."""
    model, report = loader.LoraLoader.execute(teacher, case["file"], 1.0).args
    config = teacher.model.model_config.unet_config
    shape = [len(case["labels"]), config["in_channels"], config["image_size"], config["image_size"]]
    cond = [[tokens_of(table, case["labels"], config["context_dim"]), {}]]
    noise = comfy.sample.prepare_noise(torch.zeros(shape), case["seed"])
    tensors = {"pictures": sampled(case, model, cond, shape), "noise": noise}
    lora = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("loras", case["file"]))
    stock = comfy.sd.load_lora_for_models(teacher, None, lora, 1.0, 0.0)[0]
    expected = load_file(case["weights"])
    answers = {"weights": worst_weight(model, expected, keys), "stock": worst_weight(stock, expected, keys)}
    return tensors, answers | {"report": report}


def main(job_file: str, results_file: str, answers_file: str) -> None:
    job = json.loads(Path(job_file).read_text())
    folder_paths.add_model_folder_path("loras", job["loras"], is_default=True)
    teacher, keys = load_teacher(Path(job["teacher"]), job["prediction"])
    table, given = load_file(job["tokens"])["weight"], load_file(job["forward"])
    with torch.inference_mode():
        output = teacher.model.diffusion_model(given["x"], given["t"], context=given["tokens"])
    results, answers = {"forward": output}, {}
    for case in job["cases"]:
        tensors, answers[case["name"]] = run_case(case, teacher, keys, table)
        results |= {f"{case['name']}/{name}": tensor for name, tensor in tensors.items()}
    save_file({name: tensor.contiguous() for name, tensor in results.items()}, results_file)
    Path(answers_file).write_text(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
