"""A stand-in for the package vllm, which needs a GPU and cannot be installed here: the names and arguments that the
backend uses, as vLLM 0.12 documents them, and answers made of what it was given. It proves that requests are put
together and answers read as documented, not that vLLM works so.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

MAX_PROMPT_PARTS = 5
"""More are refused, as prompts are that are longer than `max_model_len`."""


@dataclass(kw_only=True)
class StructuredOutputsParams:
    """Of `vllm.sampling_params`."""

    json: Any = None


@dataclass(kw_only=True)
class SamplingParams:
    """What the backend sets."""

    temperature: float
    seed: int | None
    max_tokens: int
    structured_outputs: StructuredOutputsParams | None
    logprobs: int | None


@dataclass(kw_only=True)
class Logprob:
    """Of one candidate for a token."""

    logprob: float
    decoded_token: str | None


@dataclass(kw_only=True)
class CompletionOutput:
    """An answer."""

    text: str
    token_ids: Sequence[int]
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str


@dataclass(kw_only=True)
class RequestOutput:
    """Answers to a prompt."""

    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]


class LLM:
    """Chooses the last that is allowed with 0.75, the others share the rest; else tells what it was shown."""

    def __init__(self, *, model: str, dtype: str, seed: int, **engine: Any) -> None:
        if engine.get("quantization") == "none_such":
            raise ValueError("Unknown quantization method: none_such")
        self.made_with = {"model": model, "dtype": dtype, "seed": seed, **engine}
        self.calls: list[int] = []

    def chat(
        self,
        messages: list[list[dict[str, Any]]],
        *,
        sampling_params: list[SamplingParams],
        chat_template_kwargs: dict[str, Any],
        use_tqdm: bool,
    ) -> list[RequestOutput]:
        """An answer to each conversation, in order."""
        assert not use_tqdm
        self.calls.append(len(messages))
        self.variables = chat_template_kwargs
        if any(len(one[0]["content"]) > MAX_PROMPT_PARTS for one in messages):
            raise ValueError("The decoder prompt is longer than the maximum model length")
        return [_answered(*one) for one in zip(messages, sampling_params, strict=True)]


def _answered(messages: Sequence[Mapping[str, Any]], params: SamplingParams) -> RequestOutput:
    content = messages[0]["content"]
    text = " ".join(part.get("text") or part["type"] for part in content)
    choices: Sequence[str] = ()
    if params.structured_outputs is not None:
        choices = params.structured_outputs.json["properties"]["choice"]["enum"]
        text = json.dumps({"choice": choices[-1]})
    tokens = ['{"', "choice", '": "', choices[-1], '"}'] if choices else text.split(" ")
    logprobs = None
    if params.logprobs:
        others = {one: math.log(0.25 / (len(choices) - 1)) for one in choices[:-1]}
        logprobs = [{0: Logprob(logprob=0.0, decoded_token=token)} for token in tokens]
        logprobs[3] = {0: Logprob(logprob=math.log(0.75), decoded_token=choices[-1])} | {
            i: Logprob(logprob=value, decoded_token=one) for i, (one, value) in enumerate(others.items(), 1)
        }
    kept = tokens[: params.max_tokens]
    answer = CompletionOutput(
        text=text if len(kept) == len(tokens) else " ".join(kept),
        token_ids=[0] * len(kept),
        logprobs=logprobs,
        finish_reason="stop" if len(kept) == len(tokens) else "length",
    )
    if text == "abort":
        answer.finish_reason = "abort"
    return RequestOutput(prompt_token_ids=[0] * len(content), outputs=[answer])


def module() -> ModuleType:
    """The package, its parts below it; put both into `sys.modules`."""
    package, part = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    vars(package).update(
        LLM=LLM, SamplingParams=SamplingParams, sampling_params=part, __version__="0.12.0", __path__=[]
    )
    vars(part).update(StructuredOutputsParams=StructuredOutputsParams, SamplingParams=SamplingParams)
    return package


def installed() -> dict[str, ModuleType]:
    """Name -> module, for `sys.modules`."""
    package = module()
    return {"vllm": package, "vllm.sampling_params": package.sampling_params}
