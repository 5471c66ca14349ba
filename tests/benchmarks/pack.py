"""Time and peak memory of putting clips into the `videos` config.

    python tests/benchmarks/pack.py FOLDER [--clips 1500] [--megabytes 1.0]

The clips are random bytes of about that size, on the disk of FOLDER; the peak is that of a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from civid_loader.hub.video_config import write_video_config
from support.built import clip, write_dataset


def make(folder: Path, *, num_clips: int, megabytes: float) -> None:
    """Clips in samples of three, and the dataset of them."""
    rng = Random(0)
    (folder / "files").mkdir(parents=True)
    names = [f"{i:06d}" for i in range(num_clips)]
    for name in names:
        (folder / "files" / f"{name}.mp4").write_bytes(rng.randbytes(int(megabytes * 1e6 * rng.uniform(0.5, 1.5))))
    clips = [clip(name, f"{name}.mp4") for name in names]
    write_dataset(folder / "data", {"train": [clips[i : i + 3] for i in range(0, num_clips, 3)]})


def pack(folder: Path) -> None:
    """Print what it took, as JSON."""
    before_bytes = _peak_bytes()
    start = time.perf_counter()
    report = write_video_config(folder / "data", video_root=folder / "files", quiet=True)
    seconds = time.perf_counter() - start
    peak_bytes = _peak_bytes()
    told = {
        "num_clips": report.num_inside,
        "gigabytes": round(report.num_bytes / 1e9, 3),
        "num_shards": report.num_shards,
        "seconds": round(seconds, 1),
        "megabytes_per_second": round(report.num_bytes / 1e6 / seconds),
        "imports_megabytes": round(before_bytes / 1e6),
        "peak_megabytes": round(peak_bytes / 1e6),
    }
    print(json.dumps(told))


def _peak_bytes() -> int:
    """Of this program alone: what getrusage tells, a process inherits from the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Make the files, and pack them in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=1500)
    parser.add_argument("--megabytes", type=float, default=1.0)
    parser.add_argument("--pack", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.pack:
        pack(given.folder)
        return
    make(given.folder, num_clips=given.clips, megabytes=given.megabytes)
    subprocess.run([sys.executable, __file__, str(given.folder), "--pack"], check=True)


if __name__ == "__main__":
    main()
