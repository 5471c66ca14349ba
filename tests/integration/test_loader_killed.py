"""A training process killed with SIGKILL, and one on two ranks, go on where they were: nothing is lost or repeated."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.training import samples_of, write_videos

NUM_ROWS = 40

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from civid_loader.loader import SequenceLoader
from civid_loader.sampling import RandomWindow
from support.training import dataset_of, digest

if __name__ == "__main__":
    folder, work, epochs, pause = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    rows = dataset_of([[f"{i}.mp4"] for i in range(40)])
    loader = SequenceLoader(rows, videos=folder, frames=RandomWindow(2), size=(32, 48), batch_size=4, num_workers=1)
    log, checkpoint = work / f"log-{loader.rank}", work / f"state-{loader.rank}.json"
    if checkpoint.is_file():
        saved = json.loads(checkpoint.read_text())
        loader.load_state_dict(saved["loader"])
        os.truncate(log, saved["log_bytes"])
    with log.open("a") as file:
        while loader.state_dict()["epoch"] < epochs:
            for batch in loader:
                file.write(json.dumps(digest(batch)) + "\\n")
                file.flush()
                saved = {"loader": loader.state_dict(), "log_bytes": file.tell()}
                temporary = checkpoint.with_suffix(".new")
                temporary.write_text(json.dumps(saved))
                temporary.replace(checkpoint)
                if pause:
                    import time; time.sleep(pause)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    write_videos(root, NUM_ROWS)
    (root / "train.py").write_text(SCRIPT)
    return root


def start(
    folder: Path, work: Path, *, pause: float = 0.0, rank: int | None = None, port: int = 0, epochs: int = 2
) -> "subprocess.Popen[bytes]":
    work.mkdir(exist_ok=True)
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    group = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = {} if rank is None else group
    command = [sys.executable, str(folder / "train.py"), str(folder), str(work), str(epochs), str(pause)]
    return subprocess.Popen(command, env=os.environ | environment | {"PYTHONPATH": paths}, start_new_session=True)


def log_of(work: Path, rank: int = 0) -> list[str]:
    return [json.loads(line) for line in (work / f"log-{rank}").read_text().splitlines()]


def test_killed_and_resumed_the_batches_are_those_of_an_undisturbed_run(folder: Path, tmp_path: Path) -> None:
    assert start(folder, tmp_path / "whole").wait() == 0
    work = tmp_path / "killed"
    for num_lines in (3, 12):  # in the first epoch, and in the second
        process = start(folder, work, pause=0.05)
        while len((work / "log-0").read_text().splitlines() if (work / "log-0").is_file() else []) < num_lines:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(folder, work).wait() == 0
    assert log_of(work) == log_of(tmp_path / "whole")
    assert len(log_of(work)) == 2 * NUM_ROWS / 4


def run_both(folder: Path, work: Path, *, epochs: int = 2) -> None:
    """Two processes of a gloo group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [start(folder, work, rank=rank, port=port, epochs=epochs) for rank in range(2)]
    assert [process.wait() for process in both] == [0, 0]


def global_batches(work: Path, num_ranks: int) -> list[list[tuple[str, float]]]:
    """Samples of each batch of all ranks together."""
    ranks = zip(*(log_of(work, rank) for rank in range(num_ranks)), strict=True)
    return [samples_of(list(shares)) for shares in ranks]


def test_two_ranks_of_gloo_share_the_batches_of_one(folder: Path, tmp_path: Path) -> None:
    assert start(folder, tmp_path / "one").wait() == 0
    run_both(folder, tmp_path / "two")
    assert global_batches(tmp_path / "two", 2) == global_batches(tmp_path / "one", 1)


def test_ranks_of_gloo_go_on_where_another_number_of_them_stopped(folder: Path, tmp_path: Path) -> None:
    """The first epoch on one rank, the second on two; and the other way round."""
    assert start(folder, tmp_path / "whole").wait() == 0
    whole = global_batches(tmp_path / "whole", 1)
    first, second = tmp_path / "first", tmp_path / "second"
    assert start(folder, first, epochs=1).wait() == 0
    for rank in range(2):
        hand_over(first / "state-0.json", second, rank=rank)
    run_both(folder, second)
    assert global_batches(first, 1) + global_batches(second, 2) == whole
    first, second = tmp_path / "both", tmp_path / "alone"
    run_both(folder, first, epochs=1)
    hand_over(first / "state-1.json", second, rank=0)
    assert start(folder, second).wait() == 0
    assert global_batches(first, 2) + global_batches(second, 1) == whole


def hand_over(state: Path, work: Path, *, rank: int) -> None:
    """A place for a run whose log begins anew."""
    work.mkdir(exist_ok=True)
    saved = json.loads(state.read_text())
    assert saved["loader"]["epoch"] == 1
    (work / f"log-{rank}").touch()
    (work / f"state-{rank}.json").write_text(json.dumps(saved | {"log_bytes": 0}))
