"""What a LoRA file says of itself: modelspec, kohya's keys, and the settings it was distilled with."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Literal, get_args

TcfForm = Literal["tcf1", "tcf2", "tcf_s_plus"]
_PREDICTIONS = {"v_prediction": "v"}  # modelspec's word, where it is not diffusers'


def lora_metadata(
    *,
    title: str,
    architecture: str,
    base_model: str,
    prediction_type: str,
    resolution: int,
    rank: int,
    alpha: float,
    form: TcfForm,
    tcf2_form: Literal["epsilon", "data"] | None = None,
    steps: int | str,
    gamma: float,
    cfg: float,
    training_span: str,
    recipe_hash: str,
    implementation: str = "diffusers",
    date: str | None = None,
) -> dict[str, str]:
    """A LoRA file's metadata: modelspec 1.0.1, kohya's `ss_*`, and `tcd.*`, which the TCD LoRA Loader shows.

    Args:
        architecture: modelspec's, such as "stable-diffusion-v1/lora".
        base_model: kohya's `ss_base_model_version`, such as "sd_v1".
        prediction_type: the teacher's: "epsilon", "v_prediction", "sample" or "flow".
        resolution: side of the training pictures, pixels.
        form, tcf2_form: what was distilled; a TCF(2) file says which form of it, others do not.
        steps, gamma, cfg: sampler settings to recommend.
        training_span: in words, such as "k=50, N=1000, s in [0, t_n]".
        date: ISO 8601; None is now, in UTC.

    Raises:
        ValueError: an unknown form, or TCF(2) without its form.
    """
    if form not in get_args(TcfForm):
        raise ValueError(f"form must be tcf1, tcf2 or tcf_s_plus, got {form!r}")
    if form == "tcf2" and tcf2_form not in ("epsilon", "data"):
        raise ValueError(f'a TCF(2) LoRA needs its tcf2_form, "epsilon" or "data"; got {tcf2_form!r}')
    of_form = {"tcd.form": form} | ({"tcd.tcf2_form": tcf2_form} if form == "tcf2" else {})
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture,
        "modelspec.implementation": implementation,
        "modelspec.title": title,
        "modelspec.date": date or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "modelspec.prediction_type": _PREDICTIONS.get(prediction_type, prediction_type),
        "modelspec.resolution": f"{resolution}x{resolution}",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_base_model_version": base_model,
        **of_form,
        "tcd.steps": str(steps),
        "tcd.gamma": str(gamma),
        "tcd.cfg": str(cfg),
        "tcd.training_span": training_span,
        "tcd.recipe_hash": recipe_hash,
    }
