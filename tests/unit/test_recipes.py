"""Recipes can be read, say who says so, and are refused clearly."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from civid_loader.errors import StageError
from civid_loader.processing import registry
from civid_loader.processing.recipe import load_recipe, recipe_names, recipe_of
from civid_loader.where import FALSE, TRUE, Evaluator, parse_where

ENTRY = {"stage": "split", "params": {"threshold": 3.0}, "evidence": "paper", "source": "Section 3."}
SMALL: dict[str, Any] = {"name": "mine", "dataset": "civid", "title": "Mine", "segmentation": [ENTRY]}


def test_there_are_the_four() -> None:
    assert recipe_names() == ["civid", "lvd2m", "miradata", "moviebench"]


@pytest.mark.parametrize("name", recipe_names())
def test_recipe(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == recipe.dataset == name
    assert recipe.unknown
    sources = [step.source for step in (*recipe.stages, *recipe.captions, *recipe.segmentation)]
    sources += [rule.source for rule in recipe.rules] + [rate.source for rate in recipe.keep_rates]
    assert all(len(source) > 10 for source in sources)
    if recipe.rules:
        assert len(parse_where(recipe.where).conditions) >= len(recipe.rules)
    # No thresholds of tiers are published, so there are none.
    assert not recipe.tiers.tiers


@pytest.mark.parametrize("name", recipe_names())
def test_stages_take_the_parameters(name: str) -> None:
    recipe, known = load_recipe(name), registry.names()
    for step in (*recipe.stages, *recipe.captions, *recipe.segmentation):
        if step.stage in known:
            registry.make(step.stage, step.params)
        else:
            assert step.stage == "keep", "not a stage: which scenes become clips"


@pytest.mark.parametrize(
    ("platform", "seconds", "is_kept"),
    [
        ("youtube", 39.9, False), ("youtube", 40.0, True), ("hdvila", 12.0, False), (None, 12.0, False),
        *((stock, seconds, seconds >= 10) for stock in ("videvo", "pixabay", "pexels") for seconds in (9.9, 10.0)),
    ],
)  # fmt: skip
def test_miradata_is_long_but_for_stock_videos(platform: str | None, seconds: float, is_kept: bool) -> None:
    (rule,) = (rule for rule in load_recipe("miradata").rules if "duration" in rule.where)
    clips = pa.table({"media": [{"clip_duration_seconds": seconds}], "source": [{"platform": platform}]})
    with Evaluator(parse_where(rule.where)) as evaluate:
        assert evaluate(clips).tolist() == [[TRUE if is_kept else FALSE]]


def test_published_numbers() -> None:
    lvd2m, mira, civid = (load_recipe(name) for name in ("lvd2m", "miradata", "civid"))
    assert lvd2m.where.endswith("(cut_count = 0) and (flow_mean_px >= 20) and (mllm_variation and mllm_diversity)")
    assert [rate.share for rate in mira.keep_rates] == [0.419, 0.118, 0.053, 0.011]
    split = {recipe.name: recipe.step("split") for recipe in (lvd2m, mira, civid)}
    assert {name: step and step.params["threshold"] for name, step in split.items()} == {
        "lvd2m": 50.0, "miradata": 26.0, "civid": 3.0,
    }  # fmt: skip
    stitch = mira.step("split_stitch")
    assert stitch is not None
    assert "imagebind_at_least" not in stitch.params  # not published
    assert {rule.evidence for rule in civid.rules} == {"secondary"}
    (aesthetic,) = (step for step in mira.stages if step.stage == "aesthetic")
    assert aesthetic.params["heads"] == ["v1", "v2"]  # its evaluation code has v1


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    tiers = [
        {"name": "all", "rules": []},
        {"name": "best", "rules": [{"column": "aesthetic", "op": ">=", "value": 5.5}]},
    ]
    path.write_text(yaml.safe_dump({**SMALL, "tiers": tiers}), encoding="utf-8")
    recipe = load_recipe(path)
    step = recipe.step("split")
    assert step is not None
    assert step.params == {"threshold": 3.0}
    assert recipe.step("keep") is None
    assert recipe.where == ""
    assert [tier.where for tier in recipe.tiers.tiers] == ["", "aesthetic >= 5.5"]
    recipe.check_stages()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "webvid"}, "dataset 'webvid' must be one of civid, lvd2m, miradata, moviebench"),
        ({"sgementation": []}, "unknown key 'sgementation'; it may have name, dataset"),
        ({"segmentation": {}, "rules": {"a": 1}}, "rules must be a list"),
        ({"segmentation": [{**ENTRY, "evidence": "hearsay"}]}, r"segmentation\[0\]: evidence 'hearsay' must be one of"),
        ({"segmentation": [{"stage": "split"}]}, r"segmentation\[0\]: missing 2 required"),
        ({"segmentation": [{**ENTRY, "params": [1]}]}, "params: must be a mapping"),
        ({"segmentation": [{**ENTRY, "source": ""}]}, "source must be a text, not ''"),
        ({"keep_rates": [{"of": "x", "share": 3, "evidence": "paper", "source": "s"}]}, "share 3 must be a number"),
        ({"tiers": [{"name": "a", "rules": [{"column": "x", "op": "~", "value": 1}]}]}, "must be one of >= >"),
        ({"title": 3}, "title must be a text"),
    ],
)
def test_recipes_that_are_none(change: dict[str, Any], message: str) -> None:
    with pytest.raises(StageError, match=message):
        recipe_of({**SMALL, **change}, where="mine.yaml")


def test_names_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no recipe 'lvd2'; there are civid, .* Did you mean 'lvd2m'"):
        load_recipe("lvd2")
    with pytest.raises(StageError, match="no such recipe file"):
        load_recipe(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [", encoding="utf-8")
    with pytest.raises(StageError, match="not YAML"):
        load_recipe(broken)
    broken.write_text("just words", encoding="utf-8")
    with pytest.raises(StageError, match="must be a mapping"):
        load_recipe(broken)
    with pytest.raises(StageError, match="there is no stage 'spilt'"):
        recipe_of({**SMALL, "segmentation": [{**ENTRY, "stage": "spilt"}]}, where="x").check_stages()
