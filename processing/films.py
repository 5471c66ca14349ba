"""Scenes of several films in one batch: each film by itself, its scenes in order."""

from collections.abc import Callable, Sequence
from itertools import groupby

from civid_loader.processing.stage import ClipInput, Row


def rows_by_film(
    batch: Sequence[ClipInput],
    find: Callable[[Sequence[ClipInput]], list[Row]],
    *,
    is_known: Callable[[ClipInput], bool],
    reason: str,
) -> list[Row]:
    """What is found of each film, as one row per scene in the order of the batch.

    Args:
        batch: scenes in any order; `row["video"]` is the film, `row["index"]` the place in it.
        find: rows of the scenes of one film, which come in order.
        is_known: whether a scene brings what `find` needs; the others have `reason`.
        reason: why not.
    """
    rows: list[Row] = [{"reason": reason} for _ in batch]
    known = [i for i, clip in enumerate(batch) if is_known(clip)]
    order = sorted(known, key=lambda i: (str(batch[i].row["video"]), int(batch[i].row["index"])))
    for _, members in groupby(order, key=lambda i: str(batch[i].row["video"])):
        places = list(members)
        for place, row in zip(places, find([batch[i] for i in places]), strict=True):
            rows[place] = row
    return rows
