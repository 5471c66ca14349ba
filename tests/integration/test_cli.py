"""The `civid` command as a new user meets it: what it prints when all is well, and when something is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from civid_loader.demo.release import Release, make_release


def _civid(*arguments: str | Path, user: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "civid_loader.cli", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, user=user, timeout=120)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    return make_release(tmp_path_factory.mktemp("release"), render=False)


def _refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_help_teaches() -> None:
    assert "civid demo" in _civid("--help").stdout
    text = _civid("build", "--help").stdout
    for word in ("--annotations", "--videos", "--field-map", "--max-rejected", "Example:", "lvd2m"):
        assert word in text


def test_build_takes_several_annotation_files_after_one_option(releases: dict[str, Release], tmp_path: Path) -> None:
    folder = releases["lvd2m"].annotations[0]
    files = sorted(folder.glob("*.csv")) if folder.is_dir() else [*releases["lvd2m"].annotations]
    assert len(files) > 2
    out = tmp_path / "out"
    result = _civid("build", "lvd2m", "--annotations", *files, "--output", out, "--max-rejected", "0.5")
    assert result.returncode == 0, result.stderr
    for word in ("rows", "captions", "Terms of the upstream data", "load_dataset"):
        assert word in result.stdout
    assert (out / "manifest.json").is_file()
    again = _civid("build", "lvd2m", "--annotations", *files, "--output", out, "--max-rejected", "0.5")
    assert again.returncode == 0


def test_inspect_prints_tables_and_json(releases: dict[str, Release]) -> None:
    path = next(Path(releases["lvd2m"].annotations[0]).parent.rglob("ytb*.csv"))
    assert "Dataset: lvd2m" in _civid("inspect", path).stdout
    found = json.loads(_civid("inspect", path, "--json").stdout)
    assert found["datasets"] == ["lvd2m"]
    assert {column["name"] for column in found["columns"]} >= {"key", "total score"}


def test_wrong_path_shows_what_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / "ytb_600k_720p.csv").write_text("key\n")
    result = _civid("build", "lvd2m", "--annotations", tmp_path / "ytb.csv", "--output", tmp_path / "out")
    _refused(result, "ytb.csv: no such file", "ytb_600k_720p.csv")
    assert not (tmp_path / "out").exists()


def test_wrong_dataset_name_is_answered_with_the_right_one(tmp_path: Path) -> None:
    _refused(_civid("build", "LVD-2M", "-a", tmp_path, "-o", tmp_path / "out"), "civid, lvd2m, miradata", "'lvd2m'?")


def test_table_of_another_dataset_is_refused_with_its_name(releases: dict[str, Release], tmp_path: Path) -> None:
    path = next(Path(releases["miradata"].annotations[0]).parent.rglob("miradata_v1*.csv"))
    result = _civid("build", "lvd2m", "--annotations", path, "--output", tmp_path / "out")
    _refused(result, "key, refined_caption", "`civid build miradata`")


def test_cut_off_json_says_so(tmp_path: Path) -> None:
    path = tmp_path / "CI-VID_train_samples.jsonl"
    path.write_text('{"single_captions:": [{"video_content": "A red ball ro')
    _refused(_civid("build", "civid", "-a", path, "-o", tmp_path / "out"), "cut off", "CI-VID_train_samples.jsonl")


@pytest.mark.parametrize(("name", "file"), [("civid", "a.jsonl"), ("lvd2m", "a.csv"), ("miradata", "a.csv")])
def test_empty_file_is_named(name: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(b"")
    _refused(_civid("build", name, "-a", tmp_path / file, "-o", tmp_path / "out"), file, "empty")


def test_folder_without_permission_is_named(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user may read every folder")
    _refused(_civid("build", "civid", "-a", locked, "-o", tmp_path / "out"), "locked", "permission")


def test_output_with_other_files_is_left_alone(releases: dict[str, Release], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    result = _civid("build", "civid", "-a", *releases["civid"].annotations, "-o", tmp_path)
    _refused(result, "not empty")
    assert (tmp_path / "thesis.txt").read_text() == "mine"
