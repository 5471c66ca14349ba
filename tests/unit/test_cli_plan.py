"""`civid plan`: what training will do, before it does it, in a terminal of 80 columns."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from civid_loader.cli import app
from support.sized_rows import LARGE, TIMED, sample, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, [sample(i, LARGE, LARGE) for i in range(5)] + [sample(9, TIMED)])
    write(tmp_path, [sample(i, LARGE) for i in range(20, 27)], split="test")
    return tmp_path


def plan(root: Path, *options: str, exit_code: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["plan", str(root), *options])
    assert result.exit_code == exit_code, result.output
    assert all(len(line) <= 80 for line in result.output.splitlines())
    return result.output


def test_it_says_what_an_epoch_does(root: Path) -> None:
    shown = plan(root, "--split", "train", "--frames", "16", "--batch-size", "4", "--world-size", "2")
    assert "6 samples of 11 clips, 2 ranks" in shown
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip().startswith("16x")}
    assert rows["16x192x336"] == ["5", "4", "2", "3", "0", "0.27x", "0.0%", "1.6%", "0.0%"]
    assert rows["16x224x288"] == ["1", "4", "1", "3", "0", "0.47x", "0.0%", "3.6%", "0.0%"]
    assert "3 steps per epoch and rank; 0 samples dropped, 6 repeated with weight 0." in shown
    assert "civid probe measures them" in shown


def test_what_is_dropped_is_told(root: Path) -> None:
    shown = plan(root, "--bucket", "16x192x336", "--batch-size", "4", "--tail", "drop")
    assert "13 samples of 18 clips" in shown
    assert "3 steps per epoch and rank; 1 samples dropped, 0 repeated with weight 0." in shown


def test_budgets(root: Path) -> None:
    shown = plan(root, "--split", "train", "--bucket", "16x192x336", "--max-frames", "64")
    assert shown.splitlines()[4].split()[2] == "2", "two clips of 16 frames each"
    plan(root, "--bucket", "16x192x336", "--max-frames", "20", exit_code=2)


@pytest.mark.parametrize("options", [["--bucket", "16x16"], ["--batch-size", "3", "--world-size", "2"]])
def test_mistakes(root: Path, options: list[str]) -> None:
    assert "Invalid value" in plan(root, *options, exit_code=2)
