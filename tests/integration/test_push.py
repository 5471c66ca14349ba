"""Publishing to a Hub: what goes up, what it costs, what faults and kills do to it, what is refused."""

import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Features, Value

from civid_loader.layers import write_layer
from civid_loader.schema import CAPTION_LAYER_FEATURES, SAMPLE_FEATURES, arrow_schema_of, caption
from civid_loader.storage import read_manifest, shards, write_json
from civid_loader.video_shards import write_video_shard
from support.built import clip, write_dataset
from support.hub_server import READER_TOKEN, STRANGER_TOKEN, HubServer
from support.hub_traffic import Call, Kind
from support.pushing import push, push_each, read, start_push

REPO = "org/set"
OTHER = b'{"name": "civid", "shards": {}, "num_rows": {}}'
NUM_CLIPS = 12
SCORES = Features({"clip_id": Value("string"), "flow_mean_px": Value("float64")})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def dataset(root: Path, *, num_clips: int = NUM_CLIPS) -> Path:
    """Two splits, a layer of scores."""
    clips = [[clip(f"c{i}", f"{i}.mp4")] for i in range(num_clips)]
    write_dataset(root, {"train": clips[:-2], "test": clips[-2:]})
    rows = [{"clip_id": f"c{i}", "flow_mean_px": i / 2} for i in range(num_clips)]
    put(root, "scores-x", SCORES, {"train": rows[:-2], "test": rows[-2:]})
    return root


def put(root: Path, name: str, features: Features, rows: dict[str, list[dict[str, Any]]]) -> None:
    tables = {split: [pa.Table.from_pylist(part, schema=arrow_schema_of(features))] for split, part in rows.items()}
    write_layer(root, name, tables, features=features, provenance={"fingerprint": "0" * 16})


def recaption(root: Path, name: str, *, text: str = "a new text", num_clips: int = NUM_CLIPS) -> None:
    rows = [
        {
            "clip_id": f"c{i}",
            "captions": [caption("refined", f"{text} {i}", "me")],
            "transition_captions": [],
            "reason": None,
        }
        for i in range(num_clips)
    ]
    put(root, name, CAPTION_LAYER_FEATURES, {"train": rows[:-2], "test": rows[-2:]})


def check_whole(hub: HubServer, root: Path, repo: str = REPO, *, branch: str = "main") -> None:
    """Every shard of the folder is on the Hub as it is here, and no other."""
    files = hub.repo(repo).at(branch).files
    own = [path.relative_to(root).as_posix() for table in read_manifest(root)["shards"] for path in shards(root, table)]
    assert sorted(path for path in files if path.endswith(".parquet")) == sorted(own)
    assert all(hub.read(repo, path, revision=branch) == (root / path).read_bytes() for path in own)


def uploads(hub: HubServer) -> list[str | None]:
    """Blobs that arrived whole."""
    return [one.oid for one in hub.select("lfs-upload") if one.status == 200]


@pytest.mark.parametrize("is_xet", [False, True])
def test_stock_datasets_read_every_config(tmp_path: Path, home: Path, is_xet: bool) -> None:
    root = dataset(tmp_path / "set")
    with HubServer(tmp_path / "store", is_xet=is_xet) as hub:
        report = push(hub, root, REPO, home)
        assert report["num_commits"] == 1
        assert report["is_private"]
        assert hub.repo(REPO).is_private
        assert report["num_files"]["default"] == 2
        check_whole(hub, root)
        assert "manifest.json" in hub.repo(REPO).at("main").files
        samples = read(hub, REPO, "default", tmp_path / "reader")
        assert samples["train False"] == samples["train True"]
        assert samples["train True"]["features"] == str(SAMPLE_FEATURES)
        assert [row["sample_id"] for row in samples["test True"]["rows"]] == ["lvd2m/ytb/test-0", "lvd2m/ytb/test-1"]
        scores = read(hub, REPO, "scores-x", tmp_path / "reader")
        assert scores["test False"]["rows"] == [
            {"clip_id": "c10", "flow_mean_px": 5.0},
            {"clip_id": "c11", "flow_mean_px": 5.5},
        ]
        hub.forget_requests()
        again = push(hub, root, REPO, home)
        assert (again["num_commits"], again["num_bytes"]) == (0, {})
        assert not uploads(hub)


def test_a_new_layer_costs_its_own_bytes_and_is_never_half_there(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    with HubServer(tmp_path / "store") as hub:
        first = push(hub, root, REPO, home)["sha"]
        recaption(root, "captions-new")
        hub.forget_requests()
        report = push(hub, root, REPO, home, layers=["captions-new"])
        assert report["num_commits"] == 1
        assert report["num_files"].keys() == {"", "captions-new"}, "card, pictures, manifest; and the layer"
        sent = hub.bytes_received("lfs-upload")
        assert (
            sent
            == report["num_bytes"]["captions-new"]
            == sum(path.stat().st_size for path in shards(root, "captions/new"))
        )
        check_whole(hub, root)
        old, new = (hub.repo(REPO).at(revision).files for revision in (first, "main"))
        added = {path for path in set(new) - set(old) if not path.startswith("statistics/")}
        assert added == {f"captions/new/{split}-00000-of-00001.parquet" for split in ("test", "train")}
        assert "captions-new" not in hub.read(REPO, "README.md", revision=first).decode()
        texts = read(hub, REPO, "captions-new", tmp_path / "reader")["train False"]["rows"]
        assert texts[3]["captions"][0]["text"] == "a new text 3"


def test_a_replaced_layer_leaves_no_old_shard(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    with HubServer(tmp_path / "store") as hub:
        recaption(root, "captions-new")
        push(hub, root, REPO, home)
        hub.write(REPO, {"captions/new/train-00001-of-00002.parquet": b"stale", "notes/own.txt": b"mine"})
        recaption(root, "captions-new", text="yet another")
        report = push(hub, root, REPO, home, layers=["captions-new"])
        assert report["deleted"] == ["captions/new/train-00001-of-00002.parquet"]
        assert report["num_commits"] == 1
        check_whole(hub, root)
        assert hub.read(REPO, "notes/own.txt") == b"mine"


UNFINISHED = """
import json, sys
from datasets import load_dataset
repo, revision = json.loads(sys.argv[1])
try:
    told = str(load_dataset(repo, revision=revision))
except (OSError, ValueError) as error:
    told = str(error)
print(json.dumps(told))
"""

FAULTS: dict[str, dict[str, Any]] = {
    "429": {"status": 429, "retry_after_seconds": 1},
    "500": {"status": 500},
    "502": {"status": 502},
    "connection lost": {"drop": "request"},
    "answer lost": {"drop": "answer"},
    "address too old": {"status": 403},
    "412": {"status": 412},
    "slow": {"bytes_per_second": 2e5},
}
_ALL = ("429", "500", "502", "connection lost", "answer lost")
PHASES: dict[Kind, tuple[str, ...]] = {
    "info": _ALL,
    "create": _ALL,
    "branch": ("500", "answer lost"),
    "preupload": _ALL,
    "lfs-batch": _ALL,
    "lfs-upload": (*_ALL, "address too old", "slow"),
    "lfs-complete": ("500", "answer lost"),
    "lfs-verify": ("500", "answer lost"),
    "validate-yaml": ("500", "answer lost"),
    "commit": (*_ALL, "412", "slow"),
    "tree": _ALL,
}
AFTER: tuple[Kind, ...] = ("info", "tree", "resolve")
"""Phases of the check after the commit."""


def test_faults_pass(tmp_path: Path, home: Path) -> None:
    """Every fault in every phase, each at the push of a repository of its own."""
    root = dataset(tmp_path / "set")
    matrix = [(phase, fault, False) for phase, faults in PHASES.items() for fault in faults]
    matrix += [(phase, fault, True) for phase in AFTER for fault in ("429", "500", "connection lost")]
    branches = ["next" if phase == "branch" else "main" for phase, _, _ in matrix]
    current = -1

    def place(call: Call) -> int:
        """The number of the push that a request is of: of the last one that was named."""
        nonlocal current
        named = re.search(r"org/f-(\d+)", call.path)
        current = int(named[1]) if named else current
        return current

    arrived: dict[int, list[str]] = {i: [] for i in range(len(matrix))}
    committed: set[int] = set()
    struck: set[int] = set()
    with HubServer(tmp_path / "store", part_bytes=40_000) as hub:

        def strikes(number: int, phase: Kind, is_after: bool) -> Callable[[Call], bool]:
            def is_now(call: Call) -> bool:
                is_it = place(call) == number and call.kind == phase and (not is_after or number in committed)
                struck.update({number} if is_it else ())
                return is_it

            return is_now

        def look(call: Call) -> bool:
            """Never strikes: it notes what passes."""
            if call.kind == "lfs-upload":
                arrived[place(call)].append(call.path)
            committed.update({place(call)} if call.kind == "commit" else ())
            return False

        for i, (phase, fault, is_after) in enumerate(matrix):
            hub.fail(strikes(i, phase, is_after), **FAULTS[fault])
        hub.fail(look)
        pushes = [(f"org/f-{i}", {"branch": branch}) for i, branch in enumerate(branches)]
        reports = push_each(hub, root, pushes, home)
        assert struck == set(range(len(matrix)))
        for i, (case, report) in enumerate(zip(matrix, reports, strict=True)):
            assert "error" not in report, (case, report)
            check_whole(hub, root, f"org/f-{i}", branch=branches[i])
            repo = hub.repo(f"org/f-{i}")
            titles = [one.title for one in repo.history(repo.at(branches[i]))]
            assert len(titles) == 2, f"{case}: one commit, and the one that made the repository: {titles}"
            resent = len(arrived[i]) - len(set(arrived[i]))
            assert resent <= (case[0] == "lfs-upload"), f"{case}: nothing is sent again but what failed"


def test_somebody_else_pushes_in_between(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    with HubServer(tmp_path / "store") as hub:
        push(hub, root, REPO, home)
        recaption(root, "captions-new")

        def pushes(_: Call) -> None:
            hub.write(REPO, {"notes.txt": b"theirs"})

        hub.fail("commit", action=pushes)
        report = push(hub, root, REPO, home, layers=["captions-new"])
        assert report["num_commits"] == 1
        check_whole(hub, root)
        assert hub.read(REPO, "notes.txt") == b"theirs"


def test_a_fault_that_lasts_ends_with_a_message_and_a_rerun_finishes(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    with HubServer(tmp_path / "store") as hub:
        hub.fail("commit", times=100, status=503)
        assert push(hub, root, REPO, home)["error"].startswith(
            f"HubError: {REPO} at revision 'main': the Hub has a problem"
        )
        assert not any(path.endswith(".parquet") for path in hub.repo(REPO).at("main").files)
        hub.faults.clear()
        first = set(uploads(hub))
        hub.forget_requests()
        push(hub, root, REPO, home)
        assert not set(uploads(hub)) & first, "what had gone up is not sent again"
        check_whole(hub, root)


def test_killed_at_any_moment(tmp_path: Path, home: Path) -> None:
    """Ten kills, each at another request; the next try goes on, and readers never see a half."""
    root = dataset(tmp_path / "set")
    recaption(root, "captions-new")
    rng = random.Random(7)
    with HubServer(tmp_path / "store") as hub:
        hub.create(REPO, is_private=True)
        for kill in range(10):
            process = start_push(hub, root, REPO, home)
            before, wanted = len(hub.requests), rng.randrange(1, 25)
            limit = time.monotonic() + 60
            while process.poll() is None and len(hub.requests) - before < wanted and time.monotonic() < limit:
                time.sleep(0.005)
            process.kill()
            process.wait()
            hub.wait_for_clients()
            tables = {path.rpartition("/")[0] for path in hub.repo(REPO).at("main").files if path.endswith(".parquet")}
            assert tables in (set(), {"annotations", "scores/x", "captions/new"}), f"after kill {kill}"
        report = push(hub, root, REPO, home)
        assert "error" not in report
        check_whole(hub, root)
        whole = uploads(hub)
        assert len(whole) == len(set(whole)), "no byte twice"


def test_very_many_files_go_up_bit_by_bit_and_unseen(tmp_path: Path, home: Path) -> None:
    root = write_dataset(tmp_path / "set", {"train": [[clip(f"c{i}", f"videos:c{i}")] for i in range(600)]})
    names = [f"videos/train-{i:05d}-of-00600.parquet" for i in range(600)]
    for i, name in enumerate(names):
        write_video_shard(root / name, [(f"c{i}", f"clip {i}".encode())])
    manifest = read_manifest(root)
    manifest["shards"]["videos"], manifest["num_rows"]["videos"] = names, {"train": 600}
    write_json(root / "manifest.json", manifest)
    with HubServer(tmp_path / "store") as hub:
        assert push(hub, root, REPO, home, with_videos=True, has_permission=True)["num_commits"] == 8
        check_whole(hub, root)
        history = list(hub.repo(REPO).history(hub.repo(REPO).at("main")))
        num_shards = [sum(path.startswith("videos/") for path in one.files) for one in history]
        assert num_shards == [600, 599, 499, 399, 299, 199, 99, 0, 0], "the annotations are one of the first hundred"
        cards = [hub.read(REPO, "README.md", revision=one.oid).decode() for one in history[:8]]
        assert ["config_name: videos" in card for card in cards] == [True] + 7 * [False], "told of when all are there"
        assert all("civid-push-is-not-finished" in card for card in cards[1:])
        assert "civid-push-is-not-finished" not in cards[0]
        half = hub.run(UNFINISHED, json.dumps([REPO, history[1].oid]), home=tmp_path / "reader")
        assert "civid-push-is-not-finished" in half, "an error, and not a half"


def test_what_the_terms_forbid(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    with HubServer(tmp_path / "store") as hub:
        for name, what in (("is_public", "a public repository"), ("with_videos", "uploading videos")):
            (report,) = push_each(hub, root, [(REPO, {name: True})], home)
            error = report["error"]
            assert error.startswith(f"LicenseError: the terms of the data (hdvila-research) do not allow {what}")
            assert "HD-VG part is for academic use and must not be distributed" in error
            assert "--i-have-permission" in error
        assert not hub.requests, "nobody was asked before"
        hub.create("org/open")
        assert "LicenseError" in push(hub, root, "org/open", home)["error"], "one that is public already"
        assert not uploads(hub)
        report = push(hub, root, REPO, home, is_public=True, has_permission=True)
        assert not report["is_private"]
        assert not hub.repo(REPO).is_private


def test_only_tables_go_up(tmp_path: Path, home: Path) -> None:
    """Never what lies beside them: portraits, rejected rows, anything of the user's."""
    root = dataset(tmp_path / "set")
    for name in ("portraits/hero.jpg", "rejected/rows.jsonl", "videos.mp4", "secret.txt", ".env"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"private")
    with HubServer(tmp_path / "store") as hub:
        push(hub, root, REPO, home)
        files = hub.repo(REPO).at("main").files
    pictures = {path for path in files if path.endswith(".png")}
    assert set(files) - pictures == {
        ".gitattributes", "README.md", "manifest.json",
        *(path.relative_to(root).as_posix() for table in ("annotations", "scores/x") for path in shards(root, table)),
    }  # fmt: skip


def test_a_dry_run_changes_nothing(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    with HubServer(tmp_path / "store") as hub:
        report = push(hub, root, REPO, home, dry_run=True)
        assert report["sha"] is None
        assert report["num_files"]["default"] == 2
        assert {one.method for one in hub.requests} <= {"GET", "HEAD"}
        push(hub, root, REPO, home)
        assert push(hub, root, REPO, home, dry_run=True, branch="next")["num_bytes"] == {}
        assert "next" not in hub.repo(REPO).branches


def test_another_branch(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    with HubServer(tmp_path / "store") as hub:
        push(hub, root, REPO, home, branch="next")
        assert not any(path.endswith(".parquet") for path in hub.repo(REPO).at("main").files)
        assert read(hub, REPO, "scores-x", tmp_path / "reader", revision="next")["train False"]["rows"]


def test_a_card_edited_by_hand_keeps_what_was_written(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    with HubServer(tmp_path / "store") as hub:
        push(hub, root, REPO, home)
        text = hub.read(REPO, "README.md").decode()
        edited = text.replace("---\n", "---\nviewer: false\n", 1) + "\n## From our group\n\nAsk Ada.\n"
        hub.write(REPO, {"README.md": edited.encode()})
        recaption(root, "captions-new")
        push(hub, root, REPO, home, layers=["captions-new"])
        after = hub.read(REPO, "README.md").decode()
    assert "viewer: false" in after
    assert "## From our group\n\nAsk Ada." in after
    assert "captions-new" in after


def test_messages(tmp_path: Path, home: Path) -> None:
    root = dataset(tmp_path / "set")
    with HubServer(tmp_path / "store") as hub:
        held = {"csv": ("data/train.csv", b"a"), "broken": ("manifest.json", b"{"), "other": ("manifest.json", OTHER)}
        for name, (path, content) in held.items():
            hub.create(f"org/{name}", is_private=True)
            hub.write(f"org/{name}", {path: content})
        hub.create("org/empty", is_private=True)
        cases: list[tuple[str, dict[str, Any], str]] = [
            (REPO, {"token": "hf_wrong_token_1234"}, "does not accept the token; log in again"),
            (REPO, {"token": READER_TOKEN}, "the token may not do this; use one with write access"),
            ("org/csv", {"token": STRANGER_TOKEN}, "the token may not do this|no such dataset on the Hub"),
            ("org/csv", {}, r"holds other data \(data/train.csv\)"),
            ("org/broken", {}, "its manifest.json is no JSON"),
            ("org/other", {}, "holds the dataset 'civid', this folder 'lvd2m'"),
            ("org/empty", {"layers": ["scores-x"]}, "has no annotations yet"),
            ("org/empty", {"layers": ["scores-y"]}, "has no layer 'scores-y'; it has scores-x"),
            ("no such name!", {}, "a repository is named org/name"),
        ]
        told = push_each(hub, root, [(repo, settings) for repo, settings, _ in cases], home)
        for (repo, settings, message), report in zip(cases, told, strict=True):
            assert re.search(message, report.get("error", "")), (repo, settings, report)
            assert settings.get("token", "no token") not in report["error"]
        assert "logged in" in push(hub, root, REPO, tmp_path / "nobody", token=None)["error"]
