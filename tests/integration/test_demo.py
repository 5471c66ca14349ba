"""`civid demo`: everything a new user sees first."""

from pathlib import Path

import pytest
from PIL import Image

from civid_loader.demo.run import run_demo
from civid_loader.errors import OutputError
from civid_loader.storage import read_table

NAMES = ("civid", "miradata", "moviebench", "lvd2m")


def test_demo_goes_the_whole_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # no line is broken within a word
    run_demo(tmp_path / "demo")
    shown = capsys.readouterr().out
    for name in NAMES:
        assert name in shown
        assert len(read_table(tmp_path / "demo" / "datasets" / name)) >= 5
        with Image.open(tmp_path / "demo" / f"{name}.png") as picture:
            assert picture.width > 1000
            colours = picture.convert("RGB").resize((64, 64)).getcolors(4096)
            assert colours is not None
            assert len(colours) > 200, f"{name}.png shows no frames"
    assert "civid build --help" in shown


def test_demo_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="no earlier demo"):
        run_demo(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
