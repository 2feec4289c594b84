"""The LoRA loader node: every format, counted, refused as a whole where it does not belong to the model."""

import itertools
from collections.abc import Callable, Mapping

import comfy.lora
import comfy.lora_convert
import folder_paths
from comfy_api.latest import io
from torch import Tensor

from .gamma import CATEGORY
from .host import schedule_for
from .lora_file import fingerprint
from .lora_format import convert, read_lora_file
from .lora_shapes import Shape
from .sampling import FORM_KEY
from .target_patch import add_target_patch


class LoraLoader(io.ComfyNode):
    """Patch a model with a LoRA file and say what was matched."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TCDToolkit_LoraLoader",
            display_name="TCD LoRA Loader",
            category=CATEGORY,
            description=(
                "Loads a LoRA of any format into the model (today's diffusers and PEFT files included) and reports "
                "what was matched. Refuses a file that was made for another model. TCF(S+) LoRAs work here too."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model the LoRA is applied to."),
                io.Combo.Input(
                    "lora_name",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A .safetensors file in the loras folder, for this model's family.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-20.0,
                    max=20.0,
                    step=0.01,
                    tooltip="How strongly the LoRA changes the model: 1 as trained, 0 not at all.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model with the LoRA."),
                io.String.Output(
                    display_name="report",
                    tooltip="What was matched, how the file was distilled, and the steps, gamma and cfg that it "
                    "recommends.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str | None = None, **_) -> str:
        if not lora_name:  # comes from another node, whose value is not known yet
            return ""
        return fingerprint(folder_paths.get_full_path("loras", lora_name) or lora_name)

    @classmethod
    def execute(cls, model, lora_name: str, strength: float) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        tensors, metadata = read_lora_file(path)
        try:
            patched, report = apply_lora(model, tensors, metadata, strength)
        except ValueError as error:
            raise ValueError(f"{lora_name}: {error}") from error
        return io.NodeOutput(patched, report.text(lora_name, strength))


def apply_lora(model, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], strength: float):
    """A clone of the ModelPatcher with the LoRA in it (the model itself at strength 0), and the Report.

    Raises:
        ValueError: the file does not belong to this model; the model is as it was.
        RuntimeError: the host did not take everything that was counted as matched.
    """
    key_map = comfy.lora.model_lora_keys_unet(model.model, {})
    tensors = comfy.lora_convert.convert_lora(dict(tensors))
    conversion = convert(tensors, metadata, key_map, weight_shapes(model.model))
    patched = model.clone()
    add_target_patch(patched, tensors, strength, time_of_sigma(model.model))
    patches = comfy.lora.load_lora(dict(conversion.tensors), key_map, log_missing=False)
    lost = conversion.targets - set(patched.add_patches(patches, strength))
    if lost:
        names = ", ".join(sorted(map(str, lost))[:3])
        raise RuntimeError(
            f"ComfyUI took {len(conversion.targets) - len(lost)} of {len(conversion.targets)} patches, not those for "
            f"{names}: this version of TCD Toolkit and this ComfyUI do not fit together; please report it"
        )
    if conversion.report.tcf2_form:
        patched.model_options.setdefault("transformer_options", {})[FORM_KEY] = conversion.report.tcf2_form
    return (model if strength == 0 else patched), conversion.report


def weight_shapes(network) -> dict[str, Shape | None]:
    """The shape of each of the network's weights; None for packed (quantised) ones that do not tell it.

    Read off the parameters: a state dict of quantised weights can be made of stand-ins.
    """
    return {
        name: tuple(weight.shape) if weight.is_floating_point() or hasattr(weight, "tensor_shape") else None
        for name, weight in itertools.chain(network.named_parameters(), network.named_buffers())
    }


def time_of_sigma(network) -> Callable[[float], float]:
    """The time, in the schedule's units, of a sigma on the schedule that the network is patched with when asked.

    A node further down may replace `model_sampling`: the host puts it on the network itself while it samples.
    """

    seen = schedule = None

    def time_of(sigma: float) -> float:
        nonlocal seen, schedule
        if seen is not network.model_sampling:
            seen, schedule = network.model_sampling, schedule_for(network.model_sampling)
        return schedule.time_at_sigma(sigma)

    return time_of
