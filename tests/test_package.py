"""The archive that the registry would get: a real ComfyUI takes it, and pip builds the trainer from it.

It is made as comfy-cli makes it (`zip_files` in its file_utils.py): what git tracks, less the patterns of .comfyignore;
outside a git checkout every file, less those patterns.
"""

import json
import re
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from host_support import tiny_checkpoints, workflows
from host_support.client import Client
from host_support.host import HostNotFoundError, find_host
from host_support.server import make_base_directory, start_server, stop_server
from pathspec import PathSpec
from test_locales import compare_with_schema

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
MOST_BYTES = 3_500_000
NEEDED = ("__init__.py", "pyproject.toml", "LICENSE", "README.md", "nodes/extension.py", "training/recipes/sdxl.toml")
LEFT_OUT = ("tests", "benchmarks", ".ci", ".github")


def tracked_files() -> list[str]:
    """What git tracks; where there is no git, every file but git's own."""
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        return [name for name in listed.stdout.splitlines() if (REPOSITORY / name).exists()]
    files = (file.relative_to(REPOSITORY) for file in REPOSITORY.rglob("*") if file.is_file())
    return [file.as_posix() for file in files if file.parts[0] != ".git"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    patterns = (REPOSITORY / ".comfyignore").read_text(encoding="utf-8").splitlines()
    ignored = PathSpec.from_lines("gitignore", patterns)
    made = tmp_path_factory.mktemp("archive") / "node.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in tracked_files():
            if not ignored.match_file(name):
                packed.write(REPOSITORY / name, name)
    return made


@pytest.fixture(scope="module")
def pack(archive: Path, tmp_path_factory) -> Path:
    """The archive, unpacked as an installation would."""
    folder = tmp_path_factory.mktemp("installed") / "tcd-toolkit"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def server(pack: Path, tmp_path_factory):
    """A real host over a folder of its own, with the unpacked archive as its only pack besides the tests' nodes."""
    try:
        host = find_host()
    except HostNotFoundError as missing:
        pytest.skip(str(missing))
    base = make_base_directory(tmp_path_factory.mktemp("comfyui"), pack)
    tiny_checkpoints.write("sd15", base / "models" / "checkpoints")
    client, process = start_server(host, base)
    yield client
    stop_server(process)


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as packed:
        return packed.namelist()


def get(server: Client, path: str) -> bytes:
    with urllib.request.urlopen(server.url + path, timeout=30) as answer:
        return answer.read()


def get_json(server: Client, path: str):
    return json.loads(get(server, path))


def own_nodes(server: Client) -> dict[str, dict]:
    return {name: node for name, node in server.object_info().items() if name.startswith("TCDToolkit_")}


def test_archive_holds_the_pack_and_the_trainer_and_no_development_files(archive):
    listed = names(archive)
    assert set(NEEDED) <= set(listed)
    assert not [name for name in listed if name.split("/")[0] in LEFT_OUT]
    assert not [name for name in listed if name.startswith("docs/") and name.endswith(".py")]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", (REPOSITORY / "README.md").read_text(encoding="utf-8"))]
    there = {*listed, *(parent.as_posix() for name in listed for parent in PurePosixPath(name).parents)}
    assert {link for link in links if not link.startswith("http")} <= there
    folders = ("nodes", "tcd_core", "training", "web", "locales", "example_workflows")
    expected = {name for name in tracked_files() if name.split("/")[0] in folders}
    assert {name for name in listed if name.split("/")[0] in folders} == expected


def test_archive_is_small(archive):
    assert archive.stat().st_size < MOST_BYTES, f"{archive.stat().st_size:,} bytes"


def test_names_need_no_quoting(archive):
    """git, and so comfy-cli, puts names in quotes that are not plain ASCII, and then does not find them."""
    assert [name for name in tracked_files() if not re.fullmatch(r"[\w./+-]+", name, re.ASCII)] == []


def test_all_nodes_come_up_without_a_complaint(server):
    snapshot = json.loads((REPOSITORY / "tests/host/snapshots/nodes.json").read_text(encoding="utf-8"))
    assert set(own_nodes(server)) == set(snapshot)
    log = server.log()
    assert "Traceback" not in log
    about_us = [line for line in log.splitlines() if "tcd" in line.lower()]
    assert about_us and [line for line in about_us if re.search(r"(?i)error|warn|fail", line)] == []


def test_web_files_are_served_once_each(server, pack):
    listed = [path for path in get_json(server, "/extensions") if "/tcd-toolkit/" in path]
    scripts = [file.relative_to(pack / "web").as_posix() for file in (pack / "web").rglob("*.js")]
    assert sorted(listed) == sorted(f"/extensions/tcd-toolkit/{name}" for name in scripts)
    for file in (pack / "web").rglob("*.*"):
        assert get(server, f"/extensions/tcd-toolkit/{file.relative_to(pack / 'web').as_posix()}") == file.read_bytes()


def test_pictures_of_the_help_pages_are_where_the_front_end_looks_for_them(server):
    """Both languages' pages resolve a relative address against docs/, wherever the page itself lies."""
    for name in own_nodes(server):
        for page in (f"{name}.md", f"{name}/zh.md"):
            text = get(server, f"/extensions/tcd-toolkit/docs/{page}").decode()
            pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
            assert pictures, page
            for picture in pictures:
                assert get(server, f"/extensions/tcd-toolkit/docs/{picture}")[:8] == b"\x89PNG\r\n\x1a\n", picture


def test_translations_are_served(server, pack):
    served = get_json(server, "/i18n")
    for language in ("en", "zh"):
        files = {file.stem: json.loads(file.read_bytes()) for file in (pack / "locales" / language).glob("*.json")}
        assert files.pop("main").items() <= served[language].items()
        assert files.items() <= served[language].items()


def test_english_texts_are_the_schema_s_own(server):
    """After a change of wording: UPDATE_SNAPSHOTS=1 pytest tests/test_package.py, then translate what changed."""
    compare_with_schema(own_nodes(server))


def test_example_workflows_are_served(server, pack):
    listed = get_json(server, "/workflow_templates")["tcd-toolkit"]
    files = {file.stem: file for file in (pack / "example_workflows").glob("*.json")}
    assert set(listed) == set(files) and files
    for file in (pack / "example_workflows").iterdir():
        assert get(server, f"/api/workflow_templates/tcd-toolkit/{file.name}") == file.read_bytes()


def test_a_picture_is_made(server):
    (picture,) = server.run(workflows.text_to_image("sd15", "ksampler_tcd"), timeout=120).images
    assert picture.std() > 1


def test_trainer_starts_in_the_pack_s_folder(pack):
    command = [sys.executable, "-m", "training.distill", "--help"]
    done = subprocess.run(command, cwd=pack, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "--training.steps" in done.stdout, done.stderr


def test_wheel_holds_every_file_of_the_library_and_the_trainer(pack, tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), str(pack)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("pip cannot get setuptools, which builds the wheel: connect to a package index")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.split("-")[1] == PROJECT["project"]["version"]
    expected = [file for part in ("tcd_core", "training") for file in (pack / part).rglob("*") if file.is_file()]
    expected = {file.relative_to(pack).as_posix() for file in expected if "__pycache__" not in file.parts}
    assert expected <= set(names(wheel))
    assert not [name for name in names(wheel) if name.split("/")[0] in ("nodes", "tests", "web")]


def test_version_is_said_in_one_place():
    version = PROJECT["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    headings = re.findall(r"^## \[?([^\]\s]+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert headings[0] in ("Unreleased", version) and version in headings
    assert "dynamic" not in PROJECT["project"]
    sources = [name for name in tracked_files() if name.endswith(".py") and not name.startswith("tests/")]
    said = [name for name in sources if f'"{version}"' in (REPOSITORY / name).read_text(encoding="utf-8")]
    assert said == []


def test_registry_s_rules_for_the_description():
    about, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    assert re.fullmatch(r"[a-z](?:[._-]?[a-z0-9])*", about["name"]) and "comfyui" not in about["name"]
    assert len(about["description"]) <= 1000 and about["urls"]["Repository"].startswith("https://github.com/")
    assert comfy["PublisherId"] and comfy["DisplayName"]
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert "web" not in comfy  # it would serve every file a second time
    assert "includes" not in comfy  # nothing that git does not track is needed
    assert "Operating System :: OS Independent" in about["classifiers"]


@pytest.mark.parametrize(("key", "shape"), [("Icon", (400, 400)), ("Banner", (1260, 540))])
def test_icon_and_banner_have_the_registry_s_shapes(key, shape):
    """Icon: square, at most 400 pixels; banner: 21:9. Their addresses are files of this repository."""
    from PIL import Image

    address = PROJECT["tool"]["comfy"][key]
    root = PROJECT["project"]["urls"]["Repository"].replace("https://github.com/", "https://raw.githubusercontent.com/")
    assert address.startswith(f"{root}/main/")
    with Image.open(REPOSITORY / address.removeprefix(f"{root}/main/")) as picture:
        assert picture.size == shape and picture.format == "PNG"


def test_code_passes_the_registry_s_security_rules(pack):
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "S102,S307,E702", str(pack)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
