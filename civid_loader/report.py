"""Results as tables on the terminal."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from civid_loader.inspection import Inspection
    from civid_loader.materialize import BuildReport
    from civid_loader.plan import BatchPlan
    from civid_loader.probing.media_report import ProbeReport
    from civid_loader.reencoding.proxies import ProxyReport
    from civid_loader.sample_sizes import SampleSizes
    from civid_loader.unpacking import UnpackReport


def print_build(report: "BuildReport") -> None:
    """Rows, captions, flags and rejected rows of a build, then the terms of the data."""
    console = Console()
    table = Table(title=f"{report.name} → {escape(report.output)}", title_justify="left")
    table.add_column("what")
    table.add_column("", overflow="fold")
    table.add_column("number", justify="right")
    for name, splits in report.num_rows.items():
        _section(table, "rows" if name == "annotations" else name, splits.items())
    for name, counts in report.counts.items():
        _section(table, name, ((key, number) for key, number in counts.items() if key != name))
    _section(table, "rejected", report.rejected.items())
    console.print(table)
    if report.rejected:
        console.print(f"Rejected rows, with reasons: {escape(report.output)}/rejected/rows.jsonl")
    if missing := report.counts.get("flags", {}).get("video_not_found"):
        console.print(f"{missing} rows have clips whose video is not below the root; they are kept, and flagged.")
    console.print(f"[bold]Terms of the upstream data:[/bold] {escape(report.license)}")
    console.print(f"Load it: [green]datasets.load_dataset({escape(json.dumps(report.output))})[/green]")


def print_inspection(found: "Inspection") -> None:
    """Columns, odd rows and first rows of what was inspected."""
    console = Console()
    rows = f"{found.num_rows:,} rows" + ("" if found.is_complete else " looked at")
    console.print(f"[bold]{escape(found.path)}[/bold]: {found.kind}, {rows}")
    recognized = ", ".join(found.datasets) or "none (no dataset has these columns or keys)"
    console.print(f"Dataset: [green]{recognized}[/green]")
    if found.columns:
        table = Table()
        for name, right in (("column", False), ("type", False), ("null", True), ("distinct", True), ("example", False)):
            table.add_column(name, justify="right" if right else "left", overflow="fold")
        for column in found.columns:
            kinds = " | ".join(column.kinds) or "-"
            name = escape(column.name) + ("" if column.is_read is not False else " [yellow](not read)[/yellow]")
            table.add_row(name, kinds, str(column.num_null), str(column.num_distinct), escape(column.example or ""))
        console.print(table)
    unread = [column.name for column in found.columns if column.is_read is False]
    if unread:
        console.print(f"[yellow]No dataset field for: {escape(', '.join(unread))}[/yellow] (see --field-map)")
    for title, counts in (("Found", found.counts), ("Flags", found.flags)):
        if counts:
            console.print(f"{title}: " + ", ".join(f"{escape(name)} {number:,}" for name, number in counts.items()))
    for line in found.odd_rows:
        console.print(f"[red]{escape(line)}[/red]")
    for row in found.first_rows[:1]:
        console.print("First row:")
        console.print_json(json.dumps(_shortened(row), ensure_ascii=False))


def print_plan(plan: "BatchPlan", found: "SampleSizes") -> None:
    """Bucket by bucket what an epoch does to the samples."""
    console = Console()
    title = f"{len(found.sizes):,} samples of {int(found.num_clips.sum()):,} clips, {plan.world_size} ranks"
    # Without lines between the columns, so that ten of them fit into a narrow terminal.
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("bucket", "samples", "batch", "steps", "fill", "drop", "scale", "larger", "crop", "pad"):
        table.add_column(name, justify="left" if name == "bucket" else "right", no_wrap=True)
    reports = plan.report()
    for one in reports:
        shape = one.bucket
        name = "all" if shape is None else f"{shape.num_frames}x{shape.height}x{shape.width}"
        counts = (one.num_samples, one.batch_size, one.num_batches, one.num_filling, one.num_dropped)
        shares = (one.upscaled_share, one.crop_share, one.padding_share)
        table.add_row(
            name, *(f"{count:,}" for count in counts), f"{one.scale:.2f}x", *(f"{share:.1%}" for share in shares)
        )
    console.print(table)
    steps = plan.num_batches()
    dropped, filling = (sum(getattr(one, name) for one in reports) for name in ("num_dropped", "num_filling"))
    console.print(
        f"{steps:,} steps per epoch and rank; {dropped:,} samples dropped, {filling:,} repeated with weight 0."
    )
    if found.num_measured < len(found.sizes):
        stated = len(found.sizes) - found.num_measured - found.num_unknown
        console.print(
            f"[yellow]{found.num_measured:,} sizes are measured, {stated:,} as upstream states them, "
            f"{found.num_unknown:,} not known[/yellow] (taken for the most common one); civid probe measures them."
        )


def print_unpack(report: "UnpackReport") -> None:
    """Files, bytes and refused members by archive, then the first refused ones with their reasons."""
    console = Console()
    table = Table(title=f"→ {escape(report.output)}", title_justify="left")
    table.add_column("archive", overflow="fold")
    for name in ("files", "skipped", "refused", "GB"):
        table.add_column(name, justify="right")
    table.add_column("")
    for one in report.archives:
        state = "[red]failed[/red]" if one.error else "finished before" if one.was_finished else "whole"
        numbers = (one.num_files, one.num_skipped, sum(one.refused.values()))
        table.add_row(escape(one.archive), *(f"{number:,}" for number in numbers), f"{one.num_bytes / 1e9:,.3f}", state)
    console.print(table)
    for one in report.archives:
        if one.refused:
            console.print(f"Refused in {escape(one.archive)}:")
            for reason, number in one.refused.items():
                console.print(f"  {number:,} {escape(reason)}")
            shown = one.examples[:10]
            for line in (*shown, *["…"][: sum(one.refused.values()) > len(shown)]):
                console.print(f"    {escape(line)}")


def print_proxies(report: "ProxyReport") -> None:
    """How many clips have a copy, and which have none and why."""
    console = Console()
    table = Table(title=f"training copies → {escape(report.output)}", title_justify="left")
    table.add_column("clips")
    table.add_column("number", justify="right")
    table.add_row("encoded", f"{report.num_encoded:,}")
    for reason, number in report.failed.items():
        table.add_row(f"[red]{escape(reason)}[/red]", f"{number:,}")
    console.print(table)
    mean = report.num_bytes / max(1, report.num_encoded)
    console.print(f"{report.num_bytes / 1e9:,.3f} GB of video, {mean / 1e6:,.2f} MB per clip.")
    if report.failed:
        console.print(f"Clips without a copy, all in {escape(report.output)}/rejected/proxies.jsonl, the first:")
        for line in report.examples:
            console.print(f"  {escape(line)}")
    folder = escape(json.dumps(report.output))
    console.print(
        f"Load it: [green]datasets.load_dataset({folder})[/green], the copies as config [green]videos[/green]"
    )


def print_probe(report: "ProbeReport") -> None:
    """What is there and what is not and why, what changed, and how the videos are."""
    console = Console()
    files = f"{report.num_files:,} files" + (f", {report.num_unchanged:,} unchanged" if report.num_unchanged else "")
    table = Table(title=f"{escape(report.dataset)}: {report.num_clips:,} clips, {files}", title_justify="left")
    table.add_column("")
    table.add_column("", overflow="fold")
    table.add_column("clips", justify="right")
    table.add_column("share", justify="right")
    for status, number in report.statuses.items():
        name = status if status == "ok" else f"[red]{status}[/red]"
        table.add_row(name, "", f"{number:,}", f"{number / report.num_clips:.1%}")
        for reason, count in report.reasons.get(status, {}).items():
            table.add_row("", escape(reason), f"{count:,}", f"{count / report.num_clips:.1%}")
    table.add_section()
    traits = {"cut off": report.num_truncated, "variable rate": report.num_vfr, "with sound": report.num_with_audio}
    for name, number in traits.items():
        table.add_row(name, "", f"{number:,}", f"{number / max(1, report.statuses.get('ok', 0)):.1%} of ok")
    console.print(table)
    console.print(f"{report.length}.")
    console.print(Columns([_histogram(name, counts) for name, counts in report.histograms.items() if counts]))
    _print_changes(console, report)
    if report.first_are_missing:
        console.print(
            f"[red]Every one of the first {report.first_are_missing:,} files is missing: is --videos the folder that "
            "pointers start from?[/red]"
        )
    console.print(f"Look at it: [green]{escape(report.picture)}[/green]")
    folder = escape(json.dumps(report.dataset))
    console.print(f'Load it: [green]datasets.load_dataset({folder}, "media")[/green]')


def _histogram(name: str, counts: Mapping[str, int]) -> Table:
    table = Table(title=name, title_justify="left", box=None, show_header=False)
    largest = max(counts.values())
    for label, count in counts.items():
        table.add_row(escape(label), f"[cyan]{'█' * -(-count * 20 // largest):20}[/cyan]", f"{count:,}")
    return table


def _print_changes(console: Console, report: "ProbeReport") -> None:
    if report.changes is not None:
        console.print("Since the last run: " + ("" if report.changes else "nothing changed"))
    for kind, change in (report.changes or {}).items():
        console.print(f"  {change.num_files:,} {kind}")
        for name in (*change.first, *["…"][: change.num_files > len(change.first)]):
            console.print(f"    {escape(name)}")


def print_frames(times: Mapping[str, Sequence[tuple[float, float]]], *, sheet: Path) -> None:
    """For each video, times asked for and times of the frames that are there."""
    console = Console()
    if times:
        table = Table()
        table.add_column("video", overflow="fold")
        for name in ("frame", "asked, s", "got, s"):
            table.add_column(name, justify="right")
        for video, rows in times.items():
            for number, (asked, got) in enumerate(rows):
                table.add_row("" if number else escape(video), str(number), f"{asked:.3f}", f"{got:.3f}")
            table.add_section()
        console.print(table)
    console.print(f"Look at them: [green]{escape(str(sheet))}[/green]")


def _section(table: Table, title: str, items: Iterable[tuple[str, int]]) -> None:
    for i, (name, number) in enumerate(items):
        table.add_row(title if i == 0 else "", escape(name), f"{number:,}", end_section=False)
    if table.rows:
        table.rows[-1].end_section = True


def _shortened(value: Any) -> Any:
    """The same value with long texts and lists cut."""
    if isinstance(value, str):
        return value if len(value) <= 160 else f"{value[:160]}…"
    if isinstance(value, list):
        return [_shortened(item) for item in value[:3]] + ([f"… {len(value) - 3} more"] if len(value) > 3 else [])
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    return value
