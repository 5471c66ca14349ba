"""How fast `civid_loader.build` is: against pyarrow alone, and against a row by row `datasets` builder.

    python tests/benchmarks/build.py [--rows-scale 1.0] [--repeats 3] [--data FOLDER] [--output FOLDER] [--memory]

Every run is a process of its own (`contenders.py`); contenders alternate; medians are shown. CPU seconds count all
threads and no imports. Nothing is fetched: the tables are made up (`generate.py`).
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.generate import ROWS, generate
from benchmarks.plot import save_curve

CONTENDERS: Final = ("ours", "floor", "floor_our_options", "row_by_row")
TITLES: Final = {"lvd2m": "LVD-2M CSV", "miradata": "MiraData v1 CSV", "civid": "CI-VID JSONL"}
MEMORY_ROWS: Final = 2_000_000
SAMPLE_SECONDS: Final = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows-scale", type=float, default=1.0, help="1.0: 300,000 / 100,000 / 20,000 rows")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir(), "civid-benchmark"), help="made tables")
    parser.add_argument(
        "--output", type=Path, help="where Parquet goes for the while; default: the folder for temporary files"
    )
    parser.add_argument("--only", nargs="*", choices=sorted(ROWS), default=list(ROWS))
    parser.add_argument("--memory", action="store_true", help="only this: memory over time, 2,000,000 LVD-2M rows")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="civid-benchmark-", dir=options.output))
    try:
        if options.memory:
            _memory(options.data, scratch, options.rows_scale)
        else:
            tables = {name: generate(name, options.data, options.rows_scale) for name in options.only}
            _speed(tables, scratch, options.repeats)
            if "lvd2m" in tables:
                _num_proc(tables["lvd2m"], scratch, options.repeats)
    finally:
        shutil.rmtree(scratch)


def _speed(tables: dict[str, Path], scratch: Path, repeats: int) -> None:
    print(f"python {platform.python_version()}, pyarrow {version('pyarrow')}, datasets {version('datasets')}, "
          f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; median of {repeats}, CPU seconds\n")  # fmt: skip
    print(
        "| table | rows | MB | ours | rows/CPU-s | pyarrow | ours/pyarrow | pyarrow, our options | ours/that "
        "| row by row | row by row/ours |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for name, path in tables.items():
        runs = [[_run(contender, name, path, scratch) for contender in CONTENDERS] for _ in range(repeats)]
        ours, floor, our_options, rows = (
            statistics.median(run["cpu_seconds"] for run in column) for column in zip(*runs, strict=True)
        )
        num_rows = {run["num_rows"] for column in runs for run in column}
        assert len(num_rows) == 1, f"{name}: the contenders disagree about the number of rows: {num_rows}"
        cells = [TITLES[name], f"{min(num_rows):,}", f"{path.stat().st_size / 1e6:.0f}", f"{ours:.2f}"]
        cells += [f"{min(num_rows) / ours:,.0f}", f"{floor:.2f}", f"{ours / floor:.2f}x", f"{our_options:.2f}"]
        cells += [f"{ours / our_options:.2f}x", f"{rows:.2f}", f"{rows / ours:.1f}x"]
        print(f"| {' | '.join(cells)} |", flush=True)


def _num_proc(path: Path, scratch: Path, repeats: int) -> None:
    runs = [[_run(contender, "lvd2m", path, scratch) for contender in ("ours", "ours_two")] for _ in range(repeats)]
    one, two = (statistics.median(run["wall_seconds"] for run in column) for column in zip(*runs, strict=True))
    print(
        f"\nLVD-2M, one file, wall seconds: num_proc=1 {one:.1f}, num_proc=2 {two:.1f}: {one / two:.2f}x as fast; "
        f"two busy loops at once get {statistics.median(_two_cores() for _ in range(3)):.2f}x of one done here"
    )


def _two_cores() -> float:
    """How much more two processes get done than one, right now: 2 on two idle cores, 1 where others use one."""
    loop = [sys.executable, "-c", "for _ in range(30_000_000): pass"]
    begin = time.perf_counter()
    subprocess.run(loop, check=True)
    alone = time.perf_counter() - begin
    begin = time.perf_counter()
    for process in [subprocess.Popen(loop) for _ in range(2)]:
        process.wait()
    return 2 * alone / (time.perf_counter() - begin)


def _run(contender: str, name: str, path: Path, scratch: Path) -> dict[str, Any]:
    """One measurement; what it wrote is removed."""
    done = subprocess.run(_command(contender, name, path, scratch), check=True, stdout=subprocess.PIPE, text=True)
    _empty(scratch)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _command(contender: str, name: str, path: Path, scratch: Path) -> list[str]:
    script = Path(__file__).with_name("contenders.py")
    return [sys.executable, str(script), contender, name, str(path), str(scratch / "out")]


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _memory(data: Path, scratch: Path, scale: float) -> None:
    """Resident memory of a build, and of the interpreter before it, every half second."""
    path = generate("lvd2m", data, scale * MEMORY_ROWS / ROWS["lvd2m"])
    size = path.stat().st_size
    try:
        process = subprocess.Popen(_command("ours", "lvd2m", path, scratch), stdout=subprocess.PIPE, text=True)
        curve = []
        begin = time.perf_counter()
        while process.poll() is None:
            curve.append((time.perf_counter() - begin, _resident_bytes(process.pid) / 1e6))
            time.sleep(SAMPLE_SECONDS)
        assert process.stdout
        measured = json.loads(process.stdout.read().splitlines()[-1])
    finally:
        path.unlink()
    peak = max(megabytes for _, megabytes in curve)
    print(
        f"{measured['num_rows']:,} rows, {size / 1e9:.2f} GB, {measured['cpu_seconds']:.0f} CPU s: peak {peak:.0f} MB"
    )
    for tenth in range(10):
        part = [megabytes for _, megabytes in curve[tenth * len(curve) // 10 : (tenth + 1) * len(curve) // 10]]
        if part:
            print(f"  {tenth * 10:3d}-{tenth * 10 + 10} % of the time: {min(part):5.0f} to {max(part):5.0f} MB")
    print(save_curve(curve, data / "memory.png", x_label="seconds", y_label="resident MB"))


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


if __name__ == "__main__":
    main()
