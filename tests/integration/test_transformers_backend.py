"""Tiny random models through the real classes: what is asked arrives, what comes back is counted and told apart."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import torch

from civid_loader.errors import CaptionerError
from civid_loader.processing.answer_texts import read_answer
from civid_loader.processing.backends.conversations import metadata_of
from civid_loader.processing.backends.transformers import TransformersCaptioner
from civid_loader.processing.captioner import CaptionerSpec, Film, Picture, Request, Response, choice_schema
from civid_loader.processing.run import process
from civid_loader.processing.work import StageSpec
from civid_loader.storage import read_table
from support import tiny_models, tiny_vlms
from support.built import clip, write_dataset
from support.media import write_video

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SAVE: dict[str, Callable[[Path], Path]] = {
    "qwen3_vl": tiny_vlms.save_qwen3_vl,
    "qwen2_5_vl": tiny_vlms.save_qwen2_5_vl,
    "llava": tiny_vlms.save_llava,
}
YES_NO = choice_schema("yes", "no")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: save(root / name) for name, save in SAVE.items()}


@pytest.fixture(scope="module")
def captioners(folders: dict[str, Path]) -> Iterator[dict[str, TransformersCaptioner]]:
    made = {name: captioner(path) for name, path in folders.items()}
    yield made
    for one in made.values():
        one.close()


def captioner(path: Path, **options: Any) -> TransformersCaptioner:
    spec = CaptionerSpec(backend="transformers", model=str(path), options={"dtype": "float32", **options})
    made = spec.make(device="cpu")
    assert isinstance(made, TransformersCaptioner)
    made.load()
    return made


def picture(seed: int, height: int = 64, width: int = 64) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return Picture(pixels_HWC=pixels)


def film(seed: int, num_frames: int = 4, *, step_seconds: float = 0.5) -> Film:
    frames = np.random.default_rng(seed).integers(0, 255, (num_frames, 64, 64, 3), np.uint8)
    return Film(frames_THWC=frames, times_seconds=0.25 + step_seconds * np.arange(num_frames, dtype=np.float64))


def assert_same(found: Sequence[Response], expected: Sequence[Response]) -> None:
    """Equal, probabilities but for the rounding of float32."""
    for one, other in zip(found, expected, strict=True):
        assert replace(one, probabilities=None, seconds=0) == replace(other, probabilities=None, seconds=0)
        assert (one.probabilities or {}) == pytest.approx(other.probabilities or {}, abs=1e-5)


QUESTIONS = (
    Request(id="a", parts=("What is this?", picture(1, 40, 96)), max_tokens=12),
    Request(id="b", parts=(film(2), "A much longer question than the first one, to be sure."), max_tokens=5),
    Request(id="c", parts=("Is it", picture(3), picture(4, 96, 40)), schema=YES_NO, wants_probabilities=True),
    Request(id="d", parts=("Nothing to see here",), schema={"type": "object"}, max_tokens=7),
    Request(id="e", parts=(film(5, 1), film(6, 5), picture(7), "and"), max_tokens=5),
    Request(id="f", parts=("yes?",), schema=YES_NO),
)


@pytest.mark.parametrize("name", SAVE)
def test_a_batch_is_answered_as_one_by_one(name: str, captioners: dict[str, TransformersCaptioner]) -> None:
    """Left padding changes nothing, nor do pictures and films of other sizes beside."""
    asked = captioners[name]
    together = asked.generate(QUESTIONS)
    assert [one.id for one in together] == list("abcdef")
    assert_same(together, [asked.generate([question])[0] for question in QUESTIONS])
    assert len({one.text for one in together if one.id in "abde"}) == 4
    assert all(one.error is None for one in together)


@pytest.mark.parametrize("name", SAVE)
def test_what_is_seen_decides(name: str, captioners: dict[str, TransformersCaptioner]) -> None:
    def seen(*parts: Any) -> list[Response]:
        return captioners[name].generate([Request(id="a", parts=("Look", part), max_tokens=16) for part in parts])

    one, other, same = seen(picture(1), picture(2), picture(1))
    assert one == same
    assert one.text != other.text
    assert one.prompt_tokens == other.prompt_tokens
    film_one, film_other = seen(film(1), film(2))
    assert film_one.text != film_other.text


def test_films_are_told_when_their_frames_were(captioners: dict[str, TransformersCaptioner]) -> None:
    def prompt(part: Film | Picture) -> Any:
        asked = captioners["qwen3_vl"]
        inputs = asked._inputs([Request(id="a", parts=(part,))])
        return asked._processor.tokenizer.decode(inputs["input_ids"][0])

    # Pairs of frames at 0.25, 0.75 and 1.25, 1.75 s.
    assert "<0.5 seconds>" in prompt(film(1))
    assert "<1.5 seconds>" in prompt(film(1))
    assert "<2.2 seconds>" in prompt(film(1, step_seconds=4.0))
    assert "<|video_pad|>" not in prompt(film(1, num_frames=1))
    # 64 x 64 px in patches of 16, four to a token, two frames at once: 2 x 4 tokens for a film of 4.
    assert prompt(film(1)).count("<|video_pad|>") == 8
    assert prompt(picture(1)).count("<|image_pad|>") == 4


def test_thinking_is_switched_off_where_the_template_knows_of_it(
    captioners: dict[str, TransformersCaptioner], tmp_path: Path
) -> None:
    assert captioners["qwen3_vl"]._variables == {}, "its template does not"
    folder = tiny_vlms.save_qwen3_vl(tmp_path / "thinking")
    with (folder / "chat_template.jinja").open("a") as file:
        file.write("{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}")
    for options, is_off in (({}, True), ({"chat_template_kwargs": {"enable_thinking": True}}, False)):
        asked = captioner(folder, **options)
        asked.load()
        inputs = asked._inputs([Request(id="a", parts=("Look",))])
        assert asked._processor.tokenizer.decode(inputs["input_ids"][0]).endswith("<think></think>") == is_off
        asked.close()


def test_film_metadata_gives_rate_and_times() -> None:
    facts = metadata_of(film(1, num_frames=3, step_seconds=0.04))
    assert facts.frames_indices == [250, 290, 330]
    assert facts.sampled_fps == pytest.approx(25.0)
    assert [number / (facts.fps or 0) for number in facts.frames_indices] == pytest.approx([0.25, 0.29, 0.33])


def test_pictures_are_made_smaller_when_told(
    folders: dict[str, Path], captioners: dict[str, TransformersCaptioner]
) -> None:
    small = captioner(folders["qwen3_vl"], max_image_pixels=1024, max_video_pixels=2048)
    requests = [Request(id="p", parts=(picture(1),), max_tokens=1), Request(id="f", parts=(film(1),), max_tokens=1)]
    found, usual = small.generate(requests), captioners["qwen3_vl"].generate(requests)
    small.close()
    pairs = zip(usual, found, strict=True)
    assert [(one.prompt_tokens or 0) - (other.prompt_tokens or 0) for one, other in pairs] == [3, 6]
    assert small.identity != captioners["qwen3_vl"].identity


def ending(asked: TransformersCaptioner, monkeypatch: pytest.MonkeyPatch, tokens: Sequence[int]) -> None:
    """The model writes these tokens and then pads."""

    def generate(**inputs: Any) -> Any:
        ids = inputs["input_ids"]
        count = inputs["generation_config"].max_new_tokens
        row = torch.tensor([*tokens, *[asked._pad] * count])[:count].expand(len(ids), -1)
        return type("Found", (), {"sequences": torch.cat([ids, row], dim=1)})

    monkeypatch.setattr(asked._model, "generate", generate)


def test_how_an_answer_ends(captioners: dict[str, TransformersCaptioner], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = captioners["qwen3_vl"]
    tokenizer = asked._processor.tokenizer
    ending(asked, monkeypatch, [*tokenizer("```json\n{}\n```")["input_ids"], tokenizer.eos_token_id])
    limits = (40, 16, 15, 14, 3)
    found = asked.generate(
        [Request(id=str(i), parts=("x",), schema={"type": "object"}, max_tokens=n) for i, n in enumerate(limits)]
    )
    # 14 bytes and the end.
    assert [one.completion_tokens for one in found] == [15, 15, 15, 14, 3]
    assert [one.finish_reason for one in found] == ["stop", "stop", "stop", "length", "length"]
    assert [read_answer(one.text, {"type": "object"}) for one in found[:2]] == [{}, {}]


def test_choices_are_always_of_those_allowed(captioners: dict[str, TransformersCaptioner]) -> None:
    asked = captioners["qwen3_vl"]
    requests = [
        Request(
            id=str(i), parts=("Choose", picture(i)), schema=choice_schema("GOOD", "BAD"), wants_probabilities=i < 12
        )
        for i in range(16)
    ]
    for found in asked.generate(requests):
        choice = json.loads(found.text)["choice"]
        assert (found.finish_reason, found.completion_tokens) == ("stop", 1)
        if int(found.id) < 12:
            assert found.probabilities is not None
            assert sum(found.probabilities.values()) == pytest.approx(1)
            assert found.probabilities[choice] == max(found.probabilities.values())
        else:
            assert found.probabilities is None
    # One begins as the other does, so they are told apart by the quote that closes it.
    alike = Request(id="a", parts=("go",), schema=choice_schema("go", "going"), wants_probabilities=True)
    assert set(asked.generate([alike])[0].probabilities or ()) == {"go", "going"}
    # No single token tells three of which two begin alike: it is written as any text.
    three = Request(id="a", parts=("go",), schema=choice_schema("go", "gone", "stay"), wants_probabilities=True)
    assert asked.generate([three])[0].probabilities is None


def test_one_that_is_too_long_fails_alone(captioners: dict[str, TransformersCaptioner]) -> None:
    asked = captioners["qwen3_vl"]
    requests = [Request(id=str(i), parts=("x" * (9000 if i == 2 else 9),), max_tokens=4) for i in range(5)]
    found = asked.generate(requests)
    assert [one.error is None for one in found] == [True, True, False, True, True]
    assert "more than the 8192 that the model reads" in (found[2].error or "")
    assert not found[2].is_server_error


def test_what_does_not_fit_into_memory_is_asked_in_halves(
    captioners: dict[str, TransformersCaptioner], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = captioners["llava"]
    expected = asked.generate(QUESTIONS[:2] * 3)
    generate, sizes = asked._model.generate, []

    def little(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(**inputs)

    monkeypatch.setattr(asked._model, "generate", little)
    assert_same(asked.generate(QUESTIONS[:2] * 3), expected)
    assert sizes == [6, 3, 1, 2, 3, 1, 2]


def test_identity_is_the_bytes_and_how_they_are_used(folders: dict[str, Path], tmp_path: Path) -> None:
    def identity(path: Path, **options: Any) -> Any:
        return CaptionerSpec(backend="transformers", model=str(path), options=options).make(device="cpu").identity

    first = identity(folders["llava"])
    assert len(first["sha256"]) == 64
    assert json.loads(json.dumps(first)) == first
    assert identity(folders["llava"], batch_size=3) == first
    assert identity(folders["llava"], dtype="float16") != first
    assert identity(tiny_vlms.save_llava(tmp_path / "llava")) == first
    assert identity(tiny_vlms.save_llava(tmp_path / "other" / "llava", seed=1)) != first


def test_models_that_cannot_be_asked_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    def check(model: str, **options: Any) -> None:
        CaptionerSpec(backend="transformers", model=model, options=options).make(device="cpu").check()

    with pytest.raises(CaptionerError, match=r"model nobody/nothing: .* name its folder, or let it be fetched"):
        check("nobody/nothing")
    with pytest.raises(CaptionerError, match=r"no such folder"):
        check(str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaptionerError, match=r"no config\.json of a known model"):
        check(str(tmp_path / "empty"))
    with pytest.raises(CaptionerError, match="its type 'clip' does not look at pictures and write"):
        check(str(tiny_models.save_clip(tmp_path / "clip")))
    with pytest.raises(CaptionerError, match=r"dtype='int3': must be one of bfloat16, float16, float32"):
        check(str(tmp_path), dtype="int3")
    with pytest.raises(CaptionerError, match=r"there is no option 'bach_size'.*did you mean 'batch_size'"):
        check(str(tmp_path), bach_size=2)


def test_files_that_lack_weights_are_refused(tmp_path: Path) -> None:
    path = tiny_vlms.save_llava(tmp_path / "llava")
    (path / "model.safetensors").unlink()
    with pytest.raises(CaptionerError, match="cannot be loaded"):
        captioner(path)


def test_a_run_keeps_what_cannot_be_read_and_judges_what_can(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model writes no JSON, so captions are missing with their reason; its choices are choices."""
    sizes: list[int] = []
    seconds: list[float] = []
    answer = TransformersCaptioner._answer

    def counted(self: TransformersCaptioner, requests: Sequence[Request]) -> list[Response]:
        sizes.append(len(requests))
        start = perf_counter()
        # A random model never ends, and a thousand tokens take long.
        found = answer(self, [replace(one, max_tokens=8) for one in requests])
        seconds.append(perf_counter() - start)
        return found

    monkeypatch.setattr(TransformersCaptioner, "_answer", counted)
    (tmp_path / "videos").mkdir()
    for i in range(5):
        write_video(tmp_path / "videos" / f"{i}.mp4", num_frames=16 + i, gop=8, size=(48, 64))
    root = write_dataset(tmp_path / "set", {"train": [[clip(f"c{i}", f"{i}.mp4")] for i in range(5)]})
    options = {"dtype": "float32", "batch_size": 4}
    spec = CaptionerSpec(backend="transformers", model=str(folders["qwen3_vl"]), options=options)
    report = process(
        root, [StageSpec(name=name, params={}, weights={}) for name in ("civid_single", "quality_judge")],
        layer="captions-x", videos=tmp_path / "videos", captioner=spec, num_proc=0, quiet=True,
    )  # fmt: skip
    rows = read_table(root, "scores/x").to_pylist()
    assert report.num_clips == len(rows) == 5
    for row in rows:
        assert row["reason"].startswith("civid_single: single: the answer is")
        assert row["civid_single_raw_text"]
        assert row["civid_single_prompt_tokens"] > 1000
        assert row["mllm_variation"] == (row["mllm_variation_probability"] > 0.5)
        assert row["mllm_diversity"] == (row["mllm_diversity_probability"] > 0.5)
        assert row["quality_judge_num_requests"] == row["quality_judge_completion_tokens"] == 2
    assert all(not row["captions"] for row in read_table(root, "captions/x").to_pylist())
    assert max(sizes) > 1
    assert report.usage is not None
    assert report.usage.num_requests == sum(sizes)
    in_batches = sum(size * took for size, took in zip(sizes, seconds, strict=True))
    assert report.usage.request_seconds == pytest.approx(in_batches, rel=0.1), "not the time in the queue"
    assert report.server_share == pytest.approx(in_batches / (4 * report.wall_seconds), rel=0.1), "of 4 in a batch"
