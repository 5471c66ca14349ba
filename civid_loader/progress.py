"""One progress bar for long work, on stderr, silent where stderr is not a terminal."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

T = TypeVar("T")


def track(items: Iterable[T], *, label: str, total: int, quiet: bool = False) -> Iterator[T]:
    """Pass `items` on while a bar shows how many of `total` came by and how long the rest will take."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield from items
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        yield from progress.track(items, description=label, total=total)


@contextmanager
def track_bytes(*, label: str, total_bytes: int, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar of bytes; what it gives is called with how many of `total_bytes` are done by now."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda done_bytes: None
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total_bytes)
        yield lambda done_bytes: progress.update(task, completed=done_bytes)


class Advance(Protocol):
    """See `track_units`."""

    def __call__(self, num_more: int, told: str = "") -> None:
        """So many more are done; `told`: what else there is to say of the work so far."""


@contextmanager
def track_units(*, label: str, unit: str, total: int, num_done: int = 0, quiet: bool = False) -> Iterator[Advance]:
    """A bar of things and how many of them pass per second; what it gives is called with how many more are done."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda num_more, told="": None
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), _Speed(unit),
        TimeRemainingColumn(), TextColumn("{task.fields[told]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total, completed=num_done, told="")
        yield lambda num_more, told="": progress.update(task, advance=num_more, told=told)


class _Speed(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """`123 files/s`"""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self._unit}/s", style="progress.data.speed")
