"""What can stand in a report: how a metric and a method are called and read, and those that this project knows.

`Results` takes any metrics and methods; nothing else in the report's code knows one by name. Those here are to choose
from: ``Results(…, metrics=known("fid", "kid"), methods={"tcd:mine": Method("mine", "student", 0.2, "tcd")})``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

LCM_GAMMA = 1.0  # multistep consistency sampling, as LCM is sampled


@dataclass(frozen=True)
class Metric:
    """How one kind of figure is called, written and judged.

    Attributes:
        title: as in a heading.
        better: which way; "real": the nearer to the real pictures' own figure.
        form: how its figures are written, see `claims.FORMATS`.
        distance: of a set of pictures from real ones, at best that of other real pictures (the floor). Otherwise a mean
            over single pictures, which needs no real ones.
        paper: the metric of the paper's Table 1 that it is or stands in for; None where there is none.
        paper_note: what is to be said of the paper's figures beside these.
        about: a sentence for readers who do not know it.
        source: library, its version and the weights that the figures were made with; two reports' figures are compared
            only where these agree.
    """

    title: str
    better: Literal["lower", "higher", "real"]
    form: Literal["distance", "two", "three", "four", "five"] = "three"
    distance: bool = False
    paper: str | None = None
    paper_note: str = ""
    about: str = ""
    source: str = ""


@dataclass(frozen=True)
class Method:
    """Whose pictures: a numerical solver on the teacher (or base model), or a student's weights.

    Attributes:
        title: as in a table, without its gamma; a LoRA's name, say.
        gamma: at which a student stands in the tables of methods; a solver has none.
        role: the row of the paper's Table 1 that it corresponds to: "euler", "ddim", "dpmpp_2s", "lcm", "tcd". The
            claims are about the first method of role "tcd" against the first of role "lcm". None: no such row.
        group: the table (see `Group`) in which it stands instead of the tables of methods.
    """

    title: str
    kind: Literal["solver", "student"]
    gamma: float | None = None
    role: str | None = None
    group: str | None = None

    def __post_init__(self):
        if (self.kind == "solver") != (self.gamma is None):
            raise ValueError(f"a student has a gamma and a solver has none, got {self.kind} with gamma {self.gamma}")


@dataclass(frozen=True)
class Group:
    """A table of its own, of students that differ in one thing from the one the report is about.

    Attributes:
        own: the method of this group under whose title that student's figures stand in it; "" where it has no row.
    """

    title: str
    about: str = ""
    own: str = ""


_SDXL = "The paper's are of SDXL on COCO-2017's 5,000 captions"
_SHAPE = "compare how the rows lie to each other, not the sizes."

METRICS = {
    "fd": Metric(
        "Fréchet distance in features",
        "lower",
        "distance",
        distance=True,
        paper="fid",
        paper_note=f"The paper's are of SDXL on COCO in other features: {_SHAPE}",
    ),
    "fd_pixels": Metric("Fréchet distance in pixels", "lower", "distance", distance=True),
    "accuracy": Metric(
        "Class accuracy",
        "higher",
        about="How often a classifier, trained on real pictures, sees the class that was asked for.",
    ),
    "complexity": Metric(
        "Image complexity",
        "real",
        paper="complexity",
        paper_note="The paper's is a network's (IC9600), this is the mean difference of neighbouring pixels: " + _SHAPE,
        about="Real pictures' own is the mark. The paper gives none, and takes more for better.",
    ),
    "attributes": Metric(
        "Attributes as asked",
        "higher",
        paper="image_reward",
        paper_note="It stands in for the paper's ImageReward, in another unit, on other pictures: " + _SHAPE,
        about="The share of attributes that a detector, trained on real pictures, finds as the caption asks.",
    ),
    "fid": Metric(
        "FID",
        "lower",
        "two",
        distance=True,
        paper="fid",
        paper_note=f"{_SDXL}, against its validation pictures; other pictures or another number of them move FID.",
        about="Fréchet distance of generated from real pictures in the features of an Inception network.",
    ),
    "kid": Metric(
        "KID",
        "lower",
        "five",
        distance=True,
        about="Squared maximum mean discrepancy from real pictures in the features of FID; it is unbiased, so that a "
        "small set can come out below 0.",
    ),
    "clip_score": Metric(
        "CLIP score", "higher", "two", about="100 × the cosine between a picture and its prompt, as CLIP sees them."
    ),
    "image_reward": Metric(
        "ImageReward",
        "higher",
        "two",
        paper="image_reward",
        paper_note=f"{_SDXL}; 100 × the model's score.",
        about="100 × a score that was trained on people's choices between pictures of one prompt.",
    ),
    "pick_score": Metric(
        "PickScore",
        "higher",
        "two",
        paper="pick_score",
        paper_note=f"{_SDXL}.",
        about="A score that was trained on the choices of a picture service's users.",
    ),
    "hps": Metric(
        "HPS v2", "higher", "two", about="100 × a score that was trained on people's choices between pictures."
    ),
    "aesthetic": Metric(
        "Aesthetic score", "higher", "two", about="What people would give a picture, 1 … 10, whatever it shows."
    ),
    "diversity": Metric(
        "Diversity", "higher", "three", about="LPIPS between pictures of one prompt from different seeds, its mean."
    ),
}
DIGITS = ("fd", "fd_pixels", "accuracy", "complexity")
SHAPES = ("fd", "attributes", "complexity")

SOLVERS = {
    "euler": Method("Euler", "solver", role="euler"),
    "ddim": Method("DDIM", "solver", role="ddim"),
    "dpmpp_2s": Method("DPM++(2S)", "solver", role="dpmpp_2s"),
}
FORMS = Group(
    "Forms of the trajectory consistency function",
    "Columns are network evaluations, of which TCF(2) takes two a step. Students had the same optimiser steps and "
    "batches, twice the work for TCF(2); the end times of TCF(2) and TCF(S+) are drawn.",
)
FORM_TITLES = {"tcf1": "TCF(1)", "tcf2": "TCF(2)", "tcf_s_plus": "TCF(S+)"}


def known(*names: str, **sources: str) -> dict[str, Metric]:
    """Metrics of this file by their names; ``fid="clean-fid 0.1.35, …"`` says what their figures are made with."""
    return {name: replace(METRICS[name], source=sources.get(name, "")) for name in names}


def distilled_methods(gamma: float) -> dict[str, Method]:
    """What every distillation is measured by: solvers on the teacher, LCM, TCD."""
    return SOLVERS | {
        "lcm": Method("LCM", "student", LCM_GAMMA, "lcm"),
        "tcd": Method("TCD", "student", gamma, "tcd"),
    }


def distilled_forms(gamma: float) -> dict[str, Method]:
    """Students of each form."""
    return {form: Method(title, "student", gamma, group="forms") for form, title in FORM_TITLES.items()}


def distilled_groups(form: str = "tcf1") -> dict[str, Group]:
    """The table of forms; ``form``: of the run's own TCD student."""
    return {"forms": replace(FORMS, own=form)}
