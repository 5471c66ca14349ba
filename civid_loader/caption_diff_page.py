"""A comparison of captions as one page of HTML that needs nothing else: no scripts, nothing from outside."""

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Final

from civid_loader.caption_diff import MAX_IDS, CaptionDiff, KindDiff
from civid_loader.caption_examples import Example
from civid_loader.storage import atomic_file
from civid_loader.vocabulary import Lengths, WordShift

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c2024; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #d8dde3; }
table { border-collapse: collapse; margin: .7rem 0; } th, td { padding: .2rem .8rem .2rem 0; text-align: left; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } th { color: #5b6570; font-weight: 500; }
.cols { display: flex; gap: 3rem; flex-wrap: wrap; }
article { border: 1px solid #d8dde3; border-radius: 6px; margin: .8rem 0; padding: .6rem 1rem; }
article p { margin: .3rem 0; overflow-wrap: anywhere; } .id { color: #5b6570; font-size: .85rem; }
.ids { overflow-wrap: anywhere; color: #5b6570; font-size: .85rem; }
.texts { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; }
del { background: #ffe1dd; text-decoration-color: #b3261e; } ins { background: #d9f2e0; text-decoration: none; }
@media (max-width: 45rem) { .texts { grid-template-columns: 1fr; } }
"""


_CLASS: Final = ("", ' class="n"')
"""Of a cell with a text, and with a number."""


def write_diff_html(diff: CaptionDiff, path: Path) -> None:
    """Write the page; all texts stand in it as texts."""
    with atomic_file(path) as file:
        file.write("\n".join(_page(diff)).encode())


def _page(diff: CaptionDiff) -> Iterator[str]:
    first, second = map(escape, diff.names)
    title = f"{escape(diff.dataset)}: {first} → {second}"
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>"
    counts = ", ".join(f"{number:,} in {name}" for name, number in zip((first, second), diff.num_clips, strict=True))
    yield f"<p>{diff.num_clips_in_both:,} clips in both; {counts}.</p>"
    rows = ((one.kind, one.num_changed, one.num_equal, one.num_only_first, one.num_only_second) for one in diff.kinds)
    yield _table(("kind", "changed", "equal", f"only in {first}", f"only in {second}"), rows)
    for name, reasons in zip((first, second), diff.reasons, strict=True):
        if reasons:
            yield f"<h3>Clips without captions in {name}</h3>"
            yield _table(("reason", "clips"), reasons.items())
    yield from _only("Clips", diff.ids_only, (first, second))
    for one in diff.kinds:
        yield from _kind(one, first, second)
    yield "</body>\n</html>"


def _kind(diff: KindDiff, first: str, second: str) -> Iterator[str]:
    yield f'<section>\n<h2 id="{escape(diff.kind)}">{escape(diff.kind)}</h2>'
    rows = []
    for name, lengths, words, different in zip(
        (first, second), diff.lengths, diff.num_words, diff.num_different_words, strict=True
    ):
        rows.append((name, *_numbers(lengths), words, different, f"{different / max(1, words):.4f}"))
    heads = ("words per text", "texts", "mean", "5 %", "median", "95 %", "words", "different", "different / all")
    yield _table(heads, rows, is_escaped=True)
    yield from _only("Clips with captions of this kind", diff.ids_only, (first, second))
    if diff.gained or diff.lost:
        yield '<div class="cols">'
        for title, shifts in (("gained", diff.gained), ("lost", diff.lost)):
            yield f"<div><h3>Words {title}</h3>{_shifts(shifts)}</div>"
        yield "</div>"
    if diff.examples:
        yield f"<h3>{len(diff.examples)} of {diff.num_changed:,} changed texts, the most different first</h3>"
    yield from (_example(one) for one in diff.examples)
    yield "</section>"


def _only(what: str, ids_only: Iterable[tuple[str, ...]], names: Iterable[str]) -> Iterator[str]:
    """The clips that only one has; names are HTML."""
    for ids, name in zip(ids_only, names, strict=True):
        if ids:
            head = f"the first {MAX_IDS} by id" if len(ids) == MAX_IDS else f"{len(ids)}"
            listed = ", ".join(map(escape, ids))
            yield f'<details><summary>{what} only in {name}: {head}</summary><p class="ids">{listed}</p></details>'


def _numbers(lengths: Lengths | None) -> tuple[int | str, ...]:
    if lengths is None:
        return (0, "", "", "", "")
    return (
        lengths.num_texts,
        f"{lengths.mean:.1f}",
        *(f"{one:g}" for one in (lengths.p5, lengths.median, lengths.p95)),
    )


def _shifts(shifts: Iterable[WordShift]) -> str:
    rows = (
        (one.word, f"{one.first_per_million:,.0f}", f"{one.second_per_million:,.0f}", f"{one.z:+.1f}") for one in shifts
    )
    return _table(("word", "before, per million", "after", "z"), rows)


def _example(example: Example) -> str:
    tags = {"same": "{}", "removed": "<del>{}</del>", "added": "<ins>{}</ins>"}
    sides = [
        " ".join(tags[one.change].format(escape(one.text)) for one in example.pieces if one.change != left_out)
        for left_out in ("added", "removed")
    ]
    return (
        f'<article><p class="id">{escape(example.clip_id)} · {example.similarity:.0%} in common</p>'
        f'<div class="texts"><p>{sides[0]}</p><p>{sides[1]}</p></div></article>'
    )


def _table(heads: Iterable[str], rows: Iterable[Iterable[str | int]], *, is_escaped: bool = False) -> str:
    """The first column is text, the others are numbers; heads are HTML, and so are cells where `is_escaped`."""
    head = "".join(f"<th{_CLASS[i > 0]}>{name}</th>" for i, name in enumerate(heads))
    lines = []
    for row in rows:
        texts = [f"{cell:,}" if isinstance(cell, int) else cell if is_escaped else escape(cell) for cell in row]
        lines.append("".join(f"<td{_CLASS[i > 0]}>{text}</td>" for i, text in enumerate(texts)))
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f"<table>\n<tr>{head}</tr>\n{body}</table>"
