"""The four datasets of the demo, published with layers and videos, as others find them on the Hub."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Value

from civid_loader.demo.run import run_demo
from civid_loader.hub.push_files import config_of
from civid_loader.layers import write_layer
from civid_loader.probing.dataset import probe_dataset
from civid_loader.reencoding.proxies import proxies
from civid_loader.schema import CAPTION_LAYER_FEATURES, TABLES, arrow_schema_of, caption
from civid_loader.storage import read_manifest, shards
from support.hub_server import HubServer
from support.pushing import push

NAMES = ("civid", "miradata", "moviebench", "lvd2m")
SCORES, TEXTS = "scores-demo", "captions-demo"
SCORE_FEATURES = Features({"clip_id": Value("string"), "flow_mean_px": Value("float64"), "reason": Value("string")})
FEATURES = dict(TABLES) | {"scores/demo": SCORE_FEATURES, "captions/demo": CAPTION_LAYER_FEATURES}
WRITTEN_BY_HAND = "---\nlicense: cc-by-4.0\nauthors: [Ada]\n---\n\n# Ours\n\nAsk Ada before you train on this.\n"

STOCK = """
import hashlib, json, sys, warnings
warnings.simplefilter("ignore")
sys.modules["civid_loader"] = None                      # nothing of ours may be needed
from datasets import Features, Video, load_dataset, get_dataset_config_names

def digest(value):
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)

repo = sys.argv[1]
told = {}
for config in get_dataset_config_names(repo):
    for is_streaming in (False, True):
        loaded = load_dataset(repo, *([] if config == "default" else [config]), streaming=is_streaming)
        for split, rows in loaded.items():
            features = rows.features.to_dict()
            if config == "videos":
                rows = rows.decode(False) if is_streaming else rows.cast_column("video", Video(decode=False))
            lines = [json.dumps(row, default=digest, sort_keys=True) for row in rows]
            told[f"{config} {split} {is_streaming}"] = {
                "features": features, "num_rows": len(lines),
                "rows": hashlib.sha256("".join(lines).encode()).hexdigest(),
            }
print(json.dumps(told))
"""

PUSH_ROWS = """
import json, sys, warnings
warnings.simplefilter("ignore")
import civid_loader
from civid_loader.hub.loading import load
layers = json.loads(sys.argv[1])
joined = load("org/civid", layers=layers, quiet=True)
joined.push_to_hub("org/joined")
chosen = joined.filter(lambda row: len(row["clips"]) == 2)
chosen.push_to_hub("org/joined", "pairs")
told = civid_loader.filter(joined, "flow_mean_px > 2", scope="any")
told.push_to_hub("org/joined", "told")
load("org/civid", quiet=True).select([2, 0]).push_to_hub("org/civid", "picked")
print(json.dumps({
    name: {"features": rows.features.to_dict(), "rows": [json.dumps(row, default=str, sort_keys=True) for row in rows]}
    for name, rows in (("joined", joined), ("pairs", chosen), ("told", told))
}))
"""

READ_ROWS = """
import json, sys, warnings
warnings.simplefilter("ignore")
sys.modules["civid_loader"] = None
from datasets import load_dataset
told = {}
for name, config in (("joined", "default"), ("pairs", "pairs"), ("told", "told")):
    rows, streamed = (load_dataset("org/joined", config, split="train", streaming=s) for s in (False, True))
    lines = [json.dumps(row, default=str, sort_keys=True) for row in rows]
    assert lines == [json.dumps(row, default=str, sort_keys=True) for row in streamed]
    told[name] = {"features": rows.features.to_dict(), "rows": lines}
told["picked"] = load_dataset("org/civid", "picked", split="train")["sample_id"][:]
told["samples"] = load_dataset("org/civid", split="train")["sample_id"][:]
print(json.dumps(told))
"""

TRAIN = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
from civid_loader import SequenceLoader, Uniform
from civid_loader.hub.loading import load
told = []
for where, layers, num_workers in json.loads(sys.argv[1]):
    loader = SequenceLoader(
        load(where, layers=layers, quiet=True),
        videos=where if where.startswith("/") else f"hf://datasets/{where}",
        frames=Uniform(4), size=(48, 80), batch_size=3, missing="drop_clip", num_workers=num_workers, shuffle=False,
    )
    batch = next(iter(loader))
    told.append({
        "samples": batch.sample_ids, "texts": batch.texts, "shape": list(batch.frames_BNTCHW.shape),
        "num_frames": int(batch.mask_BNT.sum()), "sum": int(batch.frames_BNTCHW.sum(dtype=torch.int64)),
    })
print(json.dumps(told))
"""


@dataclass(frozen=True, kw_only=True)
class Published:
    """The datasets, here and there."""

    hub: HubServer
    folder: Path
    roots: dict[str, Path]
    """Name -> dataset, with all of its layers and videos."""
    reports: dict[str, Any]
    """Name -> what its push told."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("published")
    run_demo(folder / "demo")
    release = folder / "demo" / "release"
    roots = {name: folder / "demo" / "datasets" / name for name in NAMES}
    videos = {name: release / name / "videos" for name in NAMES}
    # Some of its clips are spans of longer videos: files of their own come from `proxies`.
    copies = folder / "copies"
    proxies(roots["miradata"], videos=videos["miradata"], output=copies, short_side_px=64, max_failed=0.5, quiet=True)
    for name, root in (("civid", roots["civid"]), ("miradata", copies)):
        probe_dataset(root, videos=videos[name], quiet=True)
    roots["miradata"] = copies
    reports = {}
    with HubServer(folder / "store") as hub:
        for name, root in roots.items():
            put_layers(root)
            settings: dict[str, Any] = {"with_videos": True, "video_root": str(videos[name]), "has_permission": True}
            reports[name] = push(hub, root, f"org/{name}", folder / "maker", **settings)
        yield Published(hub=hub, folder=folder, roots=roots, reports=reports)


def put_layers(root: Path) -> None:
    """Scores of every clip, captions of every second one."""
    scores: dict[str, list[dict[str, Any]]] = {}
    texts: dict[str, list[dict[str, Any]]] = {}
    for path in shards(root):
        split = path.name.partition("-")[0]
        rows = pq.read_table(path, columns=["clips"])["clips"].to_pylist()
        known = {row["clip_id"] for row in scores.get(split, [])}
        ids = [clip["clip_id"] for clips in rows for clip in clips]
        for i, clip_id in enumerate(dict.fromkeys(one for one in ids if one not in known)):
            is_told = i % 2 == 0
            reason = None if is_told else "nothing to see"
            captions = [caption("dense", f"Anew: {clip_id}.", "me", start_seconds=0.5)] if is_told else []
            steps = [caption("change_content", "Then.", "me")] if is_told else []
            score = {"clip_id": clip_id, "flow_mean_px": i / 4 if is_told else None, "reason": reason}
            text = {"clip_id": clip_id, "captions": captions, "transition_captions": steps, "reason": reason}
            scores.setdefault(split, []).append(score)
            texts.setdefault(split, []).append(text)
    for name, features, made in ((SCORES, SCORE_FEATURES, scores), (TEXTS, CAPTION_LAYER_FEATURES, texts)):
        tables = {split: [pa.Table.from_pylist(part, arrow_schema_of(features))] for split, part in made.items()}
        write_layer(root, name, tables, features=features, provenance={"fingerprint": "0" * 16})


def local_rows(root: Path, table: str, split: str) -> list[dict[str, Any]]:
    """Rows as the shards of a folder hold them."""
    rows = [row for path in shards(root, table, split=split) for row in pq.read_table(path).to_pylist()]
    return rows


def flows_in(row: str) -> list[float]:
    """Of the clips of a row of JSON that have one."""
    return [one["flow_mean_px"] for one in json.loads(row)[SCORES] if one and one["flow_mean_px"] is not None]


def digest_of(rows: list[dict[str, Any]]) -> str:
    """As the client makes it."""

    def plain(value: Any) -> str:
        return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)

    return hashlib.sha256("".join(json.dumps(row, default=plain, sort_keys=True) for row in rows).encode()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_stock_datasets_load_every_config(published: Published, tmp_path: Path, name: str) -> None:
    root = published.roots[name]
    assert "error" not in published.reports[name]
    told = published.hub.run(STOCK, f"org/{name}", home=tmp_path / "reader", limit_seconds=170)
    expected = set()
    for table in read_manifest(root)["shards"]:
        for split, num_rows in read_manifest(root)["num_rows"][table].items():
            for is_streaming in (False, True):
                case = f"{config_of(table)} {split} {is_streaming}"
                expected.add(case)
                assert Features.from_dict(told[case]["features"]) == FEATURES[table], case
                assert told[case]["num_rows"] == num_rows, case
                assert told[case]["rows"] == digest_of(local_rows(root, table, split)), case
    assert told.keys() == expected
    configs = {case.partition(" ")[0] for case in expected}
    assert configs >= {"default", "media", "videos", SCORES, TEXTS}
    assert {"characters", "movies"} <= configs or name != "moviebench"


def test_every_byte_of_a_video_can_be_found_by_the_media_layer(published: Published) -> None:
    for name, root in published.roots.items():
        repo = f"org/{name}"
        files = {path: published.hub.read(repo, path) for path in published.hub.repo(repo).at("main").files}
        num_found = 0
        for split in read_manifest(root)["num_rows"]["videos"]:
            bytes_of = {row["clip_id"]: row["video"]["bytes"] for row in local_rows(root, "videos", split)}
            for row in local_rows(root, "media", split):
                if row["shard"] is not None:
                    end = row["byte_offset"] + row["num_bytes"]
                    assert files[row["shard"]][row["byte_offset"] : end] == bytes_of[row["clip_id"]], row
                    num_found += 1
        assert num_found == sum(read_manifest(root)["num_rows"]["videos"].values()) > 0


def test_batches_come_straight_from_the_hub(published: Published, tmp_path: Path) -> None:
    """The same as from the folder; by the media layer of the rows, by that of none, and in a worker process."""
    hub, names = published.hub, ("civid", "miradata", "moviebench")
    cases: list[tuple[str, list[str], int]] = [(str(published.roots[name]), [], 0) for name in names]
    cases += [(f"org/{name}", ["media"] if name == "civid" else [], int(name == "moviebench")) for name in names]
    hub.forget_requests()
    told = hub.run(TRAIN, json.dumps(cases), home=tmp_path / "home", limit_seconds=170)
    assert told[3:] == told[:3]
    for batch in told:
        assert batch["shape"][0] == 3
        assert batch["num_frames"] > 0
    # Of CI-VID, whose media layer tells where clips and frames lie: no footer, no header, each range once.
    paths = [
        path.relative_to(published.roots["civid"]).as_posix() for path in shards(published.roots["civid"], "videos")
    ]
    ranges = [
        one for one in hub.select("resolve") if one.path.startswith("/datasets/org/civid/") and one.method == "GET"
    ]
    sizes = {row["num_bytes"] for row in local_rows(published.roots["civid"], "media", "train")}
    assert {one.num_bytes_sent for one in ranges if one.repo_path in paths} <= sizes, "whole clips, which are small"


def test_rows_and_selections_go_up_with_stock_push_to_hub(published: Published, tmp_path: Path) -> None:
    hub = published.hub
    hub.create("org/joined", is_private=True)
    hub.write("org/joined", {"README.md": WRITTEN_BY_HAND.encode()})
    card = hub.read("org/civid", "README.md").decode()
    pushed = hub.run(PUSH_ROWS, json.dumps(["media", SCORES, TEXTS]), home=tmp_path / "writer", limit_seconds=170)
    found = hub.run(READ_ROWS, home=tmp_path / "reader")
    assert {name: found[name] for name in pushed} == pushed
    assert 0 < len(pushed["pairs"]["rows"]) < len(pushed["joined"]["rows"])
    kept = [row for row in pushed["joined"]["rows"] if any(flow > 2 for flow in flows_in(row))]
    assert pushed["told"]["rows"] == kept, "by `civid_loader.filter`"
    assert 0 < len(kept) < len(pushed["joined"]["rows"])
    assert SCORES in pushed["joined"]["features"]
    assert "media" in pushed["joined"]["features"]
    merged = hub.read("org/joined", "README.md").decode()
    assert "Ask Ada before you train on this." in merged
    assert "license: cc-by-4.0" in merged
    assert "authors:" in merged
    # A config more in the dataset's own repository: its card stays, and so do the other configs.
    assert card.partition("\n---\n")[2] == hub.read("org/civid", "README.md").decode().partition("\n---\n")[2]
    assert len(found["picked"]) == 2
    assert found["samples"] == [
        row["sample_id"] for row in local_rows(published.roots["civid"], "annotations", "train")
    ]
    again = push(hub, published.roots["civid"], "org/civid", tmp_path / "writer")
    assert "error" not in again
    assert "config_name: picked" in hub.read("org/civid", "README.md").decode()
    assert again["num_bytes"].keys() <= {""}, "no table goes up again"
    assert hub.run(READ_ROWS, home=tmp_path / "later")["picked"] == found["picked"]
