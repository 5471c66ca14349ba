import pickle
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from civid_loader import schema
from civid_loader.collation import Batch, collate
from civid_loader.errors import UnreadableVideoError, VideoNotFoundError, VideoRootError
from civid_loader.sampling import Fps, Middle, Times, Uniform
from civid_loader.transforms.decode_clips import DEFAULT_CAPTIONS, DecodeClips
from support.media import number_image, read_numbers, write_video

SIZE = (24, 32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "long.mp4", num_frames=100)
    write_video(folder / "short.mp4", num_frames=10, size=(96, 128))
    (folder / "bad.mp4").write_bytes(b"<html>")
    return str(folder)


def noisy_number(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A number in a picture that takes many bytes to store."""
    image = number_image(number)
    image[8:] = np.random.default_rng(number).integers(0, 255, image[8:].shape, np.uint8)
    return image


def clip(video: str | None, *captions: dict[str, Any], **given: Any) -> dict[str, Any]:
    """A clip of the schema; a span given means that it is not cut to it yet."""
    source = {**dict.fromkeys(schema.SOURCE), **given}
    return {
        **dict.fromkeys(schema.CLIP),
        **{"clip_id": f"c-{video}", "index": 0, "video": video, "trimmed": not given, "source": source},
        **{"captions": list(captions), "characters": [], "scores": []},
    }


def rows(*samples: list[dict[str, Any]]) -> Dataset:
    """A dataset as loaded, of one sample per list of clips."""
    return Dataset.from_list(
        [
            {
                **schema.empty_sample(),
                **{"sample_id": f"s{i}", "dataset": "civid", "subset": "full", "level": "sequence", "clips": clips},
            }
            for i, clips in enumerate(samples)
        ],
        features=schema.SAMPLE_FEATURES,
    )


def text_of(*captions: dict[str, Any], root: str, kinds: list[str] | None = None) -> str | None:
    decode = DecodeClips(videos=root, frames=Middle(), captions=kinds)
    text: str | None = rows([clip("short.mp4", *captions)]).with_transform(decode)[0]["texts"][0]
    return text


def test_a_row_becomes_a_sample(root: str) -> None:
    cut = clip("long.mp4", schema.caption("content", "a dog", "a"), start_seconds=1.0, end_seconds=2.0)
    dataset = rows([clip("short.mp4"), cut], [clip("long.mp4")])
    decode = DecodeClips(videos=root, frames=Uniform(4), size=SIZE)
    first, second = (dataset.with_transform(decode)[i] for i in range(2))
    assert first["sample_id"] == "s0"
    assert first["clip_ids"] == ["c-short.mp4", "c-long.mp4"]
    assert first["texts"] == [None, "a dog"]
    assert first["frames_NTCHW"].shape == (2, 4, 3, *SIZE)
    assert first["frames_NTCHW"].dtype == torch.uint8
    assert first["mask_NT"].tolist() == [[True] * 4] * 2
    assert read_numbers(first["frames_NTCHW"][1]) == [28, 34, 40, 46], "of the span, as it is not trimmed"
    assert first["pts_seconds_NT"][1].tolist() == pytest.approx([0.12, 0.36, 0.6, 0.84])
    assert read_numbers(second["frames_NTCHW"][0]) == [12, 37, 62, 87]


def test_a_trimmed_clip_is_read_whole(root: str) -> None:
    """Its span is where it was cut from, in another file."""
    whole = {**clip("short.mp4", start_seconds=70.0, end_seconds=70.4), "trimmed": True}
    sample = rows([whole]).with_transform(DecodeClips(videos=root, frames=Uniform(2)))[0]
    assert read_numbers(sample["frames_NTCHW"][0]) == [2, 7]


def test_the_root_may_be_any_url_fsspec_knows(root: str) -> None:
    """`s3://bucket/videos` goes the same way as `memory://bucket/videos`: all but http through fsspec's own files."""
    files = fsspec.filesystem("memory")
    files.put(root, "/bucket/videos", recursive=True)
    sample = [clip("long.mp4", start_seconds=1.0, end_seconds=2.0), clip("short.mp4")]
    try:
        local, remote, slash = (
            rows(sample).with_transform(DecodeClips(videos=of, frames=Uniform(4), size=SIZE))[0]
            for of in (root, "memory://bucket/videos", "memory://bucket/videos/")
        )
        decode = DecodeClips(videos="memory://bucket/videos", frames=Middle())
        with pytest.raises(VideoNotFoundError, match=r"no file at memory://bucket/videos/gone\.mp4"):
            rows([clip("gone.mp4")]).with_transform(decode)[0]
    finally:
        files.rm("/bucket", recursive=True)
    assert read_numbers(remote["frames_NTCHW"][0]) == [28, 34, 40, 46]
    for sample_of in (remote, slash):
        assert torch.equal(sample_of["frames_NTCHW"], local["frames_NTCHW"])
        assert torch.equal(sample_of["pts_seconds_NT"], local["pts_seconds_NT"])


def test_a_root_that_names_a_repository_is_told_how_to_be_written(tmp_path: Path) -> None:
    decode = DecodeClips(videos="org/clips", frames=Middle())
    with pytest.raises(VideoRootError, match=r"'org/clips' is not a folder.*did you mean .*'hf://datasets/org/clips'"):
        rows([clip("long.mp4")]).with_transform(decode)[0]
    decode = DecodeClips(videos=str(tmp_path / "none"), frames=Middle())
    with pytest.raises(VideoRootError, match=r"is not a folder; pass that of the videos$"):
        rows([clip("long.mp4")]).with_transform(decode)[0]


def test_half_a_span_reaches_to_the_file_edge(root: str) -> None:
    clips = [clip("long.mp4", start_seconds=3.0), clip("long.mp4", end_seconds=1.0)]
    sample = rows(clips).with_transform(DecodeClips(videos=root, frames=Uniform(1)))[0]
    assert read_numbers(sample["frames_NTCHW"][:, 0]) == [87, 12]


def test_clips_of_unlike_length_are_padded(root: str) -> None:
    dataset = rows([clip("short.mp4"), clip("long.mp4")]).with_transform(
        DecodeClips(videos=root, frames=Fps(5), size=SIZE)
    )
    sample = dataset[0]
    assert sample["mask_NT"].sum(dim=1).tolist() == [2, 20]
    assert sample["mask_NT"][0].tolist() == [True] * 2 + [False] * 18
    assert not sample["frames_NTCHW"][0, 2:].any()
    assert not sample["pts_seconds_NT"][0, 2:].any()
    assert sample["pts_seconds_NT"][1, -1] == pytest.approx(3.8)


def test_through_a_data_loader(root: str) -> None:
    dataset = rows([clip("short.mp4")], [clip("long.mp4"), clip("short.mp4")], [clip("long.mp4")])
    decode = DecodeClips(videos=root, frames=Uniform(3), size=SIZE)
    batches = list(DataLoader(dataset.with_transform(decode), batch_size=2, collate_fn=collate))
    assert [type(batch) for batch in batches] == [Batch, Batch]
    assert [batch.sample_ids for batch in batches] == [["s0", "s1"], ["s2"]]
    assert batches[0].frames_BNTCHW.shape == (2, 2, 3, 3, *SIZE)
    assert batches[0].mask_BNT.all(dim=2).tolist() == [[True, False], [True, True]]


def test_it_pickles_for_workers(root: str) -> None:
    decode = DecodeClips(videos=root, frames=Times((0.1,)), size=SIZE, captions=["raw"], missing="mask")
    copy = pickle.loads(pickle.dumps(decode))  # noqa: S301 - our own
    assert copy == decode
    assert copy({"sample_id": ["s"], "clips": [[clip("short.mp4")]]})["frames_NTCHW"][0].shape == (1, 1, 3, *SIZE)


@pytest.mark.parametrize("video", ["gone.mp4", None])
def test_a_missing_clip_is_an_error_or_masked(root: str, video: str | None) -> None:
    dataset = rows([clip(video), clip("long.mp4")])
    with pytest.raises(VideoNotFoundError, match=rf"sample s0, clip c-{video}: .*missing='mask'") as caught:
        dataset.with_transform(DecodeClips(videos=root, frames=Middle()))[0]
    assert str(video or "upstream names no video") in str(caught.value)
    sample = dataset.with_transform(DecodeClips(videos=root, frames=Uniform(2), missing="mask"))[0]
    assert sample["mask_NT"].tolist() == [[False, False], [True, True]]
    assert not sample["frames_NTCHW"][0].any()
    assert not sample["pts_seconds_NT"][0].any()
    assert sample["clip_ids"] == [f"c-{video}", "c-long.mp4"]


def test_a_sample_without_any_file_still_has_its_place(root: str) -> None:
    dataset = rows([clip("gone.mp4"), clip(None)])
    sample = dataset.with_transform(DecodeClips(videos=root, frames=Uniform(2), size=SIZE, missing="mask"))[0]
    assert sample["frames_NTCHW"].shape == (2, 2, 3, *SIZE)
    assert not sample["mask_NT"].any()
    with pytest.raises(ValueError, match=r"sample s0: .*all are missing.*pass size="):
        dataset.with_transform(DecodeClips(videos=root, frames=Uniform(2), missing="mask"))[0]


def test_missing_mask_hides_no_other_mistake(root: str) -> None:
    masking = {"frames": Middle(), "missing": "mask"}
    with pytest.raises(UnreadableVideoError, match=r"sample s0, clip c-bad\.mp4: .*download it again"):
        rows([clip("bad.mp4")]).with_transform(DecodeClips(videos=root, **masking))[0]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no/such' is not a folder"):
        rows([clip("long.mp4")]).with_transform(DecodeClips(videos="no/such", **masking))[0]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def damaged(root: str) -> str:
    """4 s, of which frames 35 to 49 cannot be trusted; and the same, cut off after 2 s."""
    path = write_video(Path(root) / "whole.mp4", num_frames=100, gop=25, image=noisy_number)
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4 + sum(sizes[:35]) + sizes[35] // 2
    data[start : start + 60] = b"\xff" * 60
    (Path(root) / "damaged.mp4").write_bytes(data)
    return root


def test_damaged_frames_are_an_error_or_masked(damaged: str) -> None:
    dataset = rows([clip("damaged.mp4")])
    with pytest.raises(UnreadableVideoError, match=r"sample s0, clip c-damaged\.mp4: .*damaged='mask'"):
        dataset.with_transform(DecodeClips(videos=damaged, frames=Uniform(4)))[0]
    sample = dataset.with_transform(DecodeClips(videos=damaged, frames=Uniform(4), damaged="mask"))[0]
    assert sample["mask_NT"].tolist() == [[True, False, True, True]]
    assert read_numbers(sample["frames_NTCHW"][0, [0, 2, 3]]) == [12, 62, 87]
    assert not sample["frames_NTCHW"][0, 1].any()
    bad = rows([clip("bad.mp4"), clip("long.mp4")])
    sample = bad.with_transform(DecodeClips(videos=damaged, frames=Uniform(2), damaged="mask"))[0]
    assert sample["mask_NT"].tolist() == [[False, False], [True, True]]


def test_frames_that_come_twice_are_kept_or_masked(root: str) -> None:
    dataset = rows([clip("long.mp4", start_seconds=0.0, end_seconds=0.12)])
    for repeats, mask in (("keep", [True] * 6), ("mask", [True, False] * 3)):
        decode = DecodeClips(videos=root, frames=Uniform(6), repeats=repeats)  # type: ignore[arg-type]
        assert dataset.with_transform(decode)[0]["mask_NT"][0].tolist() == mask


def test_clips_of_several_sizes_need_a_size(root: str) -> None:
    dataset = rows([clip("short.mp4"), clip("long.mp4")])
    with pytest.raises(ValueError, match=r"sample s0: .*48x64, 96x128.*pass size="):
        dataset.with_transform(DecodeClips(videos=root, frames=Middle()))[0]


def test_windows_of_a_caption_are_joined_in_order_of_time(root: str) -> None:
    late = schema.caption("dense", "then it sits.", "a", start_seconds=2.0, end_seconds=4.0)
    early = schema.caption("dense", "A dog runs,", "a", start_seconds=0.0, end_seconds=2.0)
    other = schema.caption("dense", "Un chien.", "b", start_seconds=0.0, end_seconds=2.0)
    assert text_of(late, early, other, root=root) == "A dog runs, then it sits.", "of one annotator"
    styles = [schema.caption("style", style, "a") for style in ("noir", "slow")]
    assert text_of(*styles, root=root, kinds=["style"]) == "noir slow"


def test_the_first_kind_there_is(root: str) -> None:
    captions = [schema.caption(kind, f"the {kind} one", "a") for kind in reversed(schema.SINGLE_CAPTION_KINDS)]
    assert text_of(*captions, root=root) == f"the {DEFAULT_CAPTIONS[0]} one"
    assert text_of(*captions, root=root, kinds=["camera", "dense"]) == "the camera one"
    assert text_of(captions[0], root=root, kinds=["camera"]) is None
    assert text_of(root=root) is None
    assert set(DEFAULT_CAPTIONS) <= set(schema.SINGLE_CAPTION_KINDS)


def test_settings_are_checked_when_given(root: str) -> None:
    with pytest.raises(
        ValueError, match=r"no kind 'contents' \(did you mean 'content'\?\); the kinds are short, dense, "
    ):
        DecodeClips(videos=root, frames=Middle(), captions=["raw", "contents"])
    with pytest.raises(ValueError, match="no kind 'change_content'"):
        DecodeClips(videos=root, frames=Middle(), captions=["change_content"])
    with pytest.raises(ValueError, match=r"give a list of kinds, \['dense'\]"):
        DecodeClips(videos=root, frames=Middle(), captions="dense")
    with pytest.raises(ValueError, match="repeats='drop': must be one of keep, mask"):
        DecodeClips(videos=root, frames=Middle(), repeats="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="missing='drop': must be one of error, mask"):
        DecodeClips(videos=root, frames=Middle(), missing="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\['clips'\] are needed"):
        rows([clip("long.mp4")]).remove_columns("clips").with_transform(DecodeClips(videos=root, frames=Middle()))[0]
