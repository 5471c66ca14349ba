"""`pull` from the loopback Hub, by clients in processes of their own."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from civid_loader.hub.video_config import write_video_config
from civid_loader.layers import write_layer
from civid_loader.probing.dataset import probe_dataset
from civid_loader.schema import CAPTION_LAYER_FEATURES, caption
from civid_loader.storage import read_manifest, read_table, shards
from support.built import clip, write_dataset
from support.hub_server import HubServer
from support.hub_traffic import Call
from support.media import write_video

REPO = "org/clips"
CLIPS = "abcdef"

PULL = """
import json, sys
from dataclasses import asdict
from civid_loader.errors import CividLoaderError
from civid_loader.hub.pull import pull
try:
    print("ready", flush=True)
    report = pull("org/clips", sys.argv[1], quiet=True, **json.loads(sys.argv[2]))
    print(json.dumps(asdict(report)))
except CividLoaderError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


def add_captions(root: Path, name: str, text: str) -> None:
    """A layer of captions."""
    captions = [[caption("short", text, "civid_loader:test")]] * len(CLIPS)
    rows = {"clip_id": list(CLIPS), "captions": captions, "transition_captions": None, "reason": None}
    rows |= {name: [None] * len(CLIPS) for name, values in rows.items() if values is None}
    table = pa.table(rows, schema=CAPTION_LAYER_FEATURES.arrow_schema)
    write_layer(root, name, {"train": [table]}, provenance={"fingerprint": text})


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a dataset as they are on the Hub."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "files").mkdir()
    for i, name in enumerate(CLIPS):
        write_video(folder / "files" / f"{name}.mp4", num_frames=10 + i)
    root = write_dataset(folder / "data", {"train": [[clip(name, f"{name}.mp4")] for name in CLIPS]})
    write_video_config(root, video_root=folder / "files", shard_bytes=3_000, quiet=True)
    add_captions(root, "captions-new", "new")
    (root / "statistics").mkdir()
    (root / "statistics" / "fps.png").write_bytes(b"png")
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return files | {"notes.txt": b"of the owner", "other/x.bin": b"of the owner"}


@pytest.fixture
def hub(tmp_path: Path, published: Mapping[str, bytes]) -> Iterator[HubServer]:
    with HubServer(tmp_path / "store") as server:
        server.create(REPO, is_private=True)
        server.write(REPO, published)
        yield server


def run(hub: HubServer, output: Path, *, token: str | None = "hf_reader", **options: Any) -> Any:
    """Pull in a process of its own; its report, or its error."""
    home = output.parent / "home"
    return hub.run(PULL, str(output), json.dumps(options), home=home, token=token)


def everything(root: Path) -> dict[str, bytes]:
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {path: data for path, data in found.items() if path not in (".pulled.json", "manifest.json")}


def wanted(published: Mapping[str, bytes], *, videos: bool = True) -> dict[str, bytes]:
    left_out = ("notes.txt", "other/x.bin", "manifest.json")
    return {
        path: data
        for path, data in published.items()
        if path not in left_out and (videos or not path.startswith("videos/"))
    }


def test_a_pulled_folder_works_like_a_built_one(tmp_path: Path, hub: HubServer, published: Mapping[str, bytes]) -> None:
    out = tmp_path / "out"
    report = run(hub, out)
    assert report["sha"] == hub.repo(REPO).at("main").oid
    assert report["tables"] == ["annotations", "captions/new", "media"]
    assert (report["num_files"], report["num_fetched"]) == (6, 6)
    assert everything(out) == wanted(published, videos=False)
    manifest, original = read_manifest(out), json.loads(published["manifest.json"])
    assert manifest["shards"] == {
        table: original["shards"][table] for table in ("annotations", "media", "captions/new")
    }
    assert manifest["layers"] == original["layers"]
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows[2]["clips"][0]["clip_id"] == "c"
    captions = datasets.load_dataset(str(out), "captions-new", split="train", cache_dir=str(tmp_path / "cache"))
    assert captions[0]["captions"][0]["text"] == "new"
    assert read_table(out)["sample_id"].to_pylist() == [f"lvd2m/ytb/train-{i}" for i in range(6)]
    probe_dataset(out, videos=tmp_path, quiet=True)


def test_videos_and_layers_come_when_asked_for(tmp_path: Path, hub: HubServer, published: Mapping[str, bytes]) -> None:
    out = tmp_path / "out"
    assert run(hub, out, layers=[])["tables"] == ["annotations"]
    assert run(hub, out, layers=["media"], with_videos=True)["tables"] == ["annotations", "media", "videos"]
    assert len(shards(out, "videos")) > 1
    report = run(hub, out)
    assert report["num_fetched"] == 2, "the manifest, and the layer that was not here"
    assert report["tables"] == ["annotations", "captions/new", "media", "videos"], "the videos are those of the commit"
    assert everything(out) == wanted(published)


def test_nothing_right_is_fetched_again(tmp_path: Path, hub: HubServer, published: Mapping[str, bytes]) -> None:
    out = tmp_path / "out"
    run(hub, out, with_videos=True)
    shard = out / next(path for path in published if path.startswith("videos/"))
    before = shard.stat()
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    (out / "mine.txt").write_text("mine")
    hub.forget_requests()
    report = run(hub, out, with_videos=True)
    assert report["num_fetched"] == 2
    downloads = {request.repo_path for request in hub.select("resolve") if request.method == "GET"}
    assert downloads == {"manifest.json", shard.relative_to(out).as_posix()}
    assert everything(out) == wanted(published) | {"mine.txt": b"mine"}


def test_a_new_revision_replaces_the_old_one(tmp_path: Path, hub: HubServer, published: Mapping[str, bytes]) -> None:
    out = tmp_path / "out"
    first = run(hub, out, with_videos=True)["sha"]
    add_captions(out, "captions-mine", "mine")
    (out / "annotations" / "notes.txt").write_text("mine")
    old = [path for path in published if path.startswith("videos/")]
    changed: dict[str, bytes | None] = dict.fromkeys(old)
    changed |= {path.replace(f"-{len(old):05d}.", "-00077."): published[path] for path in old}
    changed["captions/new/train-00000-of-00001.parquet"] = None
    manifest = json.loads(published["manifest.json"])
    manifest["shards"]["videos"] = [path.replace(f"-{len(old):05d}.", "-00077.") for path in old]
    for key in ("shards", "num_rows"):
        del manifest[key]["captions/new"]
    del manifest["layers"]["captions-new"]
    hub.write(REPO, changed | {"manifest.json": json.dumps(manifest).encode()})
    report = run(hub, out)
    assert set(report["removed"]) == {*old, "captions/new/train-00000-of-00001.parquet"}, (
        "videos of an old revision too"
    )
    assert report["tables"] == ["annotations", "media"]
    assert list(read_manifest(out)["shards"]) == ["annotations", "media", "captions/mine"]
    mine = datasets.load_dataset(str(out), "captions-mine", split="train", cache_dir=str(tmp_path / "cache"))
    assert mine[0]["captions"][0]["text"] == "mine"
    assert (out / "annotations" / "notes.txt").is_file()
    report = run(hub, out, revision=first, with_videos=True)
    assert report["sha"] == first
    assert "captions/mine" in read_manifest(out)["shards"]
    assert set(wanted(published)) < set(everything(out))


def test_a_killed_pull_is_continued(tmp_path: Path, hub: HubServer, published: Mapping[str, bytes]) -> None:
    out, options = tmp_path / "out", json.dumps({"with_videos": True})
    delays = random.Random(1)
    environment = os.environ | hub.environment(home=tmp_path / "home")
    is_slow = True
    hub.fail(lambda call: is_slow and call.kind == "resolve", times=1000, latency_seconds=0.1, bytes_per_second=2e4)
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", PULL, str(out), options], env=environment, stdout=subprocess.PIPE
        ) as client:
            assert client.stdout is not None
            client.stdout.readline()
            time.sleep(0.3 + delays.random() * 0.6)
            os.kill(client.pid, signal.SIGKILL)
            client.stdout.read()
        assert client.returncode == -signal.SIGKILL
        assert not (out / "manifest.json").exists()
        hub.wait_for_clients()
    is_slow = False
    run(hub, out, with_videos=True)
    assert everything(out) == wanted(published)
    assert not (out / ".incomplete-pull").exists()


def test_dropped_connections_do_no_harm(tmp_path: Path, hub: HubServer, published: Mapping[str, bytes]) -> None:
    def is_download(call: Call) -> bool:
        return call.kind == "resolve" and call.method == "GET"

    hub.fail(is_download, after=1, times=3, drop="body")
    hub.fail("tree", status=503)
    run(hub, tmp_path / "out", with_videos=True)
    assert everything(tmp_path / "out") == wanted(published)


def test_bytes_that_are_not_those_of_the_commit_are_refused(tmp_path: Path, hub: HubServer) -> None:
    path = "annotations/train-00000-of-00001.parquet"
    blob = hub.store.path(hub.repo(REPO).at("main").files[path].sha256)
    right = blob.read_bytes()
    blob.write_bytes(right[:-9] + b"x" + right[-8:])
    told = run(hub, tmp_path / "out")
    assert told["error"] == "HubError"
    assert f"{path} comes with other bytes" in told["message"]
    assert not (tmp_path / "out" / path).exists()
    blob.write_bytes(right)
    assert run(hub, tmp_path / "out")["num_files"] == 6
    assert (tmp_path / "out" / path).read_bytes() == right


def test_what_cannot_be_pulled_is_told(tmp_path: Path, hub: HubServer, published: Mapping[str, bytes]) -> None:
    out = tmp_path / "out"
    told = run(hub, out, token=None)
    assert told["error"] == "HubError"
    assert "private" in told["message"]
    assert "hf auth login" in told["message"]
    assert run(hub, out, revision="gone")["message"].startswith("org/clips: there is no revision 'gone'")
    told = run(hub, out, layers=["scores-x"])
    assert told == {"error": "LayerError", "message": "org/clips has no layer 'scores-x'; it has captions-new, media"}
    assert not out.exists(), "nothing is made before it is clear what"
    hub.write(REPO, {path: None for path in published if path.startswith("videos/")})
    assert "only its annotations were published" in run(hub, out, with_videos=True)["message"]
    hub.write(REPO, {"manifest.json": b"{}"})
    assert "not of this package" in run(hub, out)["message"]
    hub.write(REPO, {"manifest.json": None})
    assert "was not published by this package" in run(hub, out)["message"]


def test_names_of_repositories(tmp_path: Path, hub: HubServer) -> None:
    told = hub.run(PULL.replace("org/clips", "none"), str(tmp_path / "out"), "{}", home=tmp_path / "home")
    assert told["error"] == "HubError"
    assert told["message"].startswith("none: no name of a dataset on the Hub; it is org/name")
    assert not (tmp_path / "out").exists()
    for i, name in enumerate(("hf://datasets/org/clips", "hf://datasets/org/clips@main", "org/clips@main")):
        told = hub.run(PULL.replace("org/clips", name), str(tmp_path / str(i)), "{}", home=tmp_path / "home")
        assert (told["repo_id"], told["num_files"]) == (REPO, 6), told


def test_a_folder_with_something_else_is_refused(tmp_path: Path, hub: HubServer) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    assert "choose another folder" in run(hub, folder)["message"]
    assert "is a file" in run(hub, folder / "thesis.txt")["message"]
    own = write_dataset(tmp_path / "own", {"train": [[clip("a", "a.mp4")]]})
    assert "was not pulled from the Hub" in run(hub, own)["message"], "a build is not overwritten"
    pulled = tmp_path / "pulled"
    run(hub, pulled)
    record = json.loads((pulled / ".pulled.json").read_text())
    (pulled / ".pulled.json").write_text(json.dumps(record | {"repo_id": "org/other"}))
    assert "was pulled from org/other, not from org/clips" in run(hub, pulled)["message"]
    assert (folder / "thesis.txt").read_text() == "mine"
