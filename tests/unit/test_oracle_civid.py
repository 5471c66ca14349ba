"""The CI-VID builder makes of odd records what plain code (`support.naive_civid`) makes of them."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from civid_loader.builders.civid import CIVID
from civid_loader.schema import check_table
from civid_loader.upstream.records import Context, Source
from support.naive_civid import JOINT, SINGLE, civid

TOKENS: Final = (
    "A woman.", '"Race"', "line\nbreak", "日本語", "😀", '\\"2022\\"', "\\u0411", "\\", "\\u00", "\ttab", "}", "```",
    ",", '")', "\u00a0wide\u3000",
)  # fmt: skip
TEXT: Final = st.lists(st.sampled_from(TOKENS), max_size=4).map(" ".join)
RESIDUE: Final = st.sampled_from(["", "", '"\n}\n```', '",\n}\n```', "'\n}\n```\n", " ```", '")', '")\n', '"', "}"])


@st.composite
def _item(draw: st.DrawFn, kinds: dict[str, str]) -> Any:
    """One object; now and then as JSON text, out of order, or incomplete."""
    names = draw(st.sampled_from([list(kinds), list(kinds), list(reversed(kinds)), list(kinds)[1:]]))
    item = {name: draw(TEXT) for name in names}
    item[names[-1]] += draw(RESIDUE)
    return json.dumps(item, ensure_ascii=draw(st.booleans())) if draw(st.booleans()) else item


@st.composite
def _record(draw: st.DrawFn) -> dict[str, Any]:
    singles = draw(st.lists(_item(SINGLE), min_size=1, max_size=3))
    num_joints = draw(st.sampled_from([len(singles) - 1] * 4 + [0, len(singles)]))
    colon = draw(st.sampled_from(["", ":"]))
    joints = [draw(_item(JOINT)) for _ in range(num_joints)]
    return {f"single_captions{colon}": singles, f"joint_captions{colon}": joints}


@settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(records=st.lists(_record(), min_size=1, max_size=4), escaped=st.booleans(), blank=st.sampled_from(["", "\n"]))
def test_civid(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], escaped: bool, blank: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "train.jsonl"
    path.write_text(
        "".join(json.dumps(record, ensure_ascii=escaped) + "\n" + blank for record in records), encoding="utf-8"
    )
    assert _built(path) == dict(civid(path))


def _built(path: Path) -> dict[int, Any]:
    """Record number -> sample, or null where it was rejected."""
    source = Source(annotations=(str(path),))
    found: dict[int, Any] = {}
    for chunk in CIVID.plan(source):
        for piece in CIVID.read(chunk, source, Context()):
            check_table(piece.rows, "annotations")
            found |= {row["provenance"]["row_index"]: row for row in piece.rows.to_pylist()}
            found |= {row.row_index: None for row in piece.rejected}
    return found
