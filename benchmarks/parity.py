"""The README's parity table: the nodes inside a real ComfyUI against diffusers' TCDScheduler.

    python benchmarks/parity.py

Needs a ComfyUI (COMFYUI_PATH, else ~/comfy/ComfyUI). Prints the worst relative error of the final latent, over both
predictions, all gammas and all strengths, for each number of steps.
"""

import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from host_support import reference  # noqa: E402
from host_support.host import find_host  # noqa: E402


def main() -> None:
    cases, noises = reference.make_cases(), reference.make_noises()
    with tempfile.TemporaryDirectory() as folder:
        results = reference.run_host(find_host(), cases, noises, Path(folder))
    errors: dict[tuple, list[float]] = {}
    for case in cases:
        row = "explicit times" if "times" in case else f"{case['steps']} step" + "s" * (case["steps"] > 1)
        for float64_table in (False, True):
            error = reference.relative_error(
                results[case["name"]], reference.run_reference(case, noises, float64_table)
            )
            errors.setdefault((row, case["prediction"], float64_table), []).append(error)
    print("| | ε, as it is | ε, float64 table | v, as it is | v, float64 table |\n| --- | --- | --- | --- | --- |")
    for row in dict.fromkeys(key[0] for key in errors):
        columns = [(p, table) for p in reference.PREDICTIONS for table in (False, True)]
        print(f"| {row} | " + " | ".join(f"{max(errors[(row, *column)]):.1e}" for column in columns) + " |")


if __name__ == "__main__":
    main()
