"""`civid probe`: killed several times, at looking and at sealing, it ends with the rows of an undisturbed run."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import civid_loader as cl
from civid_loader.probing.dataset import WORK
from civid_loader.storage import read_manifest, read_table
from support.built import clip, write_dataset
from support.media import write_video

NUM_FILES = 70

# Slow enough that a kill finds it in the middle of a chunk of files, and of sealing.
_SCRIPT = """
import sys, time
from civid_loader.probing import dataset, jobs
dataset.ROWS_PER_GROUP, dataset.GROUPS_PER_SHARD = 10, 2
def slowly(function, seconds):
    def called(*arguments, **options):
        time.sleep(seconds)
        return function(*arguments, **options)
    return called
jobs.probe, dataset.replace = slowly(jobs.probe, 0.01), slowly(dataset.replace, 0.05)
dataset.probe_dataset(sys.argv[1], videos=sys.argv[2], quiet=True)
"""


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    content = write_video(folder / "0.mp4").read_bytes()
    for i in range(1, NUM_FILES):
        (folder / f"{i}.mp4").write_bytes(content if i % 10 else b"no video")
    return folder


def _dataset(root: Path) -> Path:
    clips = [clip(f"{i}", f"{i}.mp4") for i in range(NUM_FILES)]
    # A second clip of each file, far from the first.
    clips += [clip(f"{i}b", f"{i}.mp4", span=(0.1, 0.5)) for i in range(0, NUM_FILES, 3)]
    return write_dataset(root, {"train": [[one] for one in clips[:80]], "test": [[one] for one in clips[80:]]})


def _facts(root: Path) -> pa.Table:
    return read_table(root, "media").drop_columns("checked_at")


def _num_finished(root: Path) -> int:
    journal = root / WORK / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


def _run_until_killed(root: Path, videos: Path, *, num_chunks: int, num_shards: int) -> bool:
    """Whether it was killed, in the middle, once so many chunks were finished and so many shards had their names."""
    with subprocess.Popen([sys.executable, "-c", _SCRIPT, str(root), str(videos)]) as process:
        while process.poll() is None:
            if _num_finished(root) >= num_chunks and len(list((root / "media").glob("*.parquet"))) >= num_shards:
                process.kill()
                return True
            time.sleep(0.002)
    return False


def test_killed_probing_ends_with_the_same_rows_and_redoes_no_chunk(tmp_path: Path, videos: Path) -> None:
    undisturbed, root = _dataset(tmp_path / "undisturbed"), _dataset(tmp_path / "killed")
    expected = cl.probe_dataset(undisturbed, videos=videos, quiet=True)
    finished = 0
    kept: dict[int, int] = {}
    for num_chunks, num_shards in ((1, 0), (40, 0), (70, 1), (70, 4)):
        assert _run_until_killed(root, videos, num_chunks=num_chunks, num_shards=num_shards)
        assert _num_finished(root) >= max(finished, num_chunks)
        finished = _num_finished(root)
        inodes = {i: (root / WORK / f"{i:06d}.parquet").stat().st_ino for i in range(finished)}
        assert kept.items() <= inodes.items(), "a finished chunk was written again"
        kept = inodes
    assert finished == NUM_FILES
    with (root / WORK / "journal.jsonl").open("ab") as file:
        file.write(b'{"chunk": 1, "num_fi')  # torn by a kill
    report = cl.probe_dataset(root, videos=videos, quiet=True)
    assert not (root / WORK).exists()
    assert _facts(root).equals(_facts(undisturbed))
    assert read_manifest(root) == read_manifest(undisturbed)
    assert (root / "README.md").read_bytes() == (undisturbed / "README.md").read_bytes()
    assert (report.statuses, report.histograms) == (expected.statuses, expected.histograms)


def test_a_second_run_that_is_killed_reports_all_changes(tmp_path: Path, videos: Path) -> None:
    root = _dataset(tmp_path / "killed")
    cl.probe_dataset(root, videos=videos, quiet=True)
    for i in range(0, NUM_FILES, 2):
        (videos / f"{i}.mp4").unlink()
    undisturbed = Path(shutil.copytree(root, tmp_path / "undisturbed"))
    expected: Any = cl.probe_dataset(undisturbed, videos=videos, quiet=True).changes
    assert _run_until_killed(root, videos, num_chunks=20, num_shards=0)
    assert cl.probe_dataset(root, videos=videos, quiet=True).changes == expected
    assert expected["newly missing"].num_files == NUM_FILES // 2
    assert _facts(root).equals(_facts(undisturbed))
    assert json.loads((root / "manifest.json").read_bytes())["num_rows"]["media"] == {"train": 80, "test": 14}
