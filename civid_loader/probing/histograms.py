"""The report of `civid probe` as a picture: one panel for each histogram."""

from pathlib import Path

from civid_loader.histograms import Panel, draw_panels
from civid_loader.probing.media_report import ProbeReport


def draw(report: ProbeReport, path: Path, *, title: str) -> None:
    """Save the histograms of a report as the PNG file `path`."""
    panels = [
        Panel(title=name, counted="clips", counts=counts, otherwise="no clip is ok")
        for name, counts in report.histograms.items()
    ]
    draw_panels(panels, title=title, subtitle=_summary(report)).save(path, format="PNG")


def _summary(report: ProbeReport) -> str:
    num_ok = report.statuses.get("ok", 0)
    parts = [
        f"{num_ok:,} of {report.num_clips:,} clips ok",
        f"{report.hours:,.1f} hours",
        f"{report.num_files:,} files",
    ]
    if num_ok:
        parts.append(f"variable frame rate {report.num_vfr / num_ok:.1%}")
    return "     ".join(parts)
