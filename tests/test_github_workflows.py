"""The public test and publish workflows: valid, and saying what the README and pyproject.toml say."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def workflow(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))


def triggers(name: str) -> dict:
    return workflow(name)[True]  # YAML 1.1 reads the key `on` as true


def commands(name: str, job: str) -> str:
    return "\n".join(step.get("run", "") for step in workflow(name)["jobs"][job]["steps"])


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflow_has_what_a_workflow_needs(file):
    said = workflow(file.stem)
    assert triggers(file.stem) and said["permissions"] == {"contents": "read"}
    for job in said["jobs"].values():
        assert "uses" in job or all("run" in step or "uses" in step for step in job["steps"])
        needed = job.get("needs", [])
        assert set([needed] if isinstance(needed, str) else needed) <= set(said["jobs"])
        for step in job.get("steps", []):
            if "run" in step:
                subprocess.run(["bash", "-n", "-c", step["run"].replace("${{", "{{")], check=True)


def test_actionlint_finds_nothing():
    actionlint = shutil.which("actionlint")
    if actionlint is None:
        pytest.skip("no actionlint on the PATH")
    done = subprocess.run([actionlint, *map(str, WORKFLOWS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_tests_run_the_readme_s_command_on_every_host_it_claims():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^(pip install -e \"\.\[test\]\" && pytest -n 2)$", readme, re.M)
    assert command in commands("test", "test")
    hosts = {each["comfyui"] for each in workflow("test")["jobs"]["test"]["strategy"]["matrix"]["include"]}
    claimed = re.search(r"tested on ([\d., and]+)\)", readme)[1]
    assert {f"v{version}" for version in re.findall(r"\d+\.\d+\.\d+", claimed)} <= hosts and "master" in hosts
    assert PROJECT["tool"]["comfy"]["requires-comfyui"].replace(">=", "v") in hosts


def test_tests_cover_the_oldest_python_that_is_supported():
    pythons = {each["python"] for each in workflow("test")["jobs"]["test"]["strategy"]["matrix"]["include"]}
    assert PROJECT["project"]["requires-python"].removeprefix(">=") in pythons


def test_publishing_waits_for_a_new_version_and_for_the_tests():
    said = workflow("publish")
    assert triggers("publish")["push"] == {"branches": ["main"], "paths": ["pyproject.toml"]}
    jobs = said["jobs"]
    assert jobs["publish"]["needs"] == "test" and jobs["test"]["needs"] == "version"
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml" and "workflow_call" in triggers("test")
    (publish,) = [step for step in jobs["publish"]["steps"] if "publish-node-action" in step["uses"]]
    assert publish["with"]["personal_access_token"] == "${{ secrets.REGISTRY_ACCESS_TOKEN }}"


@pytest.mark.parametrize(("before", "is_new"), [('version = "0.0.9"', True), (None, False), ("no version", True)])
def test_version_is_compared_with_the_one_before_the_push(tmp_path, before, is_new):
    """The step itself, in a repository of two commits; `None` leaves the version as it is and changes another line."""
    script = commands("publish", "version")
    now = f'version = "{PROJECT["project"]["version"]}"'

    def git(*words):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--quiet")
    for text in (before or now, now + "\n# a comment"):
        (tmp_path / "pyproject.toml").write_text(f"[project]\n{text}\n")
        git("add", ".")
        git("commit", "--quiet", "--message", "x")
    output = tmp_path / "output"
    environment = {"BEFORE": "HEAD^", "GITHUB_OUTPUT": str(output), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (output.exists() and "is-new=true" in output.read_text()) == is_new
