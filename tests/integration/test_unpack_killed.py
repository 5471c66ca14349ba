"""`civid unpack`: killed several times it ends with the same tree, and no finished file is written twice."""

import os
import random
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import civid_loader as cl
from support.trees import tree_bytes, write_tree

# Slow enough that a kill finds it in the middle of a file.
_SCRIPT = """
import sys, time
from civid_loader import tar_stream, unpacking
tar_stream.READ_BYTES = 10_000
read = tar_stream.TarStream._read
def slowly(stream, size):
    time.sleep(0.003)
    return read(stream, size)
tar_stream.TarStream._read = slowly
unpacking.unpack(sys.argv[2:], output=sys.argv[1], quiet=True)
"""


def _pack(folder: Path, name: str) -> Path:
    rng = random.Random(name)
    write_tree(folder / "src", {f"{name}/{i}/v-Scene-{i:03d}.mp4": rng.randbytes(60_000) for i in range(40)})
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(folder / "src" / name, name)
    return folder / f"{name}.tar.gz"


def _finished(output: Path) -> dict[str, tuple[int, int]]:
    paths = [path for path in output.rglob("*.mp4") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def test_killed_unpacking_ends_with_the_same_tree_and_redoes_no_file(tmp_path: Path) -> None:
    archives = [_pack(tmp_path, name) for name in ("chunk_0_40", "chunk_40_80")]
    cl.unpack(archives, output=tmp_path / "undisturbed", quiet=True)
    output = tmp_path / "killed"
    kills, half_files, finished = 0, 0, dict[str, tuple[int, int]]()
    for files_before_kill in (0, 3, 20, 45, 60):
        with subprocess.Popen([sys.executable, "-c", _SCRIPT, str(output), *map(str, archives)]) as process:
            while process.poll() is None:
                if len(_finished(output)) > files_before_kill and any(output.rglob("*.mp4.incomplete")):
                    process.kill()
                    kills += 1
                    break
                time.sleep(0.003)
        half_files += len(list(output.rglob("*.mp4.incomplete")))
        now = _finished(output)
        assert finished.items() <= now.items(), "a finished file was written again"
        finished = now
    assert kills == 5
    assert half_files
    report = cl.unpack(archives, output=output, quiet=True)
    assert report.archives[0].num_skipped == 40
    assert report.archives[1].num_skipped == len(finished) - 40 > 20
    assert finished.items() <= _finished(output).items()
    assert tree_bytes(output) == tree_bytes(tmp_path / "undisturbed")
    assert all(one.was_finished for one in cl.unpack(archives, output=output, quiet=True).archives)


def _civid(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "civid_loader.cli", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_the_command_sums_up_and_says_which_archive_failed(tmp_path: Path) -> None:
    (tmp_path / "src/good").mkdir(parents=True)
    (tmp_path / "src/good/leads_out").symlink_to("/etc")
    good, bad = _pack(tmp_path, "good"), _pack(tmp_path, "bad")
    bad.write_bytes(bad.read_bytes()[:1_000_000])
    result = _civid("unpack", bad, good, "--output", tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {bad}: damaged or cut off near byte 1,000,000 of 1,000,000")
    assert result.stderr.count("\n") == 1, "no bar where there is no terminal"
    for word in ("failed", "whole", "0.002", "1 a link", "'good/leads_out': a link"):
        assert word in result.stdout
    again = _civid("unpack", good, "-o", tmp_path / "out")
    assert again.returncode == 0, again.stderr
    assert "finished before" in again.stdout
    wrong = _civid("unpack", tmp_path / "none.tar.gz", "-o", tmp_path / "out")
    assert (wrong.returncode, wrong.stderr.startswith("error: ")) == (1, True)
