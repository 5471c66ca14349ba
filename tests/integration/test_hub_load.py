"""`load` from the Hub: the rows of a folder, few bytes, and messages that help and never show a token."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Features, Value

from civid_loader.layers import write_layer
from civid_loader.schema import CAPTION_LAYER_FEATURES, TABLES, arrow_schema, arrow_schema_of, caption, empty_sample
from civid_loader.storage import read_manifest, shards, write_json, write_shard
from support.built import clip, write_dataset
from support.hub_server import READER_TOKEN, STRANGER_TOKEN, WRITER_TOKEN, HubServer
from support.pushing import push, push_each

REPO = "org/set"
WRONG_TOKEN = "hf_wrong_token_1234"
SCORES = Features({"clip_id": Value("string"), "flow_mean_px": Value("float64"), "reason": Value("string")})
NUM_SAMPLES = 7

LOAD = """
import json, sys, warnings
warnings.simplefilter("ignore")
from civid_loader.errors import CividLoaderError
from civid_loader.hub.loading import load
told = []
for where, settings in json.loads(sys.argv[1]):
    try:
        rows = load(where, quiet=True, **settings)
        told.append({"rows": rows.to_list(), "features": str(rows.features), "file": rows.cache_files[0]["filename"]})
    except (CividLoaderError, ValueError) as error:
        told.append({"error": f"{type(error).__name__}: {error}"})
print(json.dumps(told, default=str))
"""

STREAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
sys.modules["civid_loader"] = None
from datasets import load_dataset
rows = load_dataset(sys.argv[1], split="train", streaming=True, columns=["sample_id", "clips"])
print(json.dumps([[row["sample_id"], [one["captions"] for one in row["clips"]]] for row in rows]))
"""

STOCK_PUSH = """
import json, sys, warnings
warnings.simplefilter("ignore")
sys.modules["civid_loader"] = None
from datasets import load_dataset
repo = sys.argv[1]
load_dataset(repo, split="train").select(range(3)).push_to_hub(repo)
load_dataset(repo, "scores-x", split="test").push_to_hub(repo, "scores-x", split="test")
print("{}")
"""

DEBUG = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
import datasets, huggingface_hub
datasets.logging.set_verbosity_debug()
huggingface_hub.logging.set_verbosity_debug()
from civid_loader.errors import HubError
from civid_loader.hub.loading import load
from civid_loader.hub.push import push_to_hub
repo, token, folder = sys.argv[1], sys.argv[2] or None, sys.argv[3]
for work in (lambda: load(repo, layers=["scores-x"], token=token), lambda: push_to_hub(folder, repo, token=token)):
    try:
        work()
    except HubError:
        logging.exception("refused")
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits, samples of two clips, a layer in another order and with gaps, captions anew."""
    root = tmp_path_factory.mktemp("local") / "set"
    samples = [[clip(f"c{i}a", f"{i}a.mp4"), clip(f"c{i}b", None)] for i in range(NUM_SAMPLES)]
    write_dataset(root, {"train": samples[:5], "test": samples[5:]})
    ids = {"train": [f"c{i}{k}" for i in range(5) for k in "ab"], "test": [f"c{i}{k}" for i in (5, 6) for k in "ab"]}
    scores = {
        split: [{"clip_id": one, "flow_mean_px": len(of) / 3, "reason": None} for one in of[::-1][1:]]
        for split, of in ids.items()
    }
    put(root, "scores-x", SCORES, scores)
    recaption(root, ids, text="new")
    return root


@pytest.fixture(scope="module")
def hub(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """With that dataset."""
    folder = tmp_path_factory.mktemp("hub")
    with HubServer(folder / "store") as hub:
        assert "error" not in push(hub, root, REPO, folder / "maker")
        yield hub


def put(root: Path, name: str, features: Features, rows: dict[str, list[dict[str, Any]]]) -> None:
    tables = {split: [pa.Table.from_pylist(part, schema=arrow_schema_of(features))] for split, part in rows.items()}
    write_layer(root, name, tables, features=features, provenance={"fingerprint": "0" * 16})


def recaption(root: Path, ids: dict[str, list[str]], *, text: str) -> None:
    told = {"transition_captions": [caption("change_content", text, "me")], "reason": None}
    rows = {
        split: [{"clip_id": one, "captions": [caption("refined", f"{text} {one}", "me")], **told} for one in of]
        for split, of in ids.items()
    }
    put(root, "captions-y", CAPTION_LAYER_FEATURES, rows)


def load_each(hub: HubServer, cases: list[tuple[str, dict[str, Any]]], home: Path, **settings: Any) -> Any:
    """What `load` gives for each, or its error."""
    return hub.run(LOAD, json.dumps(cases), home=home, **settings)


CHOICES: tuple[dict[str, Any], ...] = (
    {},
    {"split": "test"},
    {"layers": ["scores-x"]},
    {"layers": ["captions-y", "scores-x"], "split": "test"},
    {"columns": ["sample_id", "clips.captions", "flags"]},
    {"columns": ["sample_id"], "layers": ["scores-x", "captions-y"]},
    {"columns": ["clips.clip_id", "transitions", "clips.captions.text"], "layers": ["captions-y"]},
)


def test_rows_are_those_of_the_folder(root: Path, hub: HubServer, home: Path) -> None:
    cases = [(where, choice) for where in (REPO, str(root)) for choice in CHOICES]
    told = load_each(hub, [*cases, (f"hf://datasets/{REPO}", {}), (f"{REPO}@main", {})], home)
    there, here, urls = told[: len(CHOICES)], told[len(CHOICES) : -2], told[-2:]
    for choice, ours, local in zip(CHOICES, there, here, strict=True):
        assert "error" not in ours, (choice, ours)
        assert (ours["rows"], ours["features"]) == (local["rows"], local["features"]), choice
        assert ours["file"] != local["file"]
    assert [one["file"] for one in urls] == [there[0]["file"]] * 2
    texts = there[3]["rows"][0]["clips"][0]["captions"]
    assert [one["text"] for one in texts] == ["new c5a", "About c5a."]
    assert there[3]["rows"][0]["scores-x"][1]["flow_mean_px"] == 4 / 3
    assert there[3]["rows"][-1]["scores-x"][1] is None, "the layer knows nothing of the last clip"


def test_a_revision_stays_what_it_was(root: Path, tmp_path: Path, home: Path) -> None:
    own = tmp_path / "set"
    write_dataset(own, {"train": [[clip("c1", "1.mp4")]]})
    recaption(own, {"train": ["c1"]}, text="old")
    with HubServer(tmp_path / "store") as hub:
        first = push(hub, own, REPO, home)["sha"]
        recaption(own, {"train": ["c1"]}, text="new")
        push(hub, own, REPO, home, layers=["captions-y"])
        push(hub, root, REPO, home, branch="next", replace=True)
        asked = [(REPO, {"revision": first}), (f"{REPO}@{first}", {}), (REPO, {}), (REPO, {"revision": "next"})]
        cases = [(where, {**choice, "layers": ["captions-y"]}) for where, choice in asked]
        told = load_each(hub, cases, home)
    texts = [one["rows"][0]["clips"][0]["captions"][0]["text"] for one in told]
    assert texts == ["old c1", "old c1", "new c1", "new c0a"]
    assert told[0]["file"] == told[1]["file"] != told[2]["file"]


def big_dataset(root: Path) -> int:
    """Captions of a few words in a file of 20 MB and more; returns its bytes."""
    write_dataset(root, {"train": [[clip("none", None)]]})
    manifest = read_manifest(root)
    (name,) = manifest["shards"]["annotations"]

    def rows(start: int) -> pa.Table:
        made = []
        for i in range(start, start + 500):
            one = clip(f"c{i}", f"{os.urandom(400).hex()}/{i}.mp4")
            long = {"hierarchy": {"movie_id": "m", "movie_title": os.urandom(1600).hex()}, "clips": [one]}
            known = {"sample_id": f"lvd2m/ytb/{i}", "dataset": "lvd2m", "subset": "ytb", "level": "clip"}
            hierarchy = dict.fromkeys(("imdb_id", "scene_id", "scene_index", "sequence_index")) | long["hierarchy"]  # type: ignore[operator]
            made.append(empty_sample() | known | long | {"hierarchy": hierarchy})
        return pa.Table.from_pylist(made, schema=arrow_schema("annotations"))

    manifest["num_rows"]["annotations"]["train"] = write_shard(
        root / name, (rows(start) for start in range(0, 10_000, 500)), table="annotations"
    )
    write_json(root / "manifest.json", manifest)
    return Path(root, name).stat().st_size


def test_some_columns_cost_some_bytes(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "set"
    num_bytes = big_dataset(root)
    assert num_bytes > 20e6
    path = shards(root)[0].relative_to(root).as_posix()
    with HubServer(tmp_path / "store") as hub:
        assert "error" not in push(hub, root, REPO, home)
        hub.forget_requests()
        (ours,) = load_each(hub, [(REPO, {"columns": ["sample_id", "clips.captions"]})], tmp_path / "ours")
        our_bytes = hub.bytes_sent("resolve", path=path)
        hub.forget_requests()
        theirs = hub.run(STREAM, REPO, home=tmp_path / "theirs")
        their_bytes = hub.bytes_sent("resolve", path=path)
    assert [[row["sample_id"], [one["captions"] for one in row["clips"]]] for row in ours["rows"]] == theirs
    assert our_bytes < 0.1 * num_bytes, f"{our_bytes:,} of {num_bytes:,}"
    assert our_bytes < their_bytes, f"{our_bytes:,} and {their_bytes:,}"


def test_some_columns_of_a_layer_cost_some_bytes(tmp_path: Path, home: Path) -> None:
    """Of the media layer almost all are packet indexes."""
    root = write_dataset(tmp_path / "set", {"train": [[clip(f"c{i}", f"{i}.mp4")] for i in range(200)]})
    media = [
        {"clip_id": f"c{i}", "video": f"{i}.mp4", "status": "ok", "fps": 25.0, "packet_index": os.urandom(20_000)}
        for i in range(200)
    ]
    put(root, "media", TABLES["media"], {"train": media})
    (path,) = [one.relative_to(root).as_posix() for one in shards(root, "media")]
    num_bytes = Path(root, path).stat().st_size
    assert num_bytes > 4e6
    sent = []
    with HubServer(tmp_path / "store") as hub:
        assert "error" not in push(hub, root, REPO, home)
        for columns in (["sample_id", "media.fps", "media.status"], ["sample_id"]):
            hub.forget_requests()
            (told,) = load_each(hub, [(REPO, {"columns": columns, "layers": ["media"]})], tmp_path / "ours")
            assert told["rows"][7]["media"][0]["fps"] == 25.0
            assert ("packet_index" in told["rows"][7]["media"][0]) == (columns == ["sample_id"])
            sent.append(hub.bytes_sent("resolve", path=path))
    assert sent[0] < 0.02 * num_bytes, f"{sent[0]:,} of {num_bytes:,}"
    assert sent[1] >= num_bytes, "all of it, as before: a loader needs the packet index"


def test_messages(hub: HubServer, tmp_path: Path, home: Path) -> None:
    hub.create("org/csv")
    hub.write("org/csv", {"data/train.csv": b"a,b\n1,2\n"})
    hub.create("org/odd")
    hub.write("org/odd", {"manifest.json": b"{"})
    hub.create("org/other")
    hub.write("org/other", {"manifest.json": b'{"version": 3}'})
    hub.create("org/empty")
    cases: list[tuple[str, dict[str, Any], str]] = [
        (REPO, {"token": WRONG_TOKEN}, "HubError: org/set: the Hub does not accept the token; log in again"),
        (REPO, {"token": STRANGER_TOKEN}, "HubError: org/set: no such dataset on the Hub, or it is private"),
        ("org/none", {}, "HubError: org/none: no such dataset on the Hub, or it is private and you are not"),
        (REPO, {"revision": "v9"}, "HubError: org/set: there is no revision 'v9'; give a branch, a tag or a com"),
        (f"{REPO}@v9", {}, "HubError: org/set: there is no revision 'v9'"),
        ("org/csv", {}, "AnnotationError: org/csv has no manifest.json, so no dataset that `civid push` published"),
        ("org/empty", {}, "AnnotationError: org/empty has no manifest.json"),
        ("org/odd", {}, "AnnotationError: org/odd: its manifest.json is no JSON"),
        ("org/other", {}, "AnnotationError: org/other: its manifest.json is not of this package"),
        (
            REPO,
            {"split": "dev"},
            "AnnotationError: org/set/annotations: no shards of split 'dev'; there is test, train",
        ),
        (REPO, {"layers": ["scores-z"]}, "AnnotationError: org/set has no table 'scores/z'; it has"),
        (REPO, {"columns": ["captoins"]}, "AnnotationError: there is no column 'captoins'; there are"),
        (REPO, {"layers": "scores-z"}, "AnnotationError: org/set has no table 'scores/z'; it has"),
        ("set", {}, "AnnotationError: set: no such folder, and no name of a dataset on the Hub (org/name)"),
    ]
    told = load_each(hub, [(repo, settings) for repo, settings, _ in cases], home)
    for (repo, settings, message), found in zip(cases, told, strict=True):
        assert found.get("error", "").startswith(message), (repo, settings, found)
        assert settings.get("token", "no token") not in found["error"]
    (nobody,) = load_each(hub, [(REPO, {})], tmp_path / "nobody", token=None)
    assert "it is private and you are not logged in" in nobody["error"]
    (reader,) = load_each(hub, [(REPO, {})], tmp_path / "reader", token=READER_TOKEN)
    assert "rows" in reader
    hub.fail("info", times=100, status=503)
    assert "the Hub has a problem of its own (HTTP 503)" in load_each(hub, [(REPO, {})], home)[0]["error"]
    hub.faults.clear()
    with HubServer(tmp_path / "gone") as gone:
        pass
    told = load_each(gone, [(REPO, {})], home)
    assert told[0]["error"].startswith("HubError: org/set: the Hub cannot be reached ("), told
    assert "check the network" in told[0]["error"]


def test_a_card_turned_to_other_files_is_refused(root: Path, hub: HubServer, home: Path) -> None:
    """Stock `push_to_hub` onto a config of ours turns the card to its own files, and ours stay."""
    repo = "org/turned"
    sha = push(hub, root, repo, home)["sha"]
    hub.run(STOCK_PUSH, repo, home=home)
    asked: list[tuple[str, dict[str, Any]]] = [
        (repo, {}), (repo, {"split": "test"}), (repo, {"split": "test", "layers": ["scores-x"]}),
        (repo, {"revision": sha, "layers": ["scores-x"]}),
    ]  # fmt: skip
    turned, test, layer, before = load_each(hub, asked, home)
    assert turned["error"].startswith(
        "AnnotationError: org/turned: its card turns config 'default', split train, to data/train-"
    ), turned
    assert "datasets.load_dataset('org/turned', 'default')" in turned["error"]
    assert len(test["rows"]) == 2, "the other split is still ours"
    assert "its card turns config 'scores-x', split test, to scores-x/test-" in layer["error"]
    assert len(before["rows"]) == 5
    assert "error" not in push(hub, root, repo, home)
    assert all("rows" in one for one in load_each(hub, asked, home)), "turned back"


def test_offline_what_was_loaded_before(root: Path, hub: HubServer, home: Path) -> None:
    sha = hub.repo(REPO).at("main").oid
    choice: dict[str, Any] = {"layers": ["scores-x"], "columns": ["sample_id", "scores-x.flow_mean_px"]}
    (online,) = load_each(hub, [(REPO, choice)], home)
    hub.forget_requests()
    cases = [
        (REPO, choice), (REPO, choice | {"revision": sha}), (f"{REPO}@main", choice),
        (REPO, {"revision": "v9"}), ("org/never", {}), (REPO, {"layers": ["captions-y"]}),
        (REPO, {"columns": ["flags"]}), (REPO, {"revision": "0" * 40}),
    ]  # fmt: skip
    told = hub.run("import os; os.environ['HF_HUB_OFFLINE'] = '1'\n" + LOAD, json.dumps(cases), home=home)
    assert told[:3] == [online] * 3
    assert not hub.requests
    messages = [
        f"{REPO}: HF_HUB_OFFLINE is set, so the Hub is not asked, and revision 'v9' was never loaded on this machine",
        "org/never: HF_HUB_OFFLINE is set, so the Hub is not asked, and revision 'main' was never loaded",
        f"{REPO}: captions/y/train-00000-of-00001.parquet of commit {sha[:12]} is not on this machine, and the Hub is",
        f"{REPO}: HF_HUB_OFFLINE is set",
        f"{REPO}: manifest.json of commit 000000000000 is not on this machine, and the Hub is not asked",
    ]
    for found, message in zip(told[3:], messages, strict=True):
        assert found.get("error", "").startswith(f"HubError: {message}"), found


BROKEN_CARDS = {
    "no yaml": ("---\nlicense: [other\n---\nOurs.\n", "header that is no YAML"),
    "a list": ("---\n- license\n---\nOurs.\n", "header of the card on the Hub is a list"),
    "no end": ("<!-- civid_loader: generated, edits here are replaced -->\nOurs.\n", "put it back there"),
}


def test_a_card_broken_by_hand_is_named_and_kept(root: Path, hub: HubServer, home: Path) -> None:
    repos = {f"org/card-{i}": case for i, case in enumerate(BROKEN_CARDS)}
    pushes: list[tuple[str, dict[str, Any]]] = [(repo, {}) for repo in repos]
    assert not any("error" in report for report in push_each(hub, root, pushes, home))
    good = hub.read("org/card-0", "README.md")
    for repo, case in repos.items():
        hub.write(repo, {"README.md": BROKEN_CARDS[case][0].encode()})
    before = [hub.repo(repo).at("main").oid for repo in repos]
    for (repo, case), report in zip(repos.items(), push_each(hub, root, pushes, home), strict=True):
        assert report.get("error", "").startswith(f"HubError: {repo}: the "), (case, report)
        assert BROKEN_CARDS[case][1] in report["error"], (case, report)
    assert [hub.repo(repo).at("main").oid for repo in repos] == before, "nothing went up"
    assert all("rows" in found for found in load_each(hub, pushes, home)), "which needs no card"
    hub.write("org/card-0", {"README.md": good})
    assert "error" not in push(hub, root, "org/card-0", home)


@pytest.mark.parametrize(
    ("token", "is_given"),
    [(WRITER_TOKEN, True), (WRITER_TOKEN, False), (STRANGER_TOKEN, True), (WRONG_TOKEN, True), (WRONG_TOKEN, False)],
)
def test_a_token_is_never_shown(root: Path, hub: HubServer, tmp_path: Path, token: str, is_given: bool) -> None:
    """Not even with all that the libraries have to say, and with the errors behind ours."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
    shown = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug", "DATASETS_VERBOSITY": "debug", "RUST_LOG": "debug"}
    ended = subprocess.run(
        [sys.executable, "-c", DEBUG, REPO, token if is_given else "", str(root)],
        env=inherited | hub.environment(home=tmp_path / "own", token=None if is_given else token) | shown,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    told = ended.stdout + ended.stderr
    assert told.count("HubError: ") == (0 if token == WRITER_TOKEN else 2), told[-4000:]
    assert "DEBUG" in told
    assert f"/api/datasets/{REPO}" in told, "every request is told of"
    assert token not in told


def test_two_at_once_share_a_file(root: Path, hub: HubServer, home: Path) -> None:
    script = LOAD.replace("told = []", "import time; time.sleep(max(0.0, float(sys.argv[2]) - time.time())); told = []")
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
    hub.forget_requests()
    arguments = [json.dumps([(REPO, {"layers": ["scores-x"]})]), str(time.time() + 4.0)]
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            env=inherited | hub.environment(home=home),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [json.loads(client.communicate(timeout=60)[0].splitlines()[-1])[0] for client in clients]
    path = shards(root, split="train")[0].relative_to(root).as_posix()
    num_downloads = sum(one.method == "GET" and one.status == 200 for one in hub.select("resolve", path=path))
    assert told[0] == told[1]
    assert len(told[0]["rows"]) == 5
    arrows = list((home / "datasets" / "civid_loader").glob("*.arrow"))
    assert [str(one) for one in arrows] == [told[0]["file"]]
    assert not list((home / "datasets" / "civid_loader").glob("*.incomplete"))
    assert num_downloads == 1
