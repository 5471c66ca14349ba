"""The table of resumes: a loader stopped within an epoch and in the next, and gone on with other workers and ranks.

    python tests/benchmarks/resume.py

Batches are compared bit for bit where the ranks stay the same, else the samples of each global batch. That of a process
killed with SIGKILL, and of ranks under gloo, is `tests/integration/test_loader_killed.py`.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table

from support.resuming import CHANGES, CONFIGURATIONS, NUM_ROWS, loader_of
from support.training import dataset_of, prove_resume, write_videos


def main() -> None:
    """Prove and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores
    table = Table(title="stopped after 1 and after 8 batches of 2 epochs: lost / repeated, and what was equal")
    table.add_column("configuration", no_wrap=True)
    for before, after in CHANGES:
        table.add_column(f"{_told(before)} -> {_told(after)}")
    with tempfile.TemporaryDirectory() as folder:
        rows = dataset_of(write_videos(Path(folder), NUM_ROWS))
        for name, changes in CONFIGURATIONS.items():
            table.add_row(name, *(_cell(Path(folder), rows, changes, *change) for change in CHANGES))
    Console(width=160).print(table)


def _cell(folder: Path, rows: Any, changes: dict[str, Any], before: dict[str, int], after: dict[str, int]) -> str:
    def make(**settings: Any) -> Any:
        return loader_of(folder, rows, **changes, **settings)

    found = [prove_resume(make, epochs=2, stop_after=stop, before=before, after=after) for stop in (1, 8)]
    lost, repeated = (sum(one[what] for one in found) for what in ("lost", "repeated"))
    equal = "bits" if before.get("world_size", 1) == after.get("world_size", 1) else "samples"
    return f"{lost} / {repeated}, {equal}"


def _told(settings: dict[str, int]) -> str:
    names = {"num_workers": "workers", "world_size": "ranks"}
    return " ".join(f"{value} {names[name]}" for name, value in settings.items())


if __name__ == "__main__":
    main()
