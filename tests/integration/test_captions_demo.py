"""The demo's four datasets written anew: each recipe by a server, each stage by tiny models, published and compared."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from civid_loader.caption_diff import diff_captions
from civid_loader.cli import app
from civid_loader.demo.release import Release, make_release
from civid_loader.materialize import build
from civid_loader.processing import registry
from civid_loader.processing.asking import AskingStage
from civid_loader.processing.backends.transformers import TransformersCaptioner
from civid_loader.processing.captioner import CaptionerSpec
from civid_loader.processing.recipe import load_recipe
from civid_loader.processing.run import process
from civid_loader.processing.work import StageSpec
from civid_loader.storage import read_manifest, read_table, write_json
from support import tiny_vlms
from support.hub_server import HubServer
from support.model_server import MODEL, serve_model
from support.pushing import push

pytestmark = pytest.mark.usefixtures("one_torch_thread")

NAMES = ("civid", "miradata", "moviebench", "lvd2m")
KINDS = {
    "civid": {
        "content", "camera_angle", "camera_movement", "background", "continuation_content", "change_content",
        "continuation_background", "change_background", "change_camera_angle", "change_camera_movement",
    },
    "miradata": {"short", "dense", "main_object", "background", "camera", "style"},
    "moviebench": {"plot", "background", "camera_movement", "style", "scene_title"},
    "lvd2m": {"raw", "refined", "rewritten"},
}  # fmt: skip
JOINED = """
import json, sys, warnings
warnings.simplefilter("ignore")
from civid_loader.hub.loading import load
rows = load(sys.argv[1], split=sys.argv[2], layers=["captions-new"], quiet=True)
print(json.dumps([[clip["clip_id"], clip["captions"]] for row in rows for clip in row["clips"]]))
"""


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def built(releases: Mapping[str, Release], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> dataset folder, without a layer."""
    folder = tmp_path_factory.mktemp("datasets")
    for name, one in releases.items():
        build(name, annotations=one.annotations, videos=one.videos, output=folder / name, max_rejected=0.2, quiet=True)
    return {name: folder / name for name in NAMES}


@pytest.fixture(scope="module")
def recaptioned(built: Mapping[str, Path], releases: Mapping[str, Release]) -> dict[str, dict[str, Any]]:
    """Name -> what `civid caption --recipe` told of a run with a server."""
    found = {}
    with serve_model() as server:
        for name, root in built.items():
            command = ["caption", str(root), "--recipe", name, "--videos", str(releases[name].videos)]
            command += ["--pictures", str(releases[name].annotations[0]), "--layer", "captions-new"]
            command += ["--backend", "openai", "--base-url", server.base_url, "--model", MODEL, "--json"]
            ended = CliRunner().invoke(app, command)
            assert ended.exit_code == 0, ended.output
            found[name] = json.loads(ended.stdout)
            assert set(server.sent.values()) == {1}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_right_text_in_the_right_caption(
    name: str, built: Mapping[str, Path], recaptioned: Mapping[str, Mapping[str, Any]]
) -> None:
    fields = {
        one.kind: one.name
        for step in load_recipe(name).captions
        if issubclass(kind := registry.find(step.stage), AskingStage)
        for one in kind.fields
    }
    assert set(fields) == KINDS[name] == set(recaptioned[name]["captions"])
    rows = read_table(built[name], "captions/new").to_pylist()
    owners: dict[str, set[str]] = {}
    for row in rows:
        assert row["captions"] or row["reason"].startswith("VideoNotFoundError"), row
        for one in (*row["captions"], *row["transition_captions"]):
            field, _, said = one["text"].partition(": ")
            assert field in (fields[one["kind"]], ""), "items of a list have no name"
            owners.setdefault(said.split()[1], set()).add(row["clip_id"])
    assert {len(clips) for clips in owners.values()} == {1}, "an answer belongs to the clip that was asked about"
    assert recaptioned[name]["usage"]["num_requests"] == len(owners)
    scores = read_table(built[name], "scores/new").to_pylist()
    assert [row["clip_id"] for row in scores] == [row["clip_id"] for row in rows]
    assert all(row["caption_num_phrases"] is not None for row in scores if row["reason"] is None)


def test_steps_of_sequences_and_scenes_of_movies(
    built: Mapping[str, Path], recaptioned: Mapping[str, Mapping[str, Any]]
) -> None:
    rows = {row["clip_id"]: row for row in read_table(built["civid"], "captions/new").to_pylist()}
    steps = Counter(len(row["transition_captions"]) for row in rows.values())
    assert set(steps) == {0, 6}
    for sample in read_table(built["civid"]).to_pylist():
        assert rows[sample["clips"][0]["clip_id"]]["transition_captions"] == []
    scores = read_table(built["moviebench"], "scores/new").to_pylist()
    assert any(row["moviebench_shot_notes"] == [] for row in scores), "all portraits of a movie were found"
    assert {row["scene_number"] for row in scores if row["reason"] is None} >= {1}


@pytest.mark.parametrize("model", ["qwen3_vl", "llava"])
def test_every_stage_with_a_tiny_model(
    model: str,
    built: Mapping[str, Path],
    releases: Mapping[str, Release],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Random weights never come to an end.
    generate = TransformersCaptioner.generate
    monkeypatch.setattr(
        TransformersCaptioner,
        "generate",
        lambda self, asked: generate(self, [replace(one, max_tokens=min(one.max_tokens, 8)) for one in asked]),
    )
    folder = {"qwen3_vl": tiny_vlms.save_qwen3_vl, "llava": tiny_vlms.save_llava}[model](tmp_path / model)
    spec = CaptionerSpec(backend="transformers", model=str(folder), options={"dtype": "float32", "batch_size": 4})
    seen = set()
    for name, root in built.items():
        steps = [*load_recipe(name).captions, *(step for step in load_recipe(name).stages if asks(step.stage))]
        stages = [StageSpec(name=step.stage, params=step.params, weights={}) for step in steps]
        seen |= {stage.name for stage in stages}
        report = process(
            root, stages, layer=f"captions-{model.replace('_', '-')}", videos=releases[name].videos, captioner=spec,
            num_proc=0, limit=2, quiet=True,
        )  # fmt: skip
        assert report.usage is not None
        assert report.usage.completion_tokens
        for row in read_table(root, f"scores/{model.replace('_', '-')}").to_pylist():
            for stage in (one.stage for one in steps if asks(one.stage)):
                if row[f"{stage}_num_requests"] and stage != "quality_judge":  # a choice is picked, so it is always one
                    assert f"{stage}: " in row["reason"], "random weights write no JSON"
    assert seen >= {one for one in registry.names() if asks(one)}


def asks(stage: str) -> bool:
    return issubclass(registry.find(stage), AskingStage)


@pytest.mark.parametrize("name", ["civid", "miradata"])
def test_published_as_a_layer_and_compared(
    name: str, built: Mapping[str, Path], recaptioned: Mapping[str, Mapping[str, Any]], tmp_path: Path
) -> None:
    root, bare = built[name], tmp_path / name
    shutil.copytree(root, bare, ignore=shutil.ignore_patterns("captions", "scores"))
    manifest = read_manifest(bare)
    manifest["layers"] = {}
    for part in ("num_rows", "shards"):
        manifest[part] = {table: told for table, told in manifest[part].items() if "/" not in table}
    write_json(bare / "manifest.json", manifest)
    with HubServer(tmp_path / "store") as hub:
        push(hub, bare, f"org/{name}", tmp_path / "first")
        report = push(hub, root, f"org/{name}", tmp_path / "second", layers=["captions-new", "scores-new"])
        split = next(iter(manifest["num_rows"]["annotations"]))
        joined = hub.run(JOINED, f"org/{name}", split, home=tmp_path / "reader")
    new = {row["clip_id"]: row["captions"] for row in read_table(root, "captions/new").to_pylist()}
    assert joined
    for clip_id, captions in joined:
        assert captions[: len(new[clip_id])] == new[clip_id], "the new ones come first"
    assert set(report["num_files"]) == {"captions-new", "scores-new", ""}, "no annotation goes up again"
    assert report["num_commits"] == 1
    found = diff_captions(root, "annotations", "captions-new", quiet=True)
    kinds = {one.kind: one for one in found.kinds}
    shared = "content" if name == "civid" else "dense"
    of_kind = [one for captions in new.values() for one in captions if one["kind"] == shared]
    assert kinds[shared].num_changed + kinds[shared].num_only_second == len(of_kind) > 0
