"""Distilled models inside the host; arguments: job.json results.safetensors answers.json.

A model of the job is a checkpoint file of the original layout. The host reads its shape off the file's tensors, as it
always does; the job only says which family it is, which the host knows by the family's full widths, and how wide VAE
and text encoders are. Captions are encoded. Each case samples latents, with a LoRA file or without, for conditionings
of which there is a file. `full_size` are the names and shapes of whole checkpoints, for the host to recognise alone.
"""

import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])
from host_support import in_host  # noqa: E402

in_host.start_host()
import comfy.lora  # noqa: E402
import comfy.model_detection  # noqa: E402
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
VAE = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch_mult": [1, 2, 4, 4]}
VAE |= {"num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}  # as the host has it, but for its 128 channels
SIZES = ("height", "width", "crop_h", "crop_w", "target_height", "target_width")
custom, ksampler = in_host.load_pack("nodes.custom_sampling"), in_host.load_pack("nodes.ksampler")
loader = in_host.load_pack("nodes.lora_loader")


def load_model(model: dict):
    """The checkpoint's UNet, text encoders and VAE, loaded as the host does it, in float32; what is told of them."""
    weights = comfy.utils.load_torch_file(model["checkpoint"])
    prefix = comfy.model_detection.unet_prefix_from_state_dict(weights)
    config = comfy.model_detection.detect_unet_config(weights, prefix)
    kind = getattr(comfy.supported_models, model["kind"])(config)
    kind.unet_config |= model["unet"]
    kind.set_inference_dtype(torch.float32, None)
    network = kind.get_model(weights, prefix, device="cpu")
    told = {"prediction": network.model_type.name} | compare(network, weights, prefix)
    network.load_model_weights(weights, prefix)
    texts, sizes = kind.process_clip_state_dict(weights), {f"{n}_model_config": of for n, of in model["texts"].items()}
    options = {"dtype": torch.float32, "load_device": CPU, "offload_device": CPU, **sizes}
    clip = comfy.sd.CLIP(kind.clip_target(texts), tokenizer_data=texts, parameters=0, model_options=options)
    missing, unused = clip.load_sd(texts, full_model=True)
    told |= {"texts missing": sorted(missing), "texts unused": sorted(unused)}
    vae = comfy.utils.state_dict_prefix_replace(weights, {"first_stage_model.": ""}, filter_keys=True)
    config = {"params": {"ddconfig": VAE | {"ch": model["vae_width"]}, "embed_dim": 4}}
    vae = comfy.sd.VAE(vae, config=config, device=CPU, dtype=torch.float32)
    return comfy.model_patcher.ModelPatcher(network.eval(), load_device=CPU, offload_device=CPU), clip, vae, told


def compare(network, weights: dict, prefix: str) -> dict:
    """Names that only the host's network or only the checkpoint's has, or that have other shapes."""
    own = {name: tuple(tensor.shape) for name, tensor in network.diffusion_model.state_dict().items()}
    given = {key.removeprefix(prefix): tuple(weights[key].shape) for key in weights if key.startswith(prefix)}
    return {"names": len(own), "differing": sorted(name for name, _ in own.items() ^ given.items())}


def encoded(clip, caption: str) -> dict[str, torch.Tensor]:
    """A caption's conditioning, as CLIPTextEncode makes it."""
    ((hidden, more),) = clip.encode_from_tokens_scheduled(clip.tokenize(caption))
    pooled = more.get("pooled_output")
    return {"encoder_hidden_states": hidden} | ({} if pooled is None else {"pooled": pooled})


def conditioning(given: dict) -> list:
    """The host's conditioning of what diffusers' network is told; sizes are one for all pictures."""
    more = {}
    if "pooled" in given:
        sizes = given["time_ids"]
        assert (sizes == sizes[0]).all(), "the host tells all pictures of a conditioning one size"
        more = {"pooled_output": given["pooled"], **dict(zip(SIZES, map(int, sizes[0]), strict=True))}
    return [[given["encoder_hidden_states"], more]]


def sampled(case: dict, model, cond: list, shape: list[int]) -> torch.Tensor:
    """Latents, scaled as the network knows them, of SamplerCustom with this pack's parts, or of its own KSampler."""
    latent = {"samples": torch.zeros(shape)}
    if case["route"] == "ksampler":
        settings = (case["seed"], case["steps"], 1.0, case["gamma"], cond, cond, latent, 1.0)
        samples = ksampler.KSampler.execute(model, *settings).args[0]["samples"]
    else:
        sigmas = custom.Scheduler.execute(model, case["steps"], 1.0, 50).args[0]
        sampler = custom.Sampler.execute(case["gamma"], "1").args[0]
        parts = (cond, cond, sampler, sigmas, latent)
        samples = SamplerCustom().sample(model, True, case["seed"], 1.0, *parts)[0]["samples"]
    return model.model.process_latent_in(samples)


def run_case(case: dict, bare, cond: list) -> tuple[torch.Tensor, dict]:
    """(latents, answers) of one case; of a LoRA also whether the host's own loader changes the same weights."""
    model, told = bare, {}
    if case["file"]:
        model, report = loader.LoraLoader.execute(bare, case["file"], 1.0).args
        lora = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("loras", case["file"]))
        stock = comfy.sd.load_lora_for_models(bare, None, lora, 1.0, 0.0)[0]
        told = {
            "report": report,
            "patches": len(model.patches),
            "stock": sorted(stock.patches) == sorted(model.patches),
        }
    return sampled(case, model, cond, case["shape"]), told


def recognised(shapes: dict, lora_file: str) -> dict:
    """What the host takes a checkpoint of these names and shapes for, whose network is then built without memory."""
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    prefix = comfy.model_detection.unet_prefix_from_state_dict(weights)
    probe = f"{prefix}output_blocks.11.1.transformer_blocks.0.norm1.bias"
    if probe in weights:  # its values are looked at
        weights[probe] = torch.zeros(weights[probe].shape)
    kind = comfy.model_detection.model_config_from_unet(weights, prefix)
    if kind is None:
        return {"kind": None}
    kind.set_inference_dtype(torch.float16, None)
    network = kind.get_model(weights, prefix, device="meta")
    known = comfy.lora.model_lora_keys_unet(network, {})
    modules = {key.partition(".")[0] for key in comfy.utils.load_torch_file(lora_file)}
    modules = {name for name in modules if name.startswith("lora_unet_")}
    told = {"kind": type(kind).__name__, "unmatched": sorted(modules - known.keys())}
    return told | {"matched": len({known[name] for name in modules & known.keys()})} | compare(network, weights, prefix)


def main(job_file: str, results_file: str, answers_file: str) -> None:
    job, results, answers = json.loads(Path(job_file).read_text()), {}, {}
    folder_paths.add_model_folder_path("loras", job["loras"], is_default=True)
    for name, model in job["models"].items():
        bare, clip, vae, answers[name] = load_model(model)
        for index, caption in enumerate(model["captions"]):
            results |= {f"{name}/caption {index}/{part}": of for part, of in encoded(clip, caption).items()}
        cond = conditioning(load_file(model["conditioning"]))
        for case in model["cases"]:
            results[f"{name}/noise"] = comfy.sample.prepare_noise(torch.zeros(case["shape"]), case["seed"])
            latents, answers[f"{name}/{case['name']}"] = run_case(case, bare, cond)
            results[f"{name}/{case['name']}"] = latents
            if case["pictures"]:
                latents = bare.model.process_latent_out(latents)
                results[f"{name}/{case['name']}/pictures"] = vae.decode(latents)
    for name, (shapes, lora) in job["full_size"].items():
        answers[f"{name}/full size"] = recognised(shapes, str(Path(job["loras"]) / lora))
    save_file({name: tensor.clone().contiguous() for name, tensor in results.items()}, results_file)
    Path(answers_file).write_text(json.dumps(answers))


with torch.inference_mode():  # as the host runs its nodes
    main(*sys.argv[1:])
