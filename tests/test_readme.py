"""The README's example runs as it stands and prints what the README says."""

import re
import subprocess
import sys
from pathlib import Path

from training.cli import _Options
from training.evaluate import Options
from training.recipe_words import fields

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_python_example_prints_what_it_says():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    claimed = re.search(r"# ([\d.]+), ([\d.]+)$", code, re.M)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    printed = re.findall(r"tensor\(([\d.]+)\)", done.stdout)
    assert [f"{float(value):.2f}" for value in printed] == list(claimed.groups())


def test_linked_files_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links and all((REPOSITORY / link).exists() for link in links)


def test_links_within_it_lead_to_headings():
    titles = re.findall(r"^#+ (.+)$", README, re.M)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(#([^)]+)\)", README)
    assert links and set(links) <= anchors


def test_every_option_of_the_trainer_is_one():
    words = re.findall(r"(?<![\w`-])`?(--[a-z][\w.-]*)", README[README.index("## Distil your own") :])
    known = {f"--{name}" for name in fields()} | {f"--{name}" for name in _Options.__dataclass_fields__}
    known |= {f"--{name}" for name in Options.__dataclass_fields__}
    others = {"--compare", "--help", "--gamma", "--num_processes", "--multi_gpu", "--logdir", "--device", "--epsilon"}
    for word in {word.rstrip(".") for word in words} - others:
        name = "--" + re.sub(r"(^|\.)no_", r"\1", word[2:].replace("-", "_"))
        assert name in known, word
