"""What the LoRA loader tells its user about a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_RECOMMENDED = {"tcd.steps": "steps", "tcd.gamma": "gamma", "tcd.cfg": "cfg"}
_FORMS = {"tcf1": "TCF(1)", "tcf2": "TCF(2)", "tcf_s_plus": "TCF(S+)"}
_TCF2_FORMS = ("epsilon", "data")
_BASE = ("ss_base_model_version", "modelspec.architecture")
_SHOWN = 10
_LONGEST = 80
_HASH_SHOWN = 12


@dataclass(frozen=True)
class Report:
    """What a file holds and what of it the model has.

    `modules` counts the model's modules in the file, `matched` of them exist in the model, `unmatched` names the
    others; text encoders' modules are counted apart, for the loader patches the model only.
    """

    format: str
    modules: int
    matched: int
    unmatched: tuple[str, ...] = ()
    text_encoder: int = 0
    ranks: tuple[int, ...] = ()
    alpha_told: bool = True
    target_embedding: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def recommended(self) -> dict[str, str]:
        """Sampler settings the file's maker recommends: "steps", "gamma", "cfg", those that are there, as text."""
        return {name: self.metadata[key] for key, name in _RECOMMENDED.items() if key in self.metadata}

    @property
    def tcf2_form(self) -> str | None:
        """The form of TCF(2) that the file was distilled with, "epsilon" or "data"; None for any other file."""
        form = self.metadata.get("tcd.tcf2_form")
        return form if self.metadata.get("tcd.form") == "tcf2" and form in _TCF2_FORMS else None

    @property
    def distillation(self) -> list[str]:
        """Lines on how the file says it was distilled: form, training span, start of the recipe's hash."""
        form, lines = self.metadata.get("tcd.form"), []
        if form:
            advice = ": sample it with order 2" if form == "tcf2" else ""
            which = f", which then takes its {self.tcf2_form} form" if self.tcf2_form else ""
            lines.append(f"distilled with {_FORMS.get(form, _short(form))}{advice}{which}")
        if span := self.metadata.get("tcd.training_span"):
            lines.append(f"trained over {_short(span)}")
        if recipe := self.metadata.get("tcd.recipe_hash"):
            lines.append(f"recipe {recipe[:_HASH_SHOWN]}")
        return lines

    @property
    def base_model(self) -> dict[str, str]:
        return {key: self.metadata[key] for key in _BASE if key in self.metadata}

    def text(self, file_name: str, strength: float) -> str:
        """The report as lines for people."""
        rank = f", rank {', '.join(map(str, self.ranks))}" if self.ranks else ""
        lines = [
            f"{file_name}: {self.format}{rank}",
            f"matched {self.matched} of {self.modules} modules, strength {strength:g}"
            + (" (nothing applied)" if strength == 0 else ""),
        ]
        if self.unmatched:
            more = len(self.unmatched) - _SHOWN
            names = ", ".join(self.unmatched[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
            lines.append(f"not in this model ({len(self.unmatched)}): {names}")
        if self.text_encoder:
            lines.append(f"for text encoders ({self.text_encoder} modules): not applied, this node patches the model")
        if self.ranks and not self.alpha_told:
            lines.append("the file tells no alpha: applied as alpha = rank, which its maker's settings may contradict")
        if self.target_embedding:
            lines.append("TCF(S+): the network is told each step's target time")
        lines += self.distillation
        lines += [f"{key}: {_short(value)}" for key, value in self.base_model.items()]
        settings = ", ".join(f"{name} {_short(value)}" for name, value in self.recommended.items())
        lines.append(f"recommended by the file: {settings}" if settings else "the file recommends no settings")
        return "\n".join(lines)


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"
