"""`civid proxies`, killed several times, ends with the same bytes; it and `civid frames` as a user meets them."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from civid_loader.cli import app
from civid_loader.errors import TooManyFailedError
from support.built import clip, write_dataset
from support.media import write_video
from support.trees import tree_bytes

NUM_CLIPS = 12

# Slow enough that a kill finds it between chunks and between shards.
_SCRIPT = """
import sys, time
from civid_loader import storage
from civid_loader.reencoding import proxies, tables
tables.SHARD_BYTES = 10_000
def slowly(function):
    def slow(*args, **kwargs):
        time.sleep(0.05)
        return function(*args, **kwargs)
    return slow
storage.Journal.add = slowly(storage.Journal.add)
tables.write_video_shard = slowly(tables.write_video_shard)
if __name__ == "__main__":
    dataset, videos, output, num_proc = sys.argv[1:]
    proxies.proxies(dataset, videos=videos, output=output, num_proc=int(num_proc), quiet=True)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(dataset, videos)"""
    folder = tmp_path_factory.mktemp("made")
    (folder / "videos").mkdir()
    for i in range(NUM_CLIPS):
        write_video(folder / "videos" / f"{i}.mp4", num_frames=20 + i, size=(96, 128), num_b_frames=2)
    samples = {"train": [[clip(f"c{i}", f"{i}.mp4")] for i in range(NUM_CLIPS)]}
    return write_dataset(folder / "dataset", samples), folder / "videos"


def _num_finished(output: Path) -> int:
    """Chunks in the journal; 100 more for each shard that has its final name."""
    journal = output / ".incomplete" / "journal.jsonl"
    lines = journal.read_bytes().count(b"\n") if journal.is_file() else 0
    return lines + 100 * len(list(output.glob("videos/*.parquet")))


def test_killed_and_run_again_it_ends_with_the_same_bytes(made: tuple[Path, Path], tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(_SCRIPT)

    def command(output: Path, num_proc: int) -> list[str]:
        return [sys.executable, str(script), *map(str, made), str(output), str(num_proc)]

    subprocess.run(command(tmp_path / "undisturbed", 1), check=True)
    output = tmp_path / "killed"
    kills, seen = 0, 0
    for finished_before_kill, num_proc in ((2, 1), (5, 2), (8, 1), (100, 1), (200, 1)):
        with subprocess.Popen(command(output, num_proc)) as process:
            while process.poll() is None:
                if _num_finished(output) >= finished_before_kill:
                    process.kill()
                    kills += 1
                    break
                time.sleep(0.003)
        assert _num_finished(output) >= seen, "finished work was done again"
        seen = _num_finished(output)
    assert kills == 5
    assert not (output / "manifest.json").exists()
    subprocess.run(command(output, 2), check=True)
    assert len(list(output.glob("videos/*.parquet"))) >= 3
    assert tree_bytes(output) == tree_bytes(tmp_path / "undisturbed")


@pytest.fixture
def civid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """The command, in this process: starting one takes seconds."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_proxies_command(made: tuple[Path, Path], tmp_path: Path, civid: Callable[..., Result]) -> None:
    dataset, videos = made
    text = civid("proxies", "--help").stdout
    for word in ("Example:", "--short-side", "--gop", "--codec", "--max-failed", "continues"):
        assert word in text
    arguments = ("proxies", dataset, "--videos", videos, "--short-side", "64", "--gop", "8", "--no-audio")
    result = civid(*arguments, "--output", tmp_path / "out", "--num-proc", "2")
    assert result.exit_code == 0, result.stderr
    for word in ("training copies", "encoded", str(NUM_CLIPS), "load_dataset"):
        assert word in result.stdout
    assert not result.stderr, "no bar where there is no terminal"
    odd = civid(*arguments[:-1], "--short-side", "65", "--output", tmp_path / "odd")
    assert (odd.exit_code, "65 is odd" in odd.stderr) == (2, True)
    gone = civid("proxies", dataset, "--videos", tmp_path, "--output", tmp_path / "gone")
    assert isinstance(gone.exception, TooManyFailedError)
    assert str(gone.exception).startswith(f"{NUM_CLIPS} of {NUM_CLIPS} clips failed ({NUM_CLIPS} missing)")


def test_the_frames_command(made: tuple[Path, Path], tmp_path: Path, civid: Callable[..., Result]) -> None:
    videos = made[1]
    assert civid("frames", "--help").stdout.count("Example:") == 2
    result = civid("frames", videos / "3.mp4")
    assert result.exit_code == 0, result.stderr
    with Image.open(tmp_path / "3-frames.png") as image:
        assert image.format == "PNG"
    result = civid(
        "frames", "0.mp4", "--root", videos, "--at", "0.5", "0.25", "--span", "0.1", "0.7", "-o", tmp_path / "b.png"
    )
    assert result.exit_code == 0, result.stderr
    assert [line.split()[-4::2] for line in result.stdout.splitlines() if "0.250" in line] == [["0.250", "0.220"]]
    (tmp_path / "page.mp4").write_text("<html>")
    names = (videos / "1.mp4", tmp_path / "page.mp4", tmp_path / "none.mp4")
    result = civid("frames", *names, "--fps", "10", "--size", "32", "32", "-o", tmp_path / "c.png")
    assert result.exit_code == 1
    assert (tmp_path / "c.png").is_file()
    assert result.stderr.count("error: ") == 2
    for wrong, message in (
        (("--uniform", "3", "--fps", "2"), "exclude each other"),
        (("--fps", "0"), "above 0"),
        (("--span", "3", "2"), "0 <= start < end"),
        (("--uniform", "500"), "at most 240"),
    ):
        refused = civid("frames", videos / "1.mp4", *wrong)
        assert (refused.exit_code, message in " ".join(refused.stderr.split())) == (2, True), refused.stderr
