"""A model that sees, in this process, by transformers: any of `AutoModelForImageTextToText`, asked in batches.

Answers are greedy, so the same question gets the same one; batches are padded on the left, which changes nothing but
the last digits of 16-bit numbers. A schema is told, not enforced. A choice is not written but picked: the likeliest of
those that are allowed, from the first token in which they differ.

Legend: N requests, L tokens, V vocabulary.
"""
# ruff: noqa: N806 - tensors carry their shape.

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import torch
import transformers

from civid_loader.errors import CaptionerError
from civid_loader.processing.answer_texts import choices_of
from civid_loader.processing.backends.conversations import is_video, messages_of, metadata_of
from civid_loader.processing.backends.local_models import LocalCaptioner, unfit
from civid_loader.processing.captioner import Film, Request, Response
from civid_loader.processing.pretrained import quietly

Dtype = Literal["bfloat16", "float16", "float32"]
_CHOICE_START: Final = '{"choice": "'
_auto: Final[Any] = transformers  # much of it is not typed


@dataclass(kw_only=True)
class TransformersCaptioner(LocalCaptioner):
    """See `Captioner`."""

    device: str = "cpu"
    batch_size: int = 8
    """Requests that are answered together; fewer where memory does not suffice."""
    dtype: Dtype = "bfloat16"
    """Of weights and sums."""
    max_image_pixels: int | None = None
    """Larger pictures are made smaller; None: as the model's files say. Of models that take pictures of any size."""
    max_video_pixels: int | None = None
    """The same of videos: of all frames together, or of each, as the model counts; see its video processor's `size`."""

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Dtype):
            raise CaptionerError(
                f"backend transformers: dtype {self.dtype!r} must be one of {', '.join(get_args(Dtype))}"
            )
        if self.batch_size < 1:
            raise CaptionerError(f"backend transformers: batch_size {self.batch_size} must be at least 1")

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Captioner`."""
        said = {
            "dtype": self.dtype,
            "max_image_pixels": self.max_image_pixels,
            "max_video_pixels": self.max_video_pixels,
            "chat_template_kwargs": self.template_variables,
        }
        return {"backend": "transformers", "model": self.weights.id, **self.weights.identity, **said}

    def load(self) -> None:
        """See `Captioner`."""
        self.check()
        path = self.weights.path
        try:
            with quietly():
                self._processor: Any = _auto.AutoProcessor.from_pretrained(path, local_files_only=True)
                self._model, told = _auto.AutoModelForImageTextToText.from_pretrained(
                    path, local_files_only=True, dtype=getattr(torch, self.dtype), output_loading_info=True
                )
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            raise unfit(self.weights, f"{path} cannot be loaded: {error}") from error
        if missing := sorted(told["missing_keys"]):
            raise unfit(self.weights, f"its files lack {len(missing)} weights, such as {missing[0]}")
        if (template := getattr(self._processor, "chat_template", None)) is None:
            raise unfit(self.weights, f"{path} has no chat template")
        # Others would be taken for options of the processor.
        self._variables = {name: value for name, value in self.template_variables.items() if name in str(template)}
        self._model = self._model.to(self.device).eval().requires_grad_(False)
        tokenizer, said = self._processor.tokenizer, self._model.generation_config
        ends = tokenizer.eos_token_id if said.eos_token_id is None else said.eos_token_id
        self._ends = set(ends) if isinstance(ends, list) else {ends}
        self._pad = next(one for one in (said.pad_token_id, tokenizer.pad_token_id, *self._ends) if one is not None)
        self._max_length = self._model.config.get_text_config().max_position_embeddings
        self.start(self._answer)

    def close(self) -> None:
        """See `Captioner`."""
        if self.batcher is not None:
            self.batcher.close()
            self.batcher = None
            del self._model, self._processor

    def _answer(self, requests: Sequence[Request]) -> list[Response]:
        found: dict[int, Response] = {}
        for choices in dict.fromkeys(choices_of(one.schema) for one in requests):
            same = [i for i, one in enumerate(requests) if choices_of(one.schema) == choices]
            found |= zip(same, self._each([requests[i] for i in same], self._start_of(choices)), strict=True)
        return [found[i] for i in range(len(requests))]

    def _each(self, requests: Sequence[Request], start: "_Start | None") -> list[Response]:
        """Answers; where they cannot be got together, in halves, and what is wrong with one is its own error."""
        try:
            return self._together(requests, start)
        except (torch.OutOfMemoryError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(requests) == 1:
            return [Response(id=requests[0].id, error=why, is_refused=True)]
        middle = len(requests) // 2
        return self._each(requests[:middle], start) + self._each(requests[middle:], start)

    @torch.inference_mode()
    def _together(self, requests: Sequence[Request], start: "_Start | None") -> list[Response]:
        inputs = self._inputs(requests)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        for length, request in zip(lengths, requests, strict=True):
            if length + request.max_tokens > self._max_length:
                raise ValueError(
                    f"{length} tokens and {request.max_tokens} of the answer are more than the {self._max_length} that "
                    "the model reads; ask with fewer or smaller pictures"
                )
        if start is not None:
            logits_NV = self._generated(start.after(inputs), max_tokens=1).logits[0]
            return [start.response(*one) for one in zip(requests, lengths, logits_NV, strict=True)]
        width = inputs["input_ids"].shape[1]
        tokens_NL = self._generated(inputs, max_tokens=max(one.max_tokens for one in requests)).sequences[:, width:]
        return [self._response(*one) for one in zip(requests, lengths, tokens_NL.tolist(), strict=True)]

    def _generated(self, inputs: Mapping[str, Any], *, max_tokens: int) -> Any:
        # Not what the model's files say: temperatures and penalties of theirs are not in our identity.
        config = _auto.GenerationConfig(
            do_sample=False,
            max_new_tokens=max_tokens,
            eos_token_id=sorted(self._ends),
            pad_token_id=self._pad,
            output_logits=max_tokens == 1,
            return_dict_in_generate=True,
        )
        return self._model.generate(**inputs, generation_config=config)

    def _inputs(self, requests: Sequence[Request]) -> Any:
        video_processor = getattr(self._processor, "video_processor", None)
        takes_videos = video_processor is not None
        images: dict[str, Any] = _sized(getattr(self._processor, "image_processor", None), self.max_image_pixels)
        options: dict[str, Any] = {"padding": True, "padding_side": "left", "images_kwargs": images}
        films = [part for one in requests for part in one.parts if isinstance(part, Film) and is_video(part)]
        if films and takes_videos:
            options["videos_kwargs"] = {
                "do_sample_frames": False,
                "video_metadata": [metadata_of(film) for film in films],
                **_sized(video_processor, self.max_video_pixels),
                # Else a few frames are blown up to what a long video may cost.
                **({"cap_pixels_per_frame": True} if hasattr(video_processor, "cap_pixels_per_frame") else {}),
            }
        inputs = self._processor.apply_chat_template(
            [messages_of(one, takes_videos=takes_videos) for one in requests],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=options,
            **self._variables,
        )
        return inputs.to(self.device, dtype=getattr(torch, self.dtype))

    def _response(self, request: Request, prompt_tokens: int, tokens: Sequence[int]) -> Response:
        own = tokens[: request.max_tokens]
        end = next((i for i, token in enumerate(own) if token in self._ends), None)
        text = self._processor.tokenizer.decode(own[:end], skip_special_tokens=True)
        return Response(
            id=request.id,
            text=text.strip(),
            finish_reason="length" if end is None else "stop",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(own) if end is None else end + 1,
        )

    def _start_of(self, choices: tuple[str, ...]) -> "_Start | None":
        """None: they must be written, as they do not differ in one token."""
        if not choices:
            return None
        tokenizer = self._processor.tokenizer
        written = [tokenizer(f'{_CHOICE_START}{one}"}}', add_special_tokens=False)["input_ids"] for one in choices]
        for i, firsts in enumerate(zip(*written, strict=False)):
            if len(set(firsts)) == len(choices):
                return _Start(tokens=written[0][:i], firsts=firsts, choices=choices)
            if len(set(firsts)) > 1:
                break
        return None


def _sized(processor: Any, max_pixels: int | None) -> dict[str, Any]:
    """The option for other sizes than a processor's own, of those that count pixels."""
    size = dict(getattr(processor, "size", None) or {})
    if max_pixels is None or not {"shortest_edge", "longest_edge"} <= size.keys():
        return {}
    return {"size": {"shortest_edge": min(size["shortest_edge"], max_pixels), "longest_edge": max_pixels}}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Start:
    """What every answer to a choice begins with, and how each goes on."""

    tokens: Sequence[int]
    """That all begin with."""
    firsts: Sequence[int]
    """The token after that, of each choice."""
    choices: tuple[str, ...]

    def after(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs that go on with it."""
        like_NL = inputs["input_ids"]
        start_NL = torch.tensor([self.tokens], device=like_NL.device).expand(len(like_NL), -1)
        more = {"input_ids": start_NL, "attention_mask": torch.ones_like(start_NL)}
        return {
            name: torch.cat([value, more.get(name, torch.zeros_like(start_NL)).to(value.dtype)], dim=1)
            if isinstance(value, torch.Tensor) and value.shape == like_NL.shape
            else value
            for name, value in inputs.items()
        }

    def response(self, request: Request, prompt_tokens: int, logits_V: torch.Tensor) -> Response:  # noqa: N803
        """The likeliest choice."""
        shares = torch.softmax(logits_V[list(self.firsts)].float(), dim=0).tolist()
        told = dict(zip(self.choices, shares, strict=True))
        return Response(
            id=request.id,
            text=json.dumps({"choice": max(told, key=told.__getitem__)}),
            finish_reason="stop",
            prompt_tokens=prompt_tokens,
            completion_tokens=1,
            probabilities=told if request.wants_probabilities else None,
        )


def make(model: str, *, device: str, **options: Any) -> TransformersCaptioner:
    """See the package."""
    return TransformersCaptioner(model=model, device=device, **options)
