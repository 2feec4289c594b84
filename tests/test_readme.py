"""The README's example runs as it stands and prints what the README says."""

import re
import subprocess
import sys
from pathlib import Path

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
