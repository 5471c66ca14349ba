"""The recipes of two papers on the demo data, with tiny random models through the real loading code; then a filter."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from civid_loader.cli import app
from civid_loader.demo.run import run_demo
from civid_loader.filtering import filter_dataset
from civid_loader.hub.loading import load
from civid_loader.processing import recipe
from civid_loader.storage import read_manifest, read_table
from support import tiny_models
from support.stages_motion import random_raft

SMALL_FLOW = {"backend": "raft_small", "size": [128, 128], "num_flow_updates": 2}
"""RAFT on pictures of 520 x 960 px takes seconds per pair without a GPU."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    run_demo(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name tiny weights for every role."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    raft = folder / "raft.pth"
    torch.save(random_raft(large=False).state_dict(), raft)
    named = {
        "raft": raft,
        "clip": tiny_models.save_clip(folder / "clip"),
        "safety_checker": tiny_models.save_safety_checker(folder / "checker", bar=1.0),
        "head_v1": tiny_models.save_linear_head(folder / "head_v1.pth", torch.ones(tiny_models.DIM)),
        "head_v2": tiny_models.save_mlp_head(folder / "head_v2.pth"),
    }
    return [f"{role}={path}" for role, path in named.items()]


def smaller(name: str, folder: Path) -> Path:
    """A recipe of this package whose flow is computed on small pictures."""
    told = yaml.safe_load((Path(recipe.__file__).parent / "recipes" / f"{name}.yaml").read_text())
    for step in told["stages"]:
        if step["stage"] == "optical_flow":
            step["params"] |= SMALL_FLOW
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


def civid(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result


def run(demo: Path, name: str, folder: Path, models: Sequence[str], roles: Sequence[str]) -> Any:
    options = [option for one in models if one.partition("=")[0] in roles for option in ("--model", one)]
    root, videos = demo / "datasets" / name, demo / "release" / name / "videos"
    path = smaller(name, folder)
    result = civid(
        "process", str(root), "--recipe", str(path), "--videos", str(videos), "--num-proc", "0", "--json", *options
    )
    return root, json.loads(result.stdout), result.stderr


def test_lvd2m(demo: Path, models: list[str], tmp_path: Path) -> None:
    root, report, told = run(demo, "lvd2m", tmp_path, models, ["raft"])
    assert "left out: quality_judge" in told
    rows = read_table(root, "scores/lvd2m")
    assert {"cut_count", "flow_mean_px", "flow_pairs"} <= set(rows.column_names)
    assert report["num_clips"] == len(rows) == len(load(root, "train")) + report["reasons"].get("nothing", 0)
    has_values = [row for row in rows.to_pylist() if row["reason"] is None]
    assert has_values
    assert all(row["flow_mean_px"] > 0 and row["cut_count"] >= 0 for row in has_values)
    stages = {one["stage"]: one for one in read_manifest(root)["layers"]["scores-lvd2m"]["stages"]}
    assert stages["scene_cuts"]["params"]["threshold"] == 50
    (raft,) = stages["optical_flow"]["models"]
    assert raft["dtype"] == "float32"
    assert raft["id"] == "raft.pth"
    assert len(raft["sha256"]) == 64
    median = report["statistics"]["flow_mean_px"]["median"]
    kept = filter_dataset(root, where=f"cut_count = 0 and flow_mean_px >= {median}", output=tmp_path / "hq", quiet=True)
    expected = [row for row in has_values if row["cut_count"] == 0 and row["flow_mean_px"] >= median]
    joined = load(tmp_path / "hq", layers=["scores-lvd2m"])
    assert len(joined) == len(expected) > 0
    assert all(row["scores-lvd2m"][0]["flow_mean_px"] >= median for row in joined)
    assert read_manifest(tmp_path / "hq")["parent"]["where"].startswith("cut_count = 0")
    assert kept.output == str(tmp_path / "hq")


def test_miradata(demo: Path, models: list[str], tmp_path: Path) -> None:
    root, report, told = run(
        demo, "miradata", tmp_path, models, ["raft", "clip", "safety_checker", "head_v1", "head_v2"]
    )
    assert "left out" not in told
    rows = read_table(root, "scores/miradata").to_pylist()
    has_values = [row for row in rows if row["reason"] is None]
    assert has_values
    names = ("luma_mean", "aesthetic_v1", "aesthetic_v2", "flow_mean_px", "nsfw_score")
    assert all(row[name] is not None for row in has_values for name in names)
    assert {one["stage"] for one in read_manifest(root)["layers"]["scores-miradata"]["stages"]} == {
        "colour", "aesthetic", "optical_flow", "nsfw",
    }  # fmt: skip
    assert Path(report["picture"]).is_file()
    kept = filter_dataset(root, where="not nsfw", output=tmp_path / "hq", quiet=True)
    assert sum(one["kept"] for one in kept.samples.values()) == sum(row["nsfw"] is False for row in has_values)


def test_missing_weights_are_named_before_anything_runs(demo: Path) -> None:
    root = demo / "datasets" / "lvd2m"
    for stage, message in (
        ("optical_flow", "raft_large_C_T_SKHT_V2-ff5fadd5.pth and name the file: --model raft=PATH"),
        ("nsfw", "is not on this machine; fetch it with --download, or name a folder: --model safety_checker=FOLDER"),
    ):
        result = CliRunner().invoke(app, ["process", str(root), "--stage", stage])
        assert message in str(result.exception)


def test_a_dry_run_and_the_list_of_stages(demo: Path) -> None:
    root, videos = demo / "datasets" / "lvd2m", demo / "release" / "lvd2m" / "videos"
    before = sorted(path.name for path in root.iterdir())
    shown = civid("process", str(root), "--stage", "colour", "--videos", str(videos), "--dry-run").stdout
    assert "one decoding pass per clip for 1 sets of frames" in shown
    assert sorted(path.name for path in root.iterdir()) == before
    listed = civid("stages").stdout
    assert "optical_flow" in listed
    assert "BSD-3" in listed
    (segment,) = (part for part in listed.split("\n\n") if "entity_segment" in part)
    assert "any that --backend names" in segment
    assert "luma_bright80 (float32)" in civid("stages", "colour").stdout
