"""The statistics of a dataset as pictures for its card."""

import io
from collections.abc import Mapping, Sequence

from civid_loader.histograms import Panel, draw_panels
from civid_loader.hub.statistics import Statistics

WIDTH_PX = 900
"""As wide as the Hub shows them."""


def plots(statistics: Statistics) -> dict[str, bytes]:
    """Name (`durations`) -> PNG file. What all samples have alike, such as one clip each, gets no picture."""
    # name -> (title, panels)
    panels: dict[str, tuple[str, Sequence[Panel]]] = {}
    if statistics.durations.num_values:
        title = "Length of clips" + ("" if statistics.durations_are_measured else ", as upstream states it")
        panels["durations"] = title, [_panel("clip duration, s", "clips", statistics.durations.histogram)]
    if len(statistics.clips_per_sample.histogram) > 1:
        counts = statistics.clips_per_sample.histogram
        panels["clips_per_sample"] = "Clips per sample", [_panel("clips per sample", "samples", counts)]
    for config, by_kind in statistics.words.items():
        if by_kind:
            kinds = {kind: numbers.num_values for kind, numbers in by_kind.items()}
            words = [_panel(kind, "captions", numbers.histogram) for kind, numbers in by_kind.items()]
            title = f"config {config}"
            if len(kinds) > 1:
                panels[f"captions_{config}"] = (
                    f"Captions of each kind, {title}",
                    [_panel("kind of caption", "captions", kinds)],
                )
            panels[f"words_{config}"] = f"Words per caption, {title}", words
    for config, columns in statistics.scores.items():
        shown = [_panel(name, "clips", numbers.histogram) for name, numbers in columns.items()]
        if shown:
            panels[config] = f"Layer {config}", shown
    return {name: _png(title, shown) for name, (title, shown) in panels.items()}


def _panel(title: str, counted: str, counts: Mapping[str, int]) -> Panel:
    return Panel(title=title, counted=counted, counts=counts, otherwise="no values")


def _png(title: str, panels: Sequence[Panel]) -> bytes:
    file = io.BytesIO()
    draw_panels(panels, title=title, width_px=WIDTH_PX, columns=min(2, len(panels))).save(file, format="PNG")
    return file.getvalue()
