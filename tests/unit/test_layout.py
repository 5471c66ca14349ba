"""Folders, packaging map and links agree; modules import only what stands to their left; importing is quick."""

import ast
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "civid_loader"
ROOMS = ("builders", "hub", "processing", "transforms")

# Left to right. Names in one group do not import each other.
ORDER = (
    ("errors", "schema", "progress", "tar_stream", "palette", "repo_names"),
    ("histograms",),
    ("storage", "pool", "transport", "deadlines"),
    ("archives", "remote", "video_shards", "member_files"),
    ("videos",),
    ("packets", "sampling"),
    ("mp4", "containers"),
    ("stream",),
    ("media", "packet_readers", "pixels", "decode_threads", "sound"),
    ("frame_groups", "backends"),
    ("decoding",),
    ("upstream",),
    ("builders",),
    ("captions",),
    ("buckets", "ordering", "picking"),
    ("transforms",),
    ("epoch", "sample_sizes"),
    ("bucket_report",),
    ("plan",),
    ("collation", "quarantine", "row_ids"),
    ("packing",),
    ("batch_reading",),
    ("loader_stats", "loader_checks"),
    ("loader",),
    ("card",),
    ("layers",),
    ("where", "clip_table", "vocabulary"),
    ("filter_outcomes", "filter_tables", "caption_texts"),
    ("caption_pairs", "caption_examples"),
    ("judging", "caption_diff"),
    ("caption_diff_page", "output"),
    ("processing",),
    ("hub",),
    ("seal", "inspection"),
    ("materialize", "unpacking", "probing", "reencoding", "contact_sheets", "filtering"),
    ("report",),
    ("demo",),
    ("stage_options",),
    ("cli_video", "cli_plan", "cli_hub", "cli_filter", "cli_process", "cli_curate", "cli_tiers"),
    ("cli",),
)
SAME_GROUP = {("schema", "errors")}


def _packaging() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        tool = tomllib.load(file)["tool"]
    setuptools: dict[str, object] = tool["setuptools"]
    return setuptools


def test_every_folder_with_python_files_is_packaged() -> None:
    found = {path.parent.relative_to(CORE).as_posix() for path in CORE.rglob("*.py") if path.parent != CORE}
    found |= {path.parent.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    nested = {f"civid_loader.{folder.replace('/', '.')}" for folder in found}
    assert _packaging()["packages"] == sorted({"civid_loader", *nested})


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_mapped_and_linked(room: str) -> None:
    package_dir = _packaging()["package-dir"]
    assert isinstance(package_dir, dict)
    assert package_dir[f"civid_loader.{room}"] == room
    link = CORE / room
    assert link.is_symlink()
    assert os.readlink(link) == f"../{room}"
    assert '"""' in (ROOT / room / "__init__.py").read_text()


def test_no_other_room_is_mapped() -> None:
    package_dir = _packaging()["package-dir"]
    assert isinstance(package_dir, dict)
    assert set(package_dir.values()) == set(ROOMS)


def _module_files() -> list[tuple[str, Path]]:
    files = [path for path in CORE.rglob("*.py") if path.relative_to(CORE).parts[0] not in ROOMS]
    files += [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    named = []
    for path in files:
        base = CORE if path.is_relative_to(CORE) else ROOT
        named.append((path.relative_to(base).parts[0].removesuffix(".py"), path))
    return [(name, path) for name, path in named if name != "__init__"]


def _imported(path: Path) -> set[str]:
    """First parts of `civid_loader.<part>` imported anywhere in the file, but under `if TYPE_CHECKING:`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "civid_loader":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("civid_loader."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("civid_loader.")}
    return found


def test_modules_import_only_to_their_left() -> None:
    place = {name: i for i, group in enumerate(ORDER) for name in group}
    wrong = []
    for name, path in _module_files():
        assert name in place, f"{path}: give {name} a place in ORDER"
        for other in _imported(path) - {name}:
            if place[other] > place[name] or (place[other] == place[name] and (name, other) not in SAME_GROUP):
                wrong.append(f"{path.relative_to(ROOT)} imports civid_loader.{other}")
    assert not wrong


def test_import_brings_nothing_heavy() -> None:
    code = "import sys, civid_loader; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "civid_loader" in loaded
    assert not loaded & {"torch", "torchvision", "datasets", "ray", "av", "pyarrow", "transformers"}


def _best_seconds(arguments: list[str]) -> float:
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        best = min(best, time.perf_counter() - start)
    return best


def test_import_budget() -> None:
    """Import: 0.3 s over a bare interpreter; `civid --help`: 0.5 s. Best of five, since machines are shared."""
    bare = _best_seconds(["-c", "pass"])
    assert _best_seconds(["-c", "import civid_loader"]) - bare < 0.3
    assert _best_seconds(["-m", "civid_loader.cli", "--help"]) - bare < 0.5


def test_every_public_name_resolves() -> None:
    import civid_loader

    for name in civid_loader.__all__:
        assert getattr(civid_loader, name) is not None
    with pytest.raises(AttributeError, match="it has"):
        _ = civid_loader.nonsense


def test_files_are_of_a_readable_size() -> None:
    for path in [*ROOT.glob("*/*.py"), *ROOT.glob("*/*/*.py")]:
        limit = 400 if "tests" in path.parts else 300
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= limit, path
