"""What a push must not do: delete or mix data of others, tell places of other videos, end in a traceback."""

import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Features, Value

from civid_loader.errors import LayerError
from civid_loader.filtering import filter_dataset
from civid_loader.hub.push_checks import check_layers
from civid_loader.hub.push_files import LocalFiles
from civid_loader.hub.video_config import write_video_config
from civid_loader.layers import layer_folder, write_layer
from civid_loader.schema import arrow_schema, arrow_schema_of
from civid_loader.storage import read_manifest, write_json, write_shard
from support.built import clip, write_dataset
from support.hub_server import HubServer
from support.pushing import push, push_each, read

REPO = "org/set"
SCORES = Features({"clip_id": Value("string"), "flow_mean_px": Value("float64")})
VIDEOS: dict[str, Any] = {"with_videos": True, "has_permission": True}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def dataset(root: Path, *, prefix: str = "c") -> Path:
    """Two splits, a layer of scores."""
    write_dataset(root, {split: [[clip(name, f"{name}.mp4")] for name in of] for split, of in names(prefix).items()})
    score(root, "scores-x", prefix=prefix)
    return root


def names(prefix: str) -> dict[str, list[str]]:
    return {"train": [f"{prefix}{i}" for i in range(6)], "test": [f"{prefix}6"]}


def score(root: Path, name: str, *, prefix: str = "c") -> None:
    rows = {
        split: [
            pa.Table.from_pylist(
                [{"clip_id": one, "flow_mean_px": float(one[1:])} for one in of], schema=arrow_schema_of(SCORES)
            )
        ]
        for split, of in names(prefix).items()
    }
    write_layer(root, name, rows, features=SCORES, provenance={"fingerprint": "0" * 16})


def videos(folder: Path, *, num_bytes: int = 5000) -> Path:
    folder.mkdir(exist_ok=True)
    for name in [*names("c")["train"], *names("c")["test"]]:
        (folder / f"{name}.mp4").write_bytes(random.Random(name).randbytes(num_bytes))
    return folder


def test_repositories_edited_by_hand_are_refused_with_a_cure(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    cases: dict[str, tuple[dict[str, bytes], str]] = {
        "list": ({"manifest.json": b"[]"}, r"manifest.json was not written by civid .*delete that file"),
        "shards": ({"manifest.json": b'{"name": "lvd2m", "shards": []}'}, "'shards' is not one list per table"),
        "latin": ({"README.md": b"---\nlicense: other\n---\nCaf\xe9"}, "README.md is not UTF-8 .*save it there as"),
        "number": ({"README.md": b"---\nconfigs: 3\n---\n"}, "`configs` of its card is no list.*mend its README.md"),
        "infos": ({"README.md": b"---\ndataset_info: [a]\n---\n"}, "`dataset_info` of its card is not what"),
        "unnamed": ({"README.md": b"---\nconfigs:\n- data_files: x\n---\n"}, "has no config_name.*mend"),
        "tags": ({"README.md": b"---\ntags: [[a]]\n---\n"}, "`tags` of its card is no list of words"),
        "folder": ({"annotations/own.parquet": b"PAR1"}, r"\(annotations/own.parquet\), which this push would delete"),
    }
    with HubServer(tmp_path / "store") as hub:
        for name, (files, _) in cases.items():
            hub.create(f"org/{name}", is_private=True)
            hub.write(f"org/{name}", files)
        told = push_each(hub, root, [(f"org/{name}", {}) for name in cases], home)
        for (name, (files, message)), report in zip(cases.items(), told, strict=True):
            assert re.search(f"^HubError: org/{name}.*{message}", report["error"]), report
            assert all(hub.read(f"org/{name}", path) == data for path, data in files.items())
        assert not hub.count("lfs-upload")
        hub.write("org/tags", {"README.md": "\ufeff---\nviewer: false\n---\nMine".encode()})
        mine, replaced = push_each(hub, root, [("org/tags", {}), ("org/folder", {"replace": True})], home)
        assert "viewer: false" in hub.read("org/tags", "README.md").decode(), mine
        assert replaced["deleted"] == ["annotations/own.parquet"]


def test_other_rows_are_not_mixed_and_go_only_when_told(tmp_path: Path, home: Path) -> None:
    root, other = dataset(tmp_path / "set"), dataset(tmp_path / "other", prefix="z")
    score(root, "scores-y")
    with HubServer(tmp_path / "store") as hub:
        first = push(hub, root, REPO, home)["sha"]
        layer, whole = push_each(hub, other, [(REPO, {"layers": ["scores-x"]}), (REPO, {})], home)
        assert "annotations of other rows" in layer["error"]
        assert "--replace" in whole["error"]
        assert hub.repo(REPO).at("main").oid == first, "nothing was changed"
        report = push(hub, other, REPO, home, replace=True)
        assert {"scores/y/train-00000-of-00001.parquet"} <= set(report["deleted"])
        assert "scores-y" not in hub.read(REPO, "README.md").decode()
        assert b"scores/y" not in hub.read(REPO, "manifest.json")
        scores = read(hub, REPO, "scores-x", tmp_path / "reader")["train True"]["rows"]
        assert [row["clip_id"] for row in scores] == names("z")["train"]


def test_the_same_rows_told_otherwise_are_replaced(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    with HubServer(tmp_path / "store") as hub:
        push(hub, root, REPO, home)
        of = names("c").items()
        write_dataset(root, {split: [[clip(name, f"moved/{name}.mp4")] for name in all_of] for split, all_of in of})
        report = push(hub, root, REPO, home)
        assert report.get("num_files", {}).get("default") == 2, report


def test_a_layer_of_other_clips_is_refused(tmp_path: Path) -> None:
    root = dataset(tmp_path / "set")
    check_layers(LocalFiles.of(root, layers=None, videos="none"))
    score(root, "scores-z", prefix="z")
    with pytest.raises(LayerError, match=r"layer scores-z tells of clip z0, and .* has no such clip"):
        check_layers(LocalFiles.of(root, layers=["scores-z"], videos="none"))
    with pytest.raises(LayerError, match=r"did you mean captions-new\?"):
        layer_folder("captions/new")


def test_splits_and_configs_without_rows_are_no_error(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    filter_dataset(root, where="flow_mean_px < 3", output=tmp_path / "some", quiet=True)
    empty = pa.Table.from_pylist([], schema=arrow_schema_of(SCORES))
    write_layer(tmp_path / "some", "scores-none", {"train": [empty]}, features=SCORES, provenance={"fingerprint": "0"})
    with HubServer(tmp_path / "store") as hub:
        report = push(hub, tmp_path / "some", REPO, home)
        assert "error" not in report, report


def test_media_and_videos_stay_together(tmp_path: Path, home: Path) -> None:
    root, files = dataset(tmp_path / "set"), videos(tmp_path / "files")
    told = {"video_root": str(files), **VIDEOS}
    with HubServer(tmp_path / "store") as hub:
        planned, _, sent = push_each(
            hub, root, [(REPO, told | {"dry_run": True}), (REPO, {}), (REPO, told | {"layers": ["scores-x"]})], home
        )
        assert (planned["num_files"]["videos"], planned["num_bytes"]["videos"]) == (2, 7 * 5000)
        assert {"media", "videos"} <= set(sent["num_files"]), "the layer that tells where each clip lies too"
        videos(files, num_bytes=6000)
        write_video_config(root, video_root=files, quiet=True)
        plain, media, again = push_each(hub, root, [(REPO, {}), (REPO, {"layers": ["media"]}), (REPO, told)], home)
        for report in (plain, media):
            assert "readers would get other bytes; add --videos" in report["error"]
        assert again["num_files"].keys() == {"", "media", "videos"}, again


def test_nothing_is_made_before_what_can_be_checked_is(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    cases: list[tuple[str, dict[str, Any], str]] = [
        (REPO, VIDEOS, "are relative: pass the folder they start from .*--video-root"),
        (REPO, VIDEOS | {"video_root": str(tmp_path / "none")}, "is no folder"),
        (REPO, {"layers": ["scores/x"]}, "did you mean scores-x"),
        ("lvd2m", {}, "a repository is named org/name.* such as me/lvd2m"),
        ("hf://datasets/org/set@exp", {}, "give org/set and --branch"),
    ]
    with HubServer(tmp_path / "store") as hub:
        for report, (_, _, message) in zip(
            push_each(hub, root, [(repo, told) for repo, told, _ in cases], home), cases, strict=True
        ):
            assert re.search(message, report["error"]), report
        assert not hub.store.repos
        private, public = push_each(
            hub,
            root,
            [(f"hf://datasets/{REPO}", {}), (REPO, {"is_public": True, "has_permission": True, "branch": "exp"})],
            home,
        )
        assert (private["repo_id"], private["is_private"]) == (REPO, True)
        assert (public["branch"], public["is_private"], hub.repo(REPO).is_private) == ("exp", False, False)


def test_a_check_that_fails_tells_that_all_is_there(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    with HubServer(tmp_path / "store") as hub:
        is_sent = False

        def is_after(call: Any) -> bool:
            nonlocal is_sent
            is_sent = is_sent or call.kind == "commit"
            return is_sent and bool(call.kind == "tree")

        # The tree of the plan that finds nothing left to do comes between commit and check.
        hub.fail(is_after, after=1, times=1000, status=403)
        error = push(hub, root, REPO, home)["error"]
        assert f"All was sent and stands there as commit {hub.repo(REPO).at('main').oid}" in error
        assert "the same command" in error


def test_whoever_reads_meanwhile_sees_the_old_or_the_new(tmp_path: Path, home: Path) -> None:
    """What main holds is looked at with every request of a push that replaces one layer and adds another."""
    root = dataset(tmp_path / "set")
    seen: set[frozenset[tuple[str, str]]] = set()
    with HubServer(tmp_path / "store") as hub:

        def state() -> frozenset[tuple[str, str]]:
            return frozenset((path, blob.sha256) for path, blob in hub.repo(REPO).at("main").files.items())

        push(hub, root, REPO, home)
        before = state()
        score(root, "scores-y")
        rows = [{"clip_id": name, "flow_mean_px": 9.0} for name in names("c")["train"]]
        tables = {"train": [pa.Table.from_pylist(rows, schema=arrow_schema_of(SCORES))]}
        write_layer(root, "scores-x", tables, features=SCORES, provenance={"fingerprint": "1" * 16})

        def look(_: Any) -> bool:
            seen.add(state())
            return False

        hub.fail(look)
        report = push(hub, root, REPO, home)
        assert report["deleted"] == ["scores/x/test-00000-of-00001.parquet"]
        assert seen == {before, state()}
        assert before != state()


def test_portraits_are_told_of_and_not_sent(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    picture = random.Random(1).randbytes(3000)
    (root / "portraits").mkdir()
    (root / "portraits" / "hero.jpg").write_bytes(picture)
    schema = arrow_schema("characters")
    row: dict[str, Any] = {"movie_id": "m", "character_id": "m/hero", "name": "Hero", "actor": None}
    row |= {"aliases": [], "portraits": ["portraits/hero.jpg"], "audio": []}
    shard = "characters/train-00000-of-00001.parquet"
    write_shard(root / shard, [pa.Table.from_pylist([row], schema=schema)], table="characters")
    manifest = read_manifest(root)
    manifest["shards"]["characters"], manifest["num_rows"]["characters"] = [shard], {"train": 1}
    write_json(root / "manifest.json", manifest)
    with HubServer(tmp_path / "store") as hub:
        report = push(hub, root, REPO, home)
        assert report.get("num_files", {}).get("characters") == 1, report
        files = hub.repo(REPO).at("main").files
        assert not any(path.startswith("portraits") for path in files)
        assert not any(picture[:64] in hub.read(REPO, path) for path in files)
        rows = read(hub, REPO, "characters", tmp_path / "reader")["train True"]["rows"]
        assert rows[0]["portraits"] == ["portraits/hero.jpg"]
