"""The loopback Hub, used by the real clients in processes of their own."""

import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from support.hub_server import READER_TOKEN, STRANGER_TOKEN, HubServer
from support.hub_traffic import Call

PART_BYTES = 40_000
CLIP = bytes(range(256)) * 400
"""102,400 bytes: three parts."""
REPO = "org/clips"

PRELUDE = """
import io, json, sys, warnings
from pathlib import Path
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub import HfFileSystem, hf_hub_download, snapshot_download
warnings.simplefilter("ignore")
api, REPO, told = HfApi(), "org/clips", {}

def failure(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except Exception as error:
        return [type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)]
    return None
"""

STORY = """
folder = Path(sys.argv[1])
told["whoami"] = api.whoami()["name"]
told["url"] = str(api.create_repo(REPO, repo_type="dataset"))
told["again"] = failure(api.create_repo, REPO, repo_type="dataset")
api.create_repo(REPO, repo_type="dataset", exist_ok=True)
first = api.upload_folder(repo_id=REPO, repo_type="dataset", folder_path=folder, commit_message="first")
told["first"] = first.oid
told["files"] = api.list_repo_files(REPO, repo_type="dataset")
entries = {e.path: e for e in api.list_repo_tree(REPO, repo_type="dataset", recursive=True, expand=True)}
told["tree"] = sorted(entries)
told["lfs"] = [entries["video/a b.mp4"].lfs.sha256, entries["video/a b.mp4"].size, entries["notes.txt"].lfs]
told["info"] = [e.path for e in api.get_paths_info(REPO, ["video", "notes.txt", "gone"], repo_type="dataset")]
told["sha"] = api.dataset_info(REPO).sha
told["sizes"] = {s.rfilename: s.size for s in api.dataset_info(REPO, files_metadata=True).siblings}
told["downloaded"] = Path(hf_hub_download(REPO, "video/a b.mp4", repo_type="dataset")).stat().st_size
told["no file"] = failure(hf_hub_download, REPO, "gone.txt", repo_type="dataset")
told["no revision"] = failure(hf_hub_download, REPO, "notes.txt", repo_type="dataset", revision="gone")

api.create_branch(REPO, repo_type="dataset", branch="work/1")
told["branch again"] = failure(api.create_branch, REPO, repo_type="dataset", branch="work/1")
api.create_tag(REPO, repo_type="dataset", tag="v1", revision=first.oid)
second = api.create_commit(REPO, repo_type="dataset", commit_message="second", parent_commit=first.oid, operations=[
    CommitOperationAdd("notes.txt", b"new"), CommitOperationCopy("video/a b.mp4", "video/c.mp4"),
    CommitOperationDelete("old/"), CommitOperationDelete("data.bin")])
add = CommitOperationAdd("late.txt", b"late")
told["behind"] = failure(api.create_commit, REPO, [add], commit_message="late", parent_commit=first.oid,
                         repo_type="dataset")
told["delete missing"] = failure(api.delete_file, "gone.txt", REPO, repo_type="dataset")
api.upload_file(path_or_fileobj=b"on a branch", path_in_repo="branch.txt", repo_id=REPO, repo_type="dataset",
                revision="work/1")
pull = api.create_commit(REPO, [add], commit_message="proposal", repo_type="dataset", create_pr=True)
told["pull"] = [pull.pr_revision, pull.pr_num]
told["pull files"] = api.list_repo_files(REPO, repo_type="dataset", revision="refs/pr/1")
told["pull file"] = Path(hf_hub_download(REPO, "late.txt", repo_type="dataset", revision="refs/pr/1")).read_text()
refs = api.list_repo_refs(REPO, repo_type="dataset", include_pull_requests=True)
told["refs"] = [[ref.name for ref in part] for part in (refs.branches, refs.tags, refs.pull_requests)]
told["commits"] = [commit.title for commit in api.list_repo_commits(REPO, repo_type="dataset")]
told["now"] = api.list_repo_files(REPO, repo_type="dataset")
old = Path(snapshot_download(REPO, repo_type="dataset", revision="v1"))
told["old"] = {str(path.relative_to(old)): path.stat().st_size for path in old.rglob("*") if path.is_file()}
api.delete_tag(REPO, repo_type="dataset", tag="v1")
api.delete_branch(REPO, repo_type="dataset", branch="work/1")
told["no tag"] = failure(api.delete_tag, REPO, repo_type="dataset", tag="v1")

files = HfFileSystem()
with files.open(f"datasets/{REPO}/video/c.mp4", cache_type="none") as stream:
    stream.seek(1000)
    told["range"] = stream.read(16).hex()
told["glob"] = sorted(files.glob(f"datasets/{REPO}/video/*.mp4"))
print(json.dumps(told))
"""

REFUSALS = """
reader, stranger, wrong = sys.argv[1:]
make = dict(repo_id="org/secret", repo_type="dataset")
api.create_repo(**make, private=True)
add = dict(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="org/secret", repo_type="dataset")
api.upload_file(**add)
for name, token in {"anonymous": False, "stranger": stranger, "wrong": wrong, "reader": reader}.items():
    told[name] = [
        failure(api.dataset_info, "org/secret", token=token),
        failure(hf_hub_download, "org/secret", "x.txt", repo_type="dataset", token=token),
        failure(api.upload_file, **add, token=token),
        failure(api.create_repo, "org/other", repo_type="dataset", token=token),
    ]
told["missing"] = failure(api.dataset_info, "org/missing")
told["whoami"] = failure(api.whoami, token=wrong)
for name, text in {"broken": "a: [", "list": "- a", "config": "configs:\\n- split: x"}.items():
    told[name] = failure(api.upload_file, path_or_fileobj=f"---\\n{text}\\n---\\n".encode(), path_in_repo="README.md",
                         repo_id="org/secret", repo_type="dataset")
api.delete_repo("org/secret", repo_type="dataset")
told["deleted"] = failure(api.dataset_info, "org/secret")
print(json.dumps(told))
"""

DATASET = """
from datasets import Dataset, load_dataset
rows = Dataset.from_dict({"id": list(range(100)), "text": [f"clip {n}" for n in range(100)]})
rows.push_to_hub(REPO, num_shards=3)
told["map"] = [load_dataset(REPO, split="train")[99]["text"], len(load_dataset(REPO, split="train"))]
told["stream"] = [row["id"] for row in load_dataset(REPO, split="train", streaming=True)] == list(range(100))
told["files"] = api.list_repo_files(REPO, repo_type="dataset")
print(json.dumps(told))
"""

ROUGH = """
folder = Path(sys.argv[1])
api.create_repo(REPO, repo_type="dataset")
api.upload_folder(repo_id=REPO, repo_type="dataset", folder_path=folder)
add = dict(path_in_repo="a.txt", repo_id=REPO, repo_type="dataset")
told["lost"] = failure(api.upload_file, path_or_fileobj=b"lost", **add)
told["conflict"] = failure(api.upload_file, path_or_fileobj=b"conflict", **add)
told["refused"] = failure(api.upload_file, path_or_fileobj=b"refused", **add)
told["same"] = Path(hf_hub_download(REPO, "one.mp4", repo_type="dataset")).read_bytes() == bytes(range(256)) * 400
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HubServer, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("hub")
    local = folder / "local"
    for path, data in {"notes.txt": b"old", "video/a b.mp4": CLIP, "data.bin": b"bin", "old/x/y.txt": b"y"}.items():
        (local / path).parent.mkdir(parents=True, exist_ok=True)
        (local / path).write_bytes(data)
    with HubServer(folder / "store", part_bytes=PART_BYTES, page_size=2) as hub:
        yield hub, hub.run(PRELUDE + STORY, str(local), home=folder / "home")


def test_repositories_and_trees(story: tuple[HubServer, dict[str, Any]]) -> None:
    hub, told = story
    assert told["whoami"] == "maker"
    assert told["url"] == f"{hub.endpoint}/datasets/{REPO}"
    assert told["again"] == ["HfHubHTTPError", 409]
    assert told["files"] == [".gitattributes", "data.bin", "notes.txt", "old/x/y.txt", "video/a b.mp4"]
    assert told["tree"] == sorted([*told["files"], "old", "old/x", "video"])
    assert told["lfs"] == [sha256(CLIP).hexdigest(), len(CLIP), None]
    assert told["info"] == ["video", "notes.txt"]
    assert told["sha"] == told["first"]
    assert told["sizes"]["video/a b.mp4"] == len(CLIP)


def test_commits_are_snapshots(story: tuple[HubServer, dict[str, Any]]) -> None:
    hub, told = story
    assert told["behind"] == ["HfHubHTTPError", 412]
    assert told["delete missing"] == ["RemoteEntryNotFoundError", 404]
    assert told["commits"] == ["second", "first", "initial commit"]
    assert told["now"] == [".gitattributes", "notes.txt", "video/a b.mp4", "video/c.mp4"]
    assert told["old"] == {
        ".gitattributes": 46,
        "data.bin": 3,
        "notes.txt": 3,
        "old/x/y.txt": 1,
        "video/a b.mp4": 102400,
    }
    assert hub.read(REPO, "notes.txt") == b"new"
    assert hub.read(REPO, "notes.txt", revision=told["first"][:7]) == b"old"


def test_refs(story: tuple[HubServer, dict[str, Any]]) -> None:
    hub, told = story
    assert told["refs"] == [["main", "work/1"], ["v1"], ["pr/1"]]
    assert told["branch again"] == ["HfHubHTTPError", 409]
    assert told["no tag"] == ["RevisionNotFoundError", 404]
    assert told["pull"] == ["refs/pr/1", 1]
    assert told["pull files"] == sorted([*told["now"], "late.txt"])
    assert told["pull file"] == "late"
    assert list(hub.repo(REPO).branches) == ["main"]


def test_downloads(story: tuple[HubServer, dict[str, Any]]) -> None:
    _, told = story
    assert told["downloaded"] == len(CLIP)
    assert told["no file"] == ["RemoteEntryNotFoundError", 404]
    assert told["no revision"] == ["RevisionNotFoundError", 404]
    assert told["range"] == CLIP[1000:1016].hex()
    assert told["glob"] == [f"datasets/{REPO}/video/a b.mp4", f"datasets/{REPO}/video/c.mp4"]


def test_what_was_sent_is_counted(story: tuple[HubServer, dict[str, Any]]) -> None:
    hub, _ = story
    uploads = hub.select("lfs-upload", path="video/a b.mp4")
    assert [request.num_bytes_received for request in uploads] == [PART_BYTES, PART_BYTES, len(CLIP) - 2 * PART_BYTES]
    assert not any(request.has_token for request in uploads)
    assert hub.bytes_received("lfs-upload") == len(CLIP) + 3
    assert hub.bytes_received("lfs-upload", path="data.bin") == 3
    # hf_hub_download, one range, and nothing for the snapshot, whose blob was in the cache.
    assert hub.bytes_sent("resolve", path="video/a b.mp4") == len(CLIP)
    assert hub.bytes_sent("resolve", path="video/c.mp4") == 16
    assert hub.count("lfs-complete") == 1
    assert hub.count("commit") == 6
    assert hub.count("tree") > 6


def test_refusals(tmp_path: Path) -> None:
    with HubServer(tmp_path / "store") as hub:
        told = hub.run(PRELUDE + REFUSALS, READER_TOKEN, STRANGER_TOKEN, "hf_wrong", home=tmp_path / "home")
    assert told["anonymous"] == [["RepositoryNotFoundError", 401]] * 4
    assert told["reader"] == [None, None, ["HfHubHTTPError", 403], ["HfHubHTTPError", 403]]
    assert told["stranger"] == [["RepositoryNotFoundError", 404]] * 3 + [["HfHubHTTPError", 403]]
    assert told["wrong"] == [["HfHubHTTPError", 401]] * 4
    assert told["missing"] == told["deleted"] == ["RepositoryNotFoundError", 404]
    assert told["whoami"] == ["HfHubHTTPError", 401]
    assert told["broken"][0] == told["list"][0] == told["config"][0] == "ValueError"


def test_datasets_go_up_and_come_back(tmp_path: Path) -> None:
    with HubServer(tmp_path / "store") as hub:
        told = hub.run(PRELUDE + DATASET, home=tmp_path / "home")
    assert told["map"] == ["clip 99", 100]
    assert told["stream"]
    assert told["files"][2:] == [f"data/train-{n:05d}-of-00003.parquet" for n in range(3)]


def test_clients_live_through_faults(tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    (local / "one.mp4").write_bytes(CLIP)
    with HubServer(tmp_path / "store") as hub:
        hub.fail("preupload", drop="request")
        hub.fail("lfs-batch", status=429, retry_after_seconds=0)
        hub.fail("lfs-upload", drop="upload")
        hub.fail("lfs-upload", after=1, status=503)
        hub.fail("resolve", after=1, drop="body")  # After the HEAD.
        hub.fail("commit", after=1, drop="answer")
        hub.fail("commit", after=2, status=412)
        hub.fail("commit", after=3, status=429, rate_limit_reset_seconds=0)
        told = hub.run(PRELUDE + ROUGH, str(local), home=tmp_path / "home")
        assert told == {
            "lost": ["RemoteProtocolError", None],
            "conflict": ["HfHubHTTPError", 412],
            "refused": ["HfHubHTTPError", 429],
            "same": True,
        }
        assert hub.read(REPO, "a.txt") == b"lost"
        uploads = hub.select("lfs-upload", path="one.mp4")
        assert [request.status for request in uploads] == [0, 503, 200]
        assert [request.num_bytes_received for request in uploads[1:]] == [len(CLIP), len(CLIP)]
        downloads = [request for request in hub.select("resolve", path="one.mp4") if request.method == "GET"]
        # The client keeps whole pieces of 10 MB only: half of a small file is fetched again.
        assert [request.num_bytes_sent for request in downloads] == [len(CLIP) // 2, len(CLIP)]


def ask(hub: HubServer, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path) as hub:
        hub.create(REPO)
        hub.write(REPO, {"a.mp4": CLIP, "b.txt": b"b"})
        yield hub


FILE = f"/datasets/{REPO}/resolve/main/a.mp4"


def test_ranges(filled: HubServer) -> None:
    assert ask(filled, "GET", FILE, Range="bytes=5-9") == (206, CLIP[5:10])
    assert ask(filled, "GET", FILE, Range="bytes=102390-") == (206, CLIP[-10:])
    assert ask(filled, "GET", FILE, Range="bytes=-4") == (206, CLIP[-4:])
    assert ask(filled, "GET", FILE, Range="bytes=102400-")[0] == 416


def test_faults_come_after_some_and_for_some(filled: HubServer) -> None:
    filled.fail("resolve", after=1, times=2, status=502)
    filled.fail(lambda call: call.parts.get("path") == "b.txt", status=403)
    assert [ask(filled, "GET", FILE)[0] for _ in range(4)] == [200, 502, 502, 200]
    assert ask(filled, "GET", FILE.replace("a.mp4", "b.txt"))[0] == 403
    assert ask(filled, "GET", FILE.replace("a.mp4", "b.txt"))[0] == 200
    filled.forget_requests()
    assert filled.requests == []


def test_dropped_connections(filled: HubServer) -> None:
    filled.fail("resolve", drop="request")
    filled.fail("resolve", after=1, drop="body")
    with pytest.raises(http.client.RemoteDisconnected):
        ask(filled, "GET", FILE)
    with pytest.raises(http.client.IncompleteRead):
        ask(filled, "GET", FILE)
    assert [(request.status, request.num_bytes_sent) for request in filled.requests] == [(0, 0), (200, len(CLIP) // 2)]


def test_slow_and_late_answers(filled: HubServer) -> None:
    filled.fail("resolve", bytes_per_second=400_000.0)
    filled.fail("info", latency_seconds=0.3)
    begun_seconds = time.monotonic()
    ask(filled, "GET", FILE)
    assert 0.25 < time.monotonic() - begun_seconds < 5
    begun_seconds = time.monotonic()
    ask(filled, "GET", f"/api/datasets/{REPO}")
    assert time.monotonic() - begun_seconds > 0.25


def test_a_wrong_upload_is_refused(filled: HubServer) -> None:
    path = f"/lfs/datasets/{REPO}/{'0' * 64}"
    assert ask(filled, "PUT", path, b"not that")[0] == 400
    assert not list(filled.store.folder.glob("incoming*"))
    lines = [{"key": "header", "value": {"summary": "x"}}]
    lines.append({"key": "lfsFile", "value": {"path": "x.mp4", "algo": "sha256", "oid": "0" * 64, "size": 8}})
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    assert ask(filled, "POST", f"/api/datasets/{REPO}/commit/main", body, Authorization="Bearer hf_writer")[0] == 400


def test_a_killed_client_leaves_the_hub_alive(tmp_path: Path) -> None:
    script = PRELUDE + "api.create_repo(REPO, repo_type='dataset')\n"
    script += "api.upload_file(path_or_fileobj=bytes(9999), path_in_repo='a.mp4', repo_id=REPO, repo_type='dataset')"
    with HubServer(tmp_path / "store") as hub:
        clients: list[subprocess.Popen[bytes]] = []

        def kill(call: Call) -> None:
            call.body.read()
            os.kill(clients[0].pid, signal.SIGKILL)

        hub.fail("commit", action=kill)
        environment = os.environ | hub.environment(home=tmp_path / "home")
        with subprocess.Popen([sys.executable, "-c", script], env=environment) as client:
            clients.append(client)
        assert client.returncode == -signal.SIGKILL
        hub.wait_for_clients()
        assert hub.bytes_received("lfs-upload") == 9999
        # The commit had arrived: it counts.
        assert len(hub.read(REPO, "a.mp4")) == 9999


XET = """
folder = Path(sys.argv[1])
api.create_repo(REPO, repo_type="dataset")
told["oid"] = api.upload_folder(repo_id=REPO, repo_type="dataset", folder_path=folder).oid
told["again"] = api.upload_folder(repo_id=REPO, repo_type="dataset", folder_path=folder).oid
told["same"] = Path(hf_hub_download(REPO, "one.mp4", repo_type="dataset")).read_bytes() == bytes(range(256)) * 400
pull = api.upload_folder(repo_id=REPO, repo_type="dataset", folder_path=folder, path_in_repo="copy", create_pr=True)
told["pull"] = pull.pr_revision
print(json.dumps(told))
"""


@pytest.mark.skipif(importlib.util.find_spec("hf_xet") is None, reason="hf_xet is not installed")
def test_xet_uploads_pass_the_server_by(tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    (local / "one.mp4").write_bytes(CLIP)
    (local / "b.txt").write_bytes(b"b")
    with HubServer(tmp_path / "store", is_xet=True) as hub:
        told = hub.run(PRELUDE + XET, str(local), home=tmp_path / "home")
        assert hub.store.xet is not None
        assert 0 < hub.store.xet.num_bytes < 2 * len(CLIP)
        assert hub.read(REPO, "copy/one.mp4", revision="refs/pr/1") == CLIP
        assert hub.count("lfs-upload") == hub.count("lfs-batch") == 0
        assert hub.count("commit") == 2
    assert told == {"oid": told["again"], "again": told["oid"], "same": True, "pull": "refs/pr/1"}
