"""Runs the LoRA loader node inside the host; arguments: job.json results.json.

The job names checkpoints, the folder of LoRA files, and cases. A case's file goes through the node onto its family's
model; the weights are then patched by the host and compared with the expected changes, which come from a file.
"""

import json
import logging
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
from host_support import in_host  # noqa: E402

in_host.start_host()
import comfy.sd  # noqa: E402
import folder_paths  # noqa: E402
import target_time_checks  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402


class Complaints(logging.Handler):
    """What the host logs as a warning or worse: it goes on after a patch that failed."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def load_model(checkpoint: str):
    return comfy.sd.load_checkpoint_guess_config(
        checkpoint, output_vae=False, output_clip=False, model_options={"dtype": torch.float32}
    )[0]


def state_of(model) -> dict:
    """Everything a refusal must leave as it was, compared by repr."""
    options = model.model_options
    return {"patches": sorted(model.patches), "options": repr(options), "uuid": str(model.patches_uuid)}


def run_case(case: dict, model, weights: dict, loader) -> dict:
    """The node's answer: report and difference from the expected weights, or its error."""
    before = state_of(model)
    try:
        output = loader.LoraLoader.execute(model, case["file"], case.get("strength", 1.0))
    except Exception as error:
        untouched = state_of(model) == before and unchanged(model, weights)
        return {"error": str(error), "type": type(error).__name__, "untouched": untouched}
    patched, text = output.args
    answer = {"text": text, "untouched": state_of(model) == before, "same": patched is model}
    answer["emb_patches"] = len(patched.model_options["transformer_options"].get("patches", {}).get("emb_patch", []))
    patched.patch_model(device_to=torch.device("cpu"))
    try:
        answer |= compare(model, weights, case)
    finally:
        patched.unpatch_model(device_to=torch.device("cpu"))
    return answer | {"restored": unchanged(model, weights)}


def compare(model, weights: dict, case: dict) -> dict:
    """Largest distance of the weights' change from strength · expected, relative to the largest change."""
    expected = load_file(case["expected"]) if case.get("expected") else {}
    keys = case.get("keys", sorted(expected))
    changed, worst = set(), 0.0
    for key, weight in model.model.state_dict().items():
        if not torch.equal(weight, weights[key]):
            changed.add(key)
        if key in keys and expected:
            wanted = expected[key] * case.get("strength", 1.0)
            worst = max(worst, float((weight - weights[key] - wanted).abs().max() / wanted.abs().max()))
    return {"changed": sorted(changed), "as_expected": sorted(changed) == sorted(keys), "distance": worst}


def unchanged(model, weights: dict) -> bool:
    return all(torch.equal(weight, weights[key]) for key, weight in model.model.state_dict().items())


def main(job_file: str, results_file: str) -> None:
    job, results = json.loads(Path(job_file).read_text()), {}
    folder_paths.add_model_folder_path("loras", job["loras"], is_default=True)
    loader = in_host.load_pack("nodes.lora_loader")
    complaints = Complaints()
    for family, checkpoint in job["checkpoints"].items():
        model = load_model(checkpoint)
        weights = {key: value.clone() for key, value in model.model.state_dict().items()}
        logging.getLogger().addHandler(complaints)
        for case in job["cases"]:
            if case["family"] == family:
                complaints.messages.clear()
                answer = run_case(case, model, weights, loader)
                results[case["name"]] = answer | {"complaints": list(complaints.messages)}
        logging.getLogger().removeHandler(complaints)
        if family in job.get("target_time", {}):
            results["target_time"] = target_time_checks.run(model, loader, **job["target_time"][family])
    Path(results_file).write_text(json.dumps(results))


main(*sys.argv[1:])
