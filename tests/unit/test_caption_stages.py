"""Stages that describe clips of CI-VID, MiraData and LVD-2M: the right words in the right place."""

import re
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest

from civid_loader.errors import CaptionerError
from civid_loader.processing import registry
from civid_loader.processing.answers import Answers
from civid_loader.processing.asking import AskingStage
from civid_loader.processing.captioner import Film, Request
from civid_loader.processing.captions.civid_joint import CividJoint, CividJointParams
from civid_loader.processing.captions.lvd2m_raw import Lvd2mRaw, Lvd2mRawParams
from civid_loader.processing.captions.lvd2m_refine import Lvd2mRefine, Lvd2mRefineParams
from civid_loader.processing.captions.lvd2m_rewrite import Lvd2mRewrite, Lvd2mRewriteParams
from civid_loader.processing.captions.miradata_structured import MiradataStructured, MiradataStructuredParams
from civid_loader.processing.known_captions import caption_of, captions_of
from civid_loader.processing.pictures import grid_of
from civid_loader.processing.planner import DecodedClip
from civid_loader.processing.stage import FrameRequest, Row
from civid_loader.processing.stage_rows import rows_of_unit
from civid_loader.sampling import UniformPieces
from support.scripted_captioner import (
    Script,
    ScriptedCaptioner,
    asked_clip,
    caption,
    connected,
    pictures_of,
    texts_of,
)

LONG = 250
"""Seconds, of a clip of 1 frame per second: windows of 120, 120 and 10 s."""


def names_back(request: Request) -> dict[str, str]:
    """Each field is answered by its own name and which question it was."""
    assert request.schema is not None
    which = request.id.rpartition("/")[2]
    return {name: f"{name} of {which}" for name in request.schema["properties"]}


def told(row: dict[str, Any], name: str = "captions") -> list[tuple[str, str, float | None, float | None]]:
    return [(one["kind"], one["text"], one["start_seconds"], one["end_seconds"]) for one in row[name]]


def singles(about: str) -> list[dict[str, Any]]:
    kinds = ("content", "camera_angle", "camera_movement", "background")
    return [caption(kind, f"{kind} of {about}") for kind in kinds]


@pytest.mark.parametrize(
    "name", ["civid_single", "civid_joint", "miradata_structured", "lvd2m_raw", "lvd2m_refine", "lvd2m_rewrite"]
)
def test_instructions_name_the_fields_and_their_limits(name: str) -> None:
    stage = registry.make(name)
    assert isinstance(stage, AskingStage)
    for prompt in stage.prompts:
        text = stage.prompt(prompt).text
        if prompt != "miradata_hint":
            for field in stage.fields:
                assert f'"{field.name}"' in text, prompt
            for field in stage.fields:
                assert re.search(rf'"{field.name}"[^"]*at most {field.max_words} words', text), (prompt, field.name)


# CI-VID: from one clip to the next.


def pair(*rows: dict[str, Any], sizes: tuple[tuple[int, int], ...] = ((27, 48), (27, 48))) -> Any:
    """What the stage says of two clips, and whom it asked."""
    stage = CividJoint(CividJointParams())
    captioner = connected(stage, names_back)
    clips = [
        asked_clip(stage, clip_id=f"c{i}", num_frames=100 + 40 * i, size=size, row=row)
        for i, (row, size) in enumerate(zip(rows, sizes, strict=True))
    ]
    return stage.run(clips), captioner


def test_the_step_between_two_clips() -> None:
    rows, captioner = pair({"index": 0, "captions": singles("A")}, {"index": 1, "captions": singles("B")})
    (request,) = captioner.requests
    assert request.id.startswith("c1/")
    assert "reason" not in rows[0]
    assert not rows[0].get("transition_captions")
    assert rows[0]["civid_joint_num_requests"] == 0
    assert rows[1]["captions"] == []
    assert [(kind, text.removesuffix(" of joint")) for kind, text, *_ in told(rows[1], "transition_captions")] == [
        ("continuation_content", "continuation_in_video_content"),
        ("change_content", "change_in_video_content"),
        ("continuation_background", "continuation_in_video_background"),
        ("change_background", "change_in_video_background"),
        ("change_camera_angle", "change_in_camera_angle"),
        ("change_camera_movement", "change_in_camera_movement"),
    ]
    assert rows[1]["transition_captions"][0]["annotator"].startswith("civid_loader:civid_joint@")
    first, second = texts_of(request).split("First clip:")[1].split("Second clip:")
    assert "content: content of A" in first
    assert "camera angle: camera_angle of A" in first
    assert "background: background of B" in second


def test_the_picture_of_a_pair() -> None:
    """100 frames show 25, 50 and 75 above; 140 show 35, 70 and 105 below; 10 px of white between, none outside."""
    _, captioner = pair({"index": 0, "captions": singles("A")}, {"index": 1, "captions": singles("B")})
    (picture,) = pictures_of(captioner.requests[0])
    expected = np.full((2 * 27 + 10, 3 * 48 + 2 * 10, 3), 255, np.uint8)
    for i, value in enumerate((25, 50, 75, 35, 70, 105)):
        top, left = i // 3 * 37, i % 3 * 58
        expected[top : top + 27, left : left + 48] = value
    assert np.array_equal(picture, expected)


def test_a_smaller_clip_in_a_pair_is_not_stretched() -> None:
    told_of = ({"index": 0, "captions": singles("A")}, {"index": 1, "captions": singles("B")})
    _, captioner = pair(*told_of, sizes=((27, 48), (48, 20)))
    (picture,) = pictures_of(captioner.requests[0])
    assert picture.shape == (2 * 48 + 10, 3 * 48 + 20, 3)
    assert (picture[58:106, :20] == 35).all()
    assert (picture[58:106, 20:58] == 255).all()


def test_a_pair_of_which_something_is_missing() -> None:
    both = {"captions": singles("A")}
    rows, captioner = pair({"index": 0, **both}, {"index": 2, **both})
    assert rows[1]["reason"] == "the clip before, number 1 of its sample, could not be read"
    rows, _ = pair({"index": 1, **both}, {"index": 2, **both})
    assert rows[0]["reason"] == "the clip before, number 0 of its sample, could not be read"
    assert len(rows[1]["transition_captions"]) == 6
    for captions, who in (([], "the clip before"), (singles("A"), "the clip")):
        of_second = singles("B") if not captions else [caption("background", "a wall")]
        rows, captioner = pair({"index": 0, "captions": captions}, {"index": 1, "captions": of_second})
        assert rows[1]["reason"].startswith(f"{who} has no caption of kind content: name civid_single")
        assert captioner.requests == []


# MiraData: six captions.


def mira(num_frames: int, *, fps: float = 8.0, captions: Any = (), **params: Any) -> tuple[Any, ScriptedCaptioner]:
    stage = MiradataStructured(MiradataStructuredParams(**params))
    captioner = connected(stage, names_back)
    clip = asked_clip(stage, num_frames=num_frames, fps=fps, size=(27, 48), row={"captions": list(captions)})
    return stage.run([clip])[0], captioner


def test_six_captions_of_a_clip() -> None:
    row, captioner = mira(80)
    kinds = ("short", "dense", "main_object", "background", "camera", "style")
    assert told(row) == [(kind, f"{kind} of window-0", None, None) for kind in kinds]
    assert row["miradata_structured_num_requests"] == len(captioner.requests) == 1
    assert "10.00 seconds" in texts_of(captioner.requests[0])


def test_a_long_clip_in_windows() -> None:
    row, captioner = mira(LONG, fps=1.0, pictures="pictures")
    windows = [(0.0, 120.0), (120.0, 240.0), (240.0, 250.0)]
    dense = [one for one in told(row) if one[0] == "dense"]
    assert dense == [("dense", f"dense of window-{i}", *window) for i, window in enumerate(windows)]
    assert len(row["captions"]) == 18
    seen = [[int(one[0, 0, 0]) for one in pictures_of(request)] for request in captioner.requests]
    assert seen[1] == [127, 142, 157, 172, 187, 202, 217, 232]
    assert seen[2][0] == 240


def test_two_minutes_are_one_window() -> None:
    row, captioner = mira(120, fps=1.0)
    assert len(captioner.requests) == 1
    assert {one["end_seconds"] for one in row["captions"]} == {None}


def test_how_frames_are_shown() -> None:
    grid = pictures_of(mira(80, pictures="grid")[1].requests[0])
    assert [one.shape for one in grid] == [(84, 242, 3)]
    assert [int(grid[0][10, 10 + 58 * i, 0]) for i in range(4)] == [5, 15, 25, 35]
    assert [int(grid[0][47, 10 + 58 * i, 0]) for i in range(4)] == [45, 55, 65, 75]
    assert (grid[0][:10] == 255).all()
    assert len(pictures_of(mira(80, pictures="pictures")[1].requests[0])) == 8
    (film,) = (part for part in mira(80)[1].requests[0].parts if isinstance(part, Film))
    assert film.frames_THWC[:, 0, 0, 0].tolist() == [5, 15, 25, 35, 45, 55, 65, 75]
    assert film.times_seconds.tolist() == [k / 8 for k in (5, 15, 25, 35, 45, 55, 65, 75)]
    with pytest.raises(ValueError, match="pictures='films': must be one of film, pictures, grid"):
        MiradataStructuredParams(pictures="films")  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_a_clip_with_few_frames(num_frames: int) -> None:
    """0.18 s of film have four or five; none is shown twice but in a picture, whose cells are all filled."""
    row, captioner = mira(num_frames, fps=25.0, pictures="pictures")
    assert len(row["captions"]) == 6
    assert [one[0, 0, 0] for one in pictures_of(captioner.requests[0])] == list(range(num_frames))
    assert f"Moments that you see: {num_frames}." in texts_of(captioner.requests[0])
    (film,) = (part for part in mira(num_frames, fps=25.0)[1].requests[0].parts if isinstance(part, Film))
    assert len(film.frames_THWC) == num_frames
    (grid,) = pictures_of(mira(num_frames, fps=25.0, pictures="grid")[1].requests[0])
    assert grid.shape == (84, 242, 3)
    assert not (grid[47:74, 184:232] == 255).any(), "the last cell"


def test_the_short_caption_as_a_hint() -> None:
    hints = [
        caption("short", "a knight", window=(120.0, 240.0)),
        caption("short", "a castle", window=(0.0, 120.0)),
        caption("dense", "a dragon"),
    ]
    _, captioner = mira(LONG, fps=1.0, captions=hints, use_hint=True)
    asked = [texts_of(request) for request in captioner.requests]
    assert ['"a castle"' in text for text in asked] == [True, False, False]
    assert ['"a knight"' in text for text in asked] == [False, True, False]
    assert not any("dragon" in text or "another author" in text for text in asked[2:])
    _, captioner = mira(80, captions=[caption("short", "costs $5 and $name")], use_hint=True)
    assert '"costs $5 and $name"' in texts_of(captioner.requests[0])
    _, captioner = mira(80, captions=hints)
    assert "another author" not in texts_of(captioner.requests[0])


def test_a_text_that_is_too_long_is_kept_and_noted() -> None:
    stage = MiradataStructured(MiradataStructuredParams())
    connected(stage, lambda request: names_back(request) | {"short": "word " * 26, "style": "word " * 25})
    row = stage.run([asked_clip(stage)])[0]
    assert row["miradata_structured_words_over_limit"] == ["short"]
    assert len(row["captions"][0]["text"].split()) == 26


# LVD-2M: raw, refined, rewritten.


@pytest.mark.parametrize(("seconds", "tail", "count"), [(30.0, 0.0, 1), (30.1, 0.0, 2), (30.1, 2.0, 1), (95.0, 0.0, 4)])
def test_a_raw_caption_for_each_half_minute(seconds: float, tail: float, count: int) -> None:
    stage = Lvd2mRaw(Lvd2mRawParams(min_tail_seconds=tail))
    captioner = connected(stage, names_back)
    row = stage.run([asked_clip(stage, num_frames=round(10 * seconds), fps=10.0)])[0]
    starts = [30.0 * i for i in range(count)]
    windows = zip(starts, [*starts[1:], seconds], strict=True) if count > 1 else [(None, None)]
    texts = [("raw", f"caption of piece-{i}") for i in range(count)]
    assert told(row) == [
        (*text, start, end and pytest.approx(end)) for text, (start, end) in zip(texts, windows, strict=True)
    ]
    assert row["lvd2m_raw_num_requests"] == count
    pictures = [pictures_of(request) for request in captioner.requests]
    assert all(len(one) == 1 and one[0].shape == (2 * 27 + 30, 3 * 48 + 40, 3) for one in pictures)
    if count > 1:
        assert [int(pictures[1][0][y, x, 0]) for y in (10, 47) for x in (10, 68, 126)] == (
            [f % 256 for f in (325, 375, 425, 475, 525, 575)] if seconds > 60 else [44] * 6
        )


def refined(captions: list[dict[str, Any]]) -> tuple[Any, ScriptedCaptioner]:
    stage = Lvd2mRefine(Lvd2mRefineParams())
    captioner = connected(stage, names_back)
    return stage.run([asked_clip(stage, row={"captions": captions})])[0], captioner


def test_one_raw_caption_is_refined_and_more_are_merged_in_order() -> None:
    row, captioner = refined([caption("raw", "A dog runs.")])
    assert told(row) == [("refined", "caption of refine", None, None)]
    assert captioner.requests[0].parts == (f"{_prompt('lvd2m_refine').removesuffix('$description')}A dog runs.",)
    later, sooner = caption("raw", "It sleeps.", window=(30.0, 41.5)), caption("raw", "A dog runs.", window=(0.0, 30.0))
    of_another = caption("raw", "A cat.", annotator="upstream:b")
    _, captioner = refined([later, sooner, of_another, later])
    (text,) = captioner.requests[0].parts
    assert isinstance(text, str)
    assert text.endswith("Part 1, 0.0 to 30.0 s: A dog runs.\n\nPart 2, 30.0 to 41.5 s: It sleeps.")
    _, captioner = refined([caption("raw", "One."), caption("raw", "Two.")])
    assert texts_of(captioner.requests[0]).endswith("Part 1: One.\n\nPart 2: Two.")
    row, captioner = refined([caption("short", "A dog.")])
    assert row["reason"] == "the clip has no raw caption: name lvd2m_raw before lvd2m_refine"
    assert captioner.requests == []


def _prompt(name: str) -> str:
    return Lvd2mRefine(Lvd2mRefineParams()).prompt(name).text


def test_the_refined_caption_is_rewritten() -> None:
    stage = Lvd2mRewrite(Lvd2mRewriteParams())
    captioner = connected(stage, names_back)
    given = [caption("refined", "A brown dog runs."), caption("refined", "Other.", annotator="upstream:b")]
    row = stage.run([asked_clip(stage, row={"captions": given})])[0]
    assert told(row) == [("rewritten", "caption of rewrite", None, None)]
    assert texts_of(captioner.requests[0]).endswith("A brown dog runs.")
    row = stage.run([asked_clip(stage, row={"captions": [caption("raw", "A dog.")]})])[0]
    assert row["reason"].startswith("the clip has no refined caption: name lvd2m_refine")


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    """A run that ended at the third of four pieces."""

    def breaks_down(request: Request) -> dict[str, str]:
        if request.id.endswith("piece-2"):
            raise CaptionerError("the server is gone")
        return names_back(request)

    rows, asked = [], []
    for script in (breaks_down, names_back, names_back):
        stage, captioner = Lvd2mRaw(Lvd2mRawParams()), ScriptedCaptioner(script=script)
        answers = Answers(captioner=captioner, path=tmp_path / "answers.sqlite")
        stage.connect(answers, pictures=None)
        clip = asked_clip(stage, num_frames=95, fps=1.0)
        if script is breaks_down:
            with pytest.raises(CaptionerError):
                stage.run([clip])
        else:
            rows += stage.run([clip])
        answers.close()
        asked.append([request.id.rpartition("/")[2] for request in captioner.requests])
    assert asked == [["piece-0", "piece-1", "piece-2"], ["piece-2", "piece-3"], []]
    assert rows[0] == rows[1]
    assert len(rows[0]["captions"]) == 4


def test_captions_of_a_kind_are_of_one_author_and_each_once() -> None:
    late, early = caption("raw", "b", window=(5.0, 6.0)), caption("raw", "a", window=(0.0, 5.0))
    row = {"captions": [late, caption("raw", "x", annotator="upstream:b"), early, late, caption("short", "s")]}
    assert captions_of(row, "raw") == [early, late]
    assert [caption_of(row, "raw", at_seconds=t) for t in (0.0, 4.9, 5.0, 6.0)] == ["a", "a", "b", None]
    assert (caption_of(row, "raw"), caption_of(row, "plot"), captions_of({}, "raw")) == ("a", None, [])


def test_eight_frames_in_two_rows() -> None:
    assert grid_of(np.zeros((8, 27, 48, 3), np.uint8), rows=2, columns=4).pixels_HWC.shape == (84, 242, 3)


def test_frames_of_pieces_are_asked_for_by_their_length() -> None:
    request = FrameRequest(mode="uniform_pieces", value=6, piece_seconds=30.0)
    assert request.sampler() == UniformPieces(6, 30.0)
    assert request.identity()["piece_seconds"] == 30.0
    assert "min_tail_seconds" not in request.identity()
    assert "piece_seconds" not in FrameRequest(mode="middle").identity(), "who asked before is who it was"
    assert FrameRequest(mode="middle").identity()["max_frames"] is None
    for mode, given in (("uniform_pieces", {}), ("fps", {"piece_seconds": 1.0}), ("fps", {"min_tail_seconds": 1.0})):
        with pytest.raises(ValueError, match="mode 'uniform_pieces' needs piece_seconds; no other has it"):
            FrameRequest(mode=mode, value=1, **given)  # type: ignore[arg-type] # as each case has them
    with pytest.raises(ValueError, match=r"pieces of 0\.0 s"):
        Lvd2mRawParams(piece_seconds=0.0)


# Stages of one run, one after the other.


def chained(names: Sequence[str], films: Sequence[int], script: Script) -> tuple[list[Row], list[Request]]:
    """Rows of a sample whose clips have so many frames, 0: cannot be read; and what was asked, by all."""
    stages = [registry.make(name) for name in names]
    captioner = ScriptedCaptioner(script=script)
    clips = []
    for stage in stages:
        assert isinstance(stage, AskingStage)
        stage.connect(Answers(captioner=captioner, path=None), pictures=None)
    for index, num_frames in enumerate(films):
        row = {"clip_id": f"c{index}", "index": index, "trimmed": True, "source": None}
        row["captions"] = [caption("refined", "of the dataset")]
        frames: dict[FrameRequest, Any] = {}
        for stage in stages if num_frames else ():
            assert isinstance(stage, AskingStage)
            clip = asked_clip(stage, num_frames=num_frames, fps=1.0)
            frames |= {one: (clip.frames[key], clip.times_seconds[key]) for key, one in stage.requests().items()}
        reason = None if num_frames else "VideoNotFoundError: gone"
        clips.append(
            DecodedClip(row=row, frames=frames, fps=1.0, duration_seconds=num_frames, video=None, reason=reason)
        )
    return list(rows_of_unit(stages, clips, lock=Lock())), captioner.requests


def test_from_raw_to_rewritten_in_one_run() -> None:
    def script(request: Request) -> dict[str, str]:
        return {"caption": f"answer {request.id.rpartition('/')[2]}"}

    (row,), asked = chained(["lvd2m_raw", "lvd2m_refine", "lvd2m_rewrite"], [40], script)
    assert [one["kind"] for one in row["captions"]] == ["raw", "raw", "refined", "rewritten"]
    assert texts_of(asked[2]).endswith("0 s: answer piece-0\n\nPart 2, 30.0 to 40.0 s: answer piece-1")
    assert texts_of(asked[3]).endswith("answer refine"), "not what the dataset has"


def test_steps_between_clips_that_can_be_read() -> None:
    rows, asked = chained(["civid_single", "civid_joint"], [8, 8, 0, 8, 8], names_back)
    assert [len(row["captions"]) for row in rows] == [4, 4, 0, 4, 4]
    assert [len(row["transition_captions"]) for row in rows] == [0, 6, 0, 0, 6]
    assert rows[3]["reason"] == "civid_joint: the clip before, number 2 of its sample, could not be read"
    assert "content: video_content of single" in texts_of(asked[2])
