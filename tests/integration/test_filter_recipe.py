"""Rules of recipes and fitted tiers choose clips, and say how many beside what is published."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from datasets import Features, Value
from typer.testing import CliRunner

import civid_loader
from civid_loader.cli import app
from civid_loader.layers import write_layer
from support.built import clip, write_dataset

NUM_CLIPS = 100


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Flow rises with i, beauty goes up and down; even clips have 30 s, odd ones 60; every tenth is not safe."""
    samples = [[clip(f"c{i}", f"{i}.mp4")] for i in range(NUM_CLIPS)]
    root = write_dataset(tmp_path / "set", {"train": samples})
    ids = [f"c{i}" for i in range(NUM_CLIPS)]
    flow = [None if i == 99 else 0.1 * i for i in range(NUM_CLIPS)]
    columns: dict[str, tuple[str, list[Any]]] = {
        "aesthetic_v1": ("float32", [0.07 * (i * 37 % 100) for i in range(NUM_CLIPS)]),
        "flow_mean_px": ("float32", flow),
        "nsfw": ("bool", [i % 10 == 0 for i in range(NUM_CLIPS)]),
    }
    _layer(root, "scores-m", ids, columns)
    _layer(root, "media", ids, {"clip_duration_seconds": ("float64", [30.0 + 30 * (i % 2) for i in range(NUM_CLIPS)])})
    return root


def _layer(root: Path, name: str, ids: list[str], columns: dict[str, tuple[str, list[Any]]]) -> None:
    features = Features({"clip_id": Value("string"), **{one: Value(dtype) for one, (dtype, _) in columns.items()}})
    arrays = {one: pa.array(values) for one, (_, values) in columns.items()}
    rows = pa.table({"clip_id": ids, **arrays}).cast(features.arrow_schema)
    write_layer(root, name, {"train": [rows]}, features=features, provenance={"fingerprint": "0"})


def civid(*arguments: str, exit_code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == exit_code, result.output
    return result


def test_rules_of_a_recipe(root: Path) -> None:
    shown = civid("filter", str(root), "--recipe", "miradata", "--dry-run").stdout
    # Of 60 s are the odd ones, none of which is not safe.
    assert "50.0%  kept here" in shown
    assert "41.9%  published: version 330K (330K of the 788K clips.)" in shown
    found = json.loads(
        civid("filter", str(root), "--recipe", "miradata", "--where", "flow_mean_px >= 5", "--dry-run", "--json").stdout
    )
    assert found["samples"]["train"] == {"kept": 24, "unknown": 1, "dropped": 75}
    assert found["keep_rates"]["kept here"] == 0.24
    assert list(found["keep_rates"].values())[1:] == [0.419, 0.118, 0.053, 0.011]


def test_fitted_tiers_are_conditions_of_filter(root: Path) -> None:
    command = ["tiers", str(root), "--layer", "scores-m", "--column", "aesthetic_v1", "--column", "flow_mean_px"]
    command += ["--fraction", "0.4", "--fraction", "0.1", "--base", "nsfw = false"]
    fitted = json.loads(civid(*command, "--json").stdout)
    assert [(one["fraction"], one["num_clips"]) for one in fitted] == [(0.4, 40), (0.1, 10)]
    for one in fitted:
        found = json.loads(civid("filter", str(root), "--where", one["where"], "--dry-run", "--json").stdout)
        assert found["samples"]["train"]["kept"] == one["num_clips"], "to the last digit of the threshold"
    shown = civid(*command).stdout
    assert "0.4: 40 of 100 clips" in shown
    assert '--where "nsfw = false and aesthetic_v1 >= ' in shown
    table = pa.table({"a": [1.0, 2.0, 3.0, 4.0]})
    assert civid_loader.fit_tiers(table, ["a"], [0.5]).tiers[0].where == "a >= 3.0"


def test_a_tier_of_ones_own_recipe(root: Path, tmp_path: Path) -> None:
    own = {
        "name": "mine", "dataset": "miradata", "title": "Mine",
        "tiers": [
            {"name": "all", "rules": []},
            {"name": "moving", "rules": [{"column": "flow_mean_px", "op": ">=", "value": 9.0}]},
        ],
    }  # fmt: skip
    (path := tmp_path / "mine.yaml").write_text(yaml.safe_dump(own))
    command = ["filter", str(root), "--recipe", str(path), "--dry-run", "--json"]
    found = json.loads(civid(*command, "--tier", "moving").stdout)
    assert found["samples"]["train"]["kept"] == 9
    assert "recipe mine has no tier 'best'" in civid(*command, "--tier", "best", exit_code=2).output
    assert "has no rules" in civid(*command, exit_code=2).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["filter", "--tier", "x"], "tiers are those of a --recipe"),
        (["filter", "--recipe", "moviebench", "--dry-run"], "recipe moviebench has no rules"),
        (
            ["tiers", "--layer", "scores-m", "--column", "flow_mean_px", "--fraction", "0.5", "--base", "a"],
            "write it as",
        ),
        (["tiers", "--layer", "scores-m", "--column", "nsfw", "--fraction", "0.5", "--base", "a = b"], "is no number"),
    ],
)
def test_what_makes_no_sense(root: Path, arguments: list[str], message: str) -> None:
    result = civid(arguments[0], str(root), *arguments[1:], exit_code=2)
    assert message in " ".join(result.output.replace("│", " ").split())
