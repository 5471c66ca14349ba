"""Results as tables on the terminal."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from civid_loader.inspection import Inspection
    from civid_loader.materialize import BuildReport
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
