"""The training script of the README: killed and started again, it ends with the same loss."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from civid_loader.demo.release import make_release
from civid_loader.materialize import build

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script, and the data that `make demo` makes."""
    folder = tmp_path_factory.mktemp("train")
    release = make_release(folder / "release")["civid"]
    build(
        "civid",
        annotations=release.annotations,
        videos=release.videos,
        output=folder / "civid",
        max_rejected=0.2,
        quiet=True,
    )
    (folder / "videos").symlink_to(release.videos.absolute())
    (script,) = re.findall(r"```python\n(# train\.py.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert sum(bool(line.strip()) for line in script.splitlines()) <= 40, "short enough to read"
    (folder / "train.py").write_text(script)
    return folder


def start(made: Path, work: Path) -> "subprocess.Popen[str]":
    work.mkdir(exist_ok=True)
    command = [sys.executable, str(made / "train.py"), str(made / "civid"), str(made / "videos")]
    environment = os.environ | {"HF_DATASETS_CACHE": str(made / "cache")}
    return subprocess.Popen(
        command, cwd=work, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate()
    assert process.returncode == 0
    return output


def test_killed_and_started_again_it_ends_with_the_same_loss(made: Path, tmp_path: Path) -> None:
    expected = finish(start(made, tmp_path / "whole"))
    assert re.fullmatch(r"loss 0\.\d{9}\n", expected)
    work = tmp_path / "killed"
    process = start(made, work)
    while not (work / "checkpoint.pt").is_file():
        assert process.poll() is None
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert finish(start(made, work)) == expected
