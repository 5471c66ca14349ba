"""What publishing and remote reading cost, against a Hub of our own on 127.0.0.1: bytes, requests, time, memory.

    python tests/benchmarks/hub.py [--megabytes 200] [--quick] [--output FILE]

Clips are random bytes: nothing can be compressed or found twice. Every client is a process of its own with a clean
cache. There is no network in between, so times say what the client itself takes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Annotated, Final

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from benchmarks.videos import Table, environment, save

from civid_loader.layers import write_layer
from civid_loader.schema import CAPTION_LAYER_FEATURES, arrow_schema_of, caption
from civid_loader.storage import shards, write_shard
from support.built import clip, write_dataset
from support.hub_server import HubServer

REPO: Final = "org/set"
LAYER: Final = "captions-new"
TEXT: Final = (
    "a red tram climbs the hill past old houses while two children wave from a window and rain begins to fall over "
    "harbour lights slow camera pans left then rises above roofs toward grey morning sky birds market street dog runs"
)
WORDS: Final = TEXT.split()

PUSH: Final = """
import json, sys, time, warnings
from dataclasses import asdict
from pathlib import Path
warnings.simplefilter("ignore")
from civid_loader.hub.push import push_to_hub
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
imports, start = peak(), time.perf_counter()
report = asdict(push_to_hub(sys.argv[1], "org/set", quiet=True, has_permission=True, **json.loads(sys.argv[2])))
report |= {"seconds": time.perf_counter() - start, "peak_bytes": peak(), "imports_bytes": imports}
print(json.dumps(report))
"""

POLL: Final = """
import json, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
sys.modules["civid_loader"] = None
import pyarrow.parquet as pq, yaml
from huggingface_hub import HfApi, HfFileSystem
old, stop, num_clips = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
api, counts = HfApi(), {"old": 0, "new": 0}

def state(revision):
    # Whether the captions are there: card, files and rows must say the same, and all else is always there.
    sha = api.dataset_info("org/set", revision=revision).sha
    files = HfFileSystem(skip_instance_cache=True, use_listings_cache=False)
    card = files.cat_file(f"datasets/org/set@{sha}/README.md").decode()
    header = yaml.safe_load(card.split("---\\n")[1])
    manifest = json.loads(files.cat_file(f"datasets/org/set@{sha}/manifest.json"))
    there = {path.split(f"set@{sha}/")[-1] for path in files.glob(f"datasets/org/set@{sha}/**/*.parquet")}
    named = {path for paths in manifest["shards"].values() for path in paths}
    assert there == named, (sha, there ^ named)
    configs = {one["config_name"] for one in header["configs"]}
    assert configs >= {"default", "media", "videos"}, configs
    has_layer = "captions-new" in configs
    assert has_layer == ("captions/new" in manifest["shards"]), (sha, configs)
    for name in sorted(named):
        if name.startswith("captions/"):
            with files.open(f"datasets/org/set@{sha}/{name}", "rb") as file:
                assert pq.read_table(file, columns=["clip_id"]).num_rows == num_clips
    return has_layer

print("ready", flush=True)
while True:
    is_last = stop.exists()
    counts["new" if state("main") else "old"] += 1
    assert not state(old), "the old revision stays as it was"
    if is_last:
        break
print(json.dumps(counts))
"""

CLIP: Final = {
    "ours, media layer": """
import json, sys
from civid_loader.hub.loading import load
from civid_loader.videos import open_range
rows = load("org/set", layers=["media"], quiet=True)
index = next(i for i, row in enumerate(rows) if row["clips"][0]["clip_id"] == sys.argv[1])
print("READY", flush=True); sys.stdin.readline()
media = rows[index]["media"][0]
source = open_range(
    f"hf://datasets/org/set/{media['shard']}", offset=media["byte_offset"], num_bytes=media["num_bytes"]
)
print(len(source.read_ranges([(0, media["num_bytes"])])[0]))
""",
    "ours, shard footer": """
import sys
from civid_loader.videos import open_video
print("READY", flush=True); sys.stdin.readline()
source = open_video(f"videos:{sys.argv[1]}", root=None, dataset="hf://datasets/org/set")
print(len(source.read_ranges([(0, source.size())])[0]))
""",
    "datasets, streaming": """
import sys
from datasets import load_dataset
print("READY", flush=True); sys.stdin.readline()
rows = load_dataset("org/set", "videos", split="train", streaming=True).decode(False)
print(len(next(row for row in rows if row["clip_id"] == sys.argv[1])["video"]["bytes"]))
""",
    "datasets, streaming, filters=": """
import sys
from datasets import load_dataset
print("READY", flush=True); sys.stdin.readline()
filters = [("clip_id", "==", sys.argv[1])]
rows = load_dataset("org/set", "videos", split="train", streaming=True, filters=filters).decode(False)
print(len(next(iter(rows))["video"]["bytes"]))
""",
}
_STREAM: Final = """
import sys
from datasets import load_dataset
print("READY", flush=True); sys.stdin.readline()
{rows}
print(sum(len(one["text"]) for row in rows for clip in row["clips"] for one in clip["captions"]))
"""
COLUMNS: Final = {
    "ours, load(columns=[sample_id, clips.captions])": _STREAM.format(
        rows='from civid_loader.hub.loading import load\n'
        'rows = load("org/set", columns=["sample_id", "clips.captions"], quiet=True)'
    ),
    "datasets, streaming, columns=[sample_id, clips]": _STREAM.format(
        rows='rows = load_dataset("org/set", split="train", streaming=True, columns=["sample_id", "clips"])'
    ),
    "the same, 64 KB blocks": _STREAM.format(
        rows='rows = load_dataset("org/set", split="train", streaming=True, columns=["sample_id", "clips"],\n'
        '    storage_options={"hf": {"block_size": 65536}})'
    ),
    "datasets, streaming, select_columns": _STREAM.format(
        rows='rows = load_dataset("org/set", split="train", streaming=True).select_columns(["sample_id", "clips"])'
    ),
}  # fmt: skip


@contextmanager
def client(hub: HubServer, script: str, *arguments: str, home: Path) -> "Iterator[subprocess.Popen[str]]":
    """A running client process with its pipes."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env=inherited | hub.environment(home=home) | {"PYTHONWARNINGS": "ignore"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def write_clips(folder: Path, *, megabytes: float, clip_megabytes: float) -> list[str]:
    """Files of random bytes, and a dataset of one clip a sample; returns the clip ids."""
    rng = Random(0)
    (folder / "files").mkdir(parents=True)
    ids = [f"c{i:05d}" for i in range(max(4, round(megabytes / clip_megabytes)))]
    for one in ids:
        (folder / "files" / f"{one}.mp4").write_bytes(rng.randbytes(int(clip_megabytes * 1e6 * rng.uniform(0.5, 1.5))))
    write_dataset(folder / "set", {"train": [[clip(one, f"{one}.mp4")] for one in ids]})
    return ids


def recaption(root: Path, ids: list[str], *, seed: int) -> None:
    """Sixty words about each clip."""
    rng = Random(seed)
    rows = [
        {
            "clip_id": one,
            "captions": [caption("dense", " ".join(rng.choices(WORDS, k=60)), "me")],
            "transition_captions": [],
            "reason": None,
        }
        for one in ids
    ]
    tables = {"train": [pa.Table.from_pylist(rows, schema=arrow_schema_of(CAPTION_LAYER_FEATURES))]}
    write_layer(root, LAYER, tables, features=CAPTION_LAYER_FEATURES, provenance={"fingerprint": f"{seed:016d}"})


def stored_bytes(hub: HubServer) -> int:
    """What arrived as content: through LFS, or new in the content store."""
    return hub.bytes_received("lfs-upload") if hub.store.xet is None else hub.store.xet.num_bytes


def push_and_recaption(folder: Path, home: Path, ids: list[str], tables: Mapping[str, Table], *, is_xet: bool) -> None:
    """Push all with videos; then new captions twice, while somebody reads."""
    mode, root = "Xet" if is_xet else "LFS", folder / "set"
    video_bytes = sum(path.stat().st_size for path in (folder / "files").iterdir())
    with HubServer(folder / f"store-{mode}", is_xet=is_xet) as hub:
        settings = {"with_videos": True, "video_root": str(folder / "files")}
        first = hub.run(PUSH, str(root), json.dumps(settings), home=home, limit_seconds=600)
        arrived = stored_bytes(hub)
        tables["push"].add(
            mode, f"{video_bytes / 1e6:.1f}", f"{arrived / 1e6:.2f}", f"{first['seconds']:.1f}",
            f"{video_bytes / 1e6 / first['seconds']:.0f}", f"{first['imports_bytes'] / 1e6:.0f}",
            f"{first['peak_bytes'] / 1e6:.0f}", str(first["num_commits"]),
        )  # fmt: skip
        again = hub.run(PUSH, str(root), json.dumps(settings), home=home, limit_seconds=600)
        assert stored_bytes(hub) == arrived, "nothing goes up twice"
        assert again["num_commits"] == 0
        for seed, what in ((1, "new layer"), (2, "the layer again")):
            recaption(root, ids, seed=seed)
            before, old = stored_bytes(hub), hub.repo(REPO).at("main").oid
            hub.forget_requests()
            counts = "not read"
            if seed == 1:
                stop = folder / f"stop-{mode}"
                with client(hub, POLL, old, str(stop), str(len(ids)), home=folder / "reader") as reader:
                    report = hub.run(PUSH, str(root), json.dumps({"layers": [LAYER]}), home=home)
                    stop.touch()
                    told, _ = reader.communicate(timeout=120)
                assert reader.returncode == 0, "the reader saw a half state"
                seen = json.loads(told.splitlines()[-1])
                assert seen["old"] > 0 < seen["new"], seen
                counts = f"{seen['old']} old, {seen['new']} new, 0 half"
            else:
                report = hub.run(PUSH, str(root), json.dumps({"layers": [LAYER]}), home=home)
            new = stored_bytes(hub) - (before if is_xet else 0)
            sent = hub.bytes_received("commit") + (new if is_xet else hub.bytes_received("lfs-upload"))
            by_config = ", ".join(f"{name or 'card etc.'} {size:,}" for name, size in report["num_bytes"].items())
            videos = [path.relative_to(root).as_posix() for path in shards(root, "videos")]
            of_videos = sum(hub.bytes_received("lfs-upload", path=path) for path in videos)
            assert of_videos == 0
            assert "videos" not in report["num_bytes"]
            share = sent / video_bytes
            assert share < 0.005 or video_bytes < 1e8, f"{share:.2%}"
            tables["recaption"].add(
                mode, what, f"{len(ids):,}", by_config, f"{new:,}", f"{sent:,}", f"{of_videos}", f"{share:.3%}",
                str(report["num_commits"]), counts,
            )  # fmt: skip
        if not is_xet:
            one_clip(hub, folder, ids, tables["clip"])


def one_clip(hub: HubServer, folder: Path, ids: list[str], table: Table) -> None:
    """A clip from the middle."""
    clip_id = pq.read_table(shards(folder / "set", "videos")[0], columns=["clip_id"])["clip_id"][len(ids) // 2].as_py()
    num_bytes = (folder / "files" / f"{clip_id}.mp4").stat().st_size
    for name, script in CLIP.items():
        with client(hub, script, clip_id, home=folder / "home" / name) as process:
            hub.forget_requests()
            told, _ = process.communicate("go\n", timeout=300)
        assert int(told.split()[-1]) == num_bytes, name
        sent = [one for one in hub.select("resolve") if (one.repo_path or "").startswith("videos/")]
        gets = [one for one in sent if one.method == "GET"]
        total = sum(one.num_bytes_sent for one in gets)
        table.add(
            name, f"{num_bytes:,}", str(len(gets)), f"{len(hub.requests) - len(gets)}", f"{total:,}",
            f"{total / num_bytes:.2f}",
        )  # fmt: skip


def some_columns(folder: Path, table: Table, *, num_samples: int) -> None:
    """Captions of a dataset with wide rows."""
    rng = Random(3)
    rows = []
    for i in range(num_samples):
        one = clip(f"c{i:06d}", f"{rng.randbytes(24).hex()}/{i}.mp4", span=(0.0, 1.0 + rng.random()))
        one["captions"] = [
            caption("refined", " ".join(rng.choices(WORDS, k=20)), "me"),
            caption("raw", " ".join(rng.choices(WORDS, k=20)), "you"),
        ]
        # Half of the other bytes within the clips, where `datasets` cannot leave them out; half beside them.
        one["source"] |= {"url": f"https://example.org/{rng.randbytes(300).hex()}"}
        rows.append([one])
    # Two samples to a row group, as the helper writes; then anew.
    root = write_dataset(folder / "wide", {"train": rows})
    (path,) = shards(root)
    with pq.ParquetFile(path) as file:
        made = file.read()
    place = made.column_names.index("hierarchy")
    field = made.schema.field(place)
    beside = [dict.fromkeys(one.name for one in field.type) | {"movie_title": rng.randbytes(300).hex()} for _ in rows]
    made = made.set_column(place, field, pa.array(beside, field.type))
    write_shard(path, (made.slice(i, 5000) for i in range(0, len(made), 5000)), table="annotations")
    name, num_bytes = path.relative_to(root).as_posix(), path.stat().st_size
    with HubServer(folder / "store-wide") as hub:
        hub.run(PUSH, str(root), "{}", home=folder / "maker", limit_seconds=300)
        results = set()
        for title, script in COLUMNS.items():
            with client(hub, script, home=folder / "home" / title.replace("/", "")) as process:
                hub.forget_requests()
                told, _ = process.communicate("go\n", timeout=300)
            results.add(told.split()[-1])
            gets = [one for one in hub.select("resolve", path=name) if one.method == "GET"]
            total = sum(one.num_bytes_sent for one in gets)
            table.add(title, f"{num_bytes:,}", str(len(gets)), f"{total:,}", f"{total / num_bytes:.1%}")
        assert len(results) == 1, "all of them read the same captions"


def main(
    megabytes: Annotated[float, typer.Option(help="of video")] = 200.0,
    clip_megabytes: Annotated[float, typer.Option(help="of a clip, on average")] = 0.5,
    samples: Annotated[int, typer.Option(help="of the dataset whose captions are read")] = 30_000,
    quick: Annotated[bool, typer.Option(help="a few megabytes")] = False,
    output: Annotated[Path | None, typer.Option(help="results as JSON")] = None,
) -> None:
    """Count what a push, a re-captioning, a remote clip and remote captions cost."""
    megabytes, samples = (8.0, 3000) if quick else (megabytes, samples)
    about = environment("huggingface_hub", "hf_xet", "pyarrow", "fsspec")
    print(about)
    tables = {
        "push": Table(
            "Push of everything",
            ("mode", "video MB", "stored MB", "s", "MB/s", "RSS after imports, MB", "peak RSS, MB", "commits"),
        ),
        "recaption": Table(
            "Re-captioning one dataset with its videos on the Hub",
            ("mode", "what", "clips", "bytes of changed files by config", "new content, bytes", "with commit, bytes",
             "video bytes", "of the videos", "commits", "what a reader saw meanwhile"),
        ),
        "clip": Table("One remote clip", ("reader", "clip bytes", "shard GETs", "other requests", "bytes", "x clip")),
        "columns": Table("Captions of one dataset", ("reader", "file bytes", "GETs", "bytes", "of the file")),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for is_xet in (False, True):
            place = Path(folder, "xet" if is_xet else "lfs")
            ids = write_clips(place, megabytes=megabytes, clip_megabytes=clip_megabytes)
            push_and_recaption(place, place / "home" / "maker", ids, tables, is_xet=is_xet)
        some_columns(Path(folder), tables["columns"], num_samples=samples)
    save(output, list(tables.values()), about)


if __name__ == "__main__":
    typer.run(main)
