"""What holds for every transform of the folder but `decode_clips`, which makes the samples that the others change."""
# ruff: noqa: N806 - tensors carry their shape.

import dataclasses
import pickle
import random
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch

from civid_loader.buckets import Bucket
from civid_loader.collation import collate
from support.rows import captions, with_row
from support.samples import a_sample, hide

FOLDER: Final = Path(__file__).parents[2] / "transforms"
NAMES: Final = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "decode_clips"))


def shout(texts: list[str]) -> list[str]:
    return [text.upper() for text in texts]


SETTINGS: Final[Mapping[str, dict[str, Any]]] = {
    "choose_captions": {"kinds": ("dense", "short"), "probabilities": (0.5, 0.5)},
    "crop_frames": {"size": (4, 5), "place": "random"},
    "drop_text": {"probability": 0.5},
    "fit_bucket": {"bucket": Bucket(num_frames=5, height=4, width=6), "place": "random"},
    "pad_frames": {"num_frames": 14, "fill": "loop"},
    "resample_fps": {"fps": 10.0},
    "resize_frames": {"size": (5, 7)},
    "tokenize_text": {"tokenizer": shout},
    "trim_frames": {"start_seconds": 0.1, "end_seconds": 0.1},
    "window_frames": {"n": 4},
}
"""Of those that need some, or show more of what they do with some; the others are made as they are."""


def kind_of(name: str) -> Any:
    return getattr(import_module(f"civid_loader.transforms.{name}"), "".join(map(str.title, name.split("_"))))


def made(name: str) -> Any:
    try:
        return kind_of(name)(**SETTINGS.get(name, {}))
    except TypeError as error:
        raise AssertionError(f"{name}: give the settings it needs in SETTINGS of this file") from error


def sample() -> dict[str, Any]:
    """Four clips: whole, short, missing, damaged."""
    about = [captions(dense=f"dense {n}", short=f"short {n}") for n in range(4)]
    step = captions(continuation_content="the same dog", change_content="now asleep")
    row = with_row(a_sample(12, 3, 0, 9, size=(8, 10)), *about, steps={(0, 1): step})
    return hide(row, 3, 4, 5)


def same(one: Any, other: Any) -> bool:
    """Equal in all parts, tensors too."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(same(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Sequence) and not isinstance(one, str):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_every_setting_is_of_a_transform() -> None:
    assert set(SETTINGS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_settings_only(name: str) -> None:
    kind, transform = kind_of(name), made(name)
    assert kind.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(kind))
    assert not hasattr(transform, "__dict__"), "slots"
    assert hash(transform) == hash(made(name))


@pytest.mark.parametrize("name", NAMES)
def test_it_pickles(name: str) -> None:
    transform = made(name)
    copy = pickle.loads(pickle.dumps(transform))  # noqa: S301 - our own
    assert copy == transform
    assert same(*(each(sample(), np.random.default_rng(5)) for each in (transform, copy)))


@pytest.mark.parametrize("name", NAMES)
def test_its_input_stays_as_it_was(name: str) -> None:
    given = sample()
    for seed in range(6):
        changed = made(name)(given, np.random.default_rng(seed))
        assert changed is not given
        assert same(given, sample())


@pytest.mark.parametrize("name", NAMES)
def test_equal_randomness_gives_equal_results(name: str) -> None:
    """All of it is handed in: global generators are neither read nor moved on."""
    transform = made(name)
    for seed in range(6):
        results, states = [], []
        for other in (1, 2):
            random.seed(other)
            np.random.seed(other)
            torch.manual_seed(other)
            before = (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
            rng = np.random.default_rng(seed)
            results.append(transform(sample(), rng))
            states.append(rng.bit_generator.state)
            assert before == (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
        assert same(*results)
        assert states[0] == states[1]


@pytest.mark.parametrize("name", NAMES)
def test_its_draws_do_not_depend_on_the_frames(name: str) -> None:
    """So that the transforms after it do the same whatever a file holds."""
    given, states = sample(), []
    for frames in (given["frames_NTCHW"], given["frames_NTCHW"].flip(-1)):
        rng = np.random.default_rng(0)
        made(name)({**given, "frames_NTCHW": frames}, rng)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]


@pytest.mark.parametrize("name", NAMES)
def test_other_columns_pass_through(name: str) -> None:
    given = {**sample(), "mine": object()}
    changed = made(name)(given, np.random.default_rng(0))
    assert given.keys() <= changed.keys()
    assert all(changed[key] is given[key] for key in ("sample_id", "clip_ids", "row", "mine"))


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_without_any_frame_passes(name: str) -> None:
    given = with_row(a_sample(0, 0, num_frames=1, size=(8, 10)))
    changed = made(name)(given, np.random.default_rng(0))
    assert changed["clip_ids"] == given["clip_ids"]
    assert not changed["mask_NT"].any()


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_a_sample(name: str) -> None:
    """Of the same clips, with nothing where the mask is False; and it can be stacked into a batch."""
    given = sample()
    for seed in range(4):
        changed = made(name)(given, np.random.default_rng(seed))
        assert (changed["sample_id"], changed["clip_ids"]) == (given["sample_id"], given["clip_ids"])
        assert len(changed["texts"]) == len(given["texts"])
        mask_NT, num_clips = changed["mask_NT"], len(given["clip_ids"])
        assert (mask_NT.dtype, changed["pts_seconds_NT"].dtype) == (torch.bool, torch.float64)
        assert changed["frames_NTCHW"].shape[:3] == (num_clips, mask_NT.shape[1], 3)
        assert changed["pts_seconds_NT"].shape == mask_NT.shape == (num_clips, mask_NT.shape[1])
        assert not changed["frames_NTCHW"][~mask_NT].any()
        assert not changed["pts_seconds_NT"][~mask_NT].any()
        assert torch.equal(mask_NT.any(dim=1), given["mask_NT"].any(dim=1))
        assert torch.equal(collate([changed, changed]).frames_BNTCHW[1], changed["frames_NTCHW"])


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_of_no_shown_frame_passes(name: str) -> None:
    changed = made(name)(with_row(a_sample(0, 0, num_frames=1, size=(8, 10))), np.random.default_rng(0))
    assert changed["mask_NT"].shape[0] == 2
    assert changed["mask_NT"].shape[1] >= 1
    assert not changed["mask_NT"].any()
