"""A model that sees, in this process, by vLLM: for many clips on GPUs without a server.

It keeps to schemas. Films are sent as their frames, the time of each as text before it, as to a server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args

import vllm
from vllm.sampling_params import StructuredOutputsParams

from civid_loader.errors import CaptionerError
from civid_loader.processing.answer_texts import choices_of
from civid_loader.processing.backends.local_models import LocalCaptioner
from civid_loader.processing.backends.openai_messages import body_of, probabilities_of
from civid_loader.processing.captioner import FinishReason, Request, Response

_NUM_LOGPROBS: Final = 20
"""The most that vLLM tells unless set otherwise."""
_WHERE: Final = frozenset(
    {
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "gpu_memory_utilization",
        "max_num_seqs",
        "mm_processor_cache_gb",
    }
)
"""Settings of the engine that say how fast, not what."""


@dataclass(kw_only=True)
class VllmCaptioner(LocalCaptioner):
    """See `Captioner`."""

    batch_size: int = 128
    """Requests that are handed over together; how many of them it works on at once vLLM decides."""
    dtype: str = "bfloat16"
    """Of weights and sums."""
    seed: int = 0
    engine: Mapping[str, Any] = field(default_factory=dict)
    """More for `vllm.LLM`: `max_model_len`, `tensor_parallel_size`, `quantization` ..."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `Captioner`; its version too, as its kernels decide the last digits."""
        return {
            "backend": "vllm",
            "model": self.weights.id,
            **self.weights.identity,
            "version": vllm.__version__,
            "dtype": self.dtype,
            "seed": self.seed,
            "engine": {name: value for name, value in self.engine.items() if name not in _WHERE},
            "chat_template_kwargs": self.template_variables,
        }

    def load(self) -> None:
        """See `Captioner`."""
        path = str(self.weights.path)
        try:
            self._llm = vllm.LLM(model=path, dtype=self.dtype, seed=self.seed, **self.engine)
        except (ValueError, RuntimeError, TypeError) as error:
            raise CaptionerError(f"model {self.model}: vLLM cannot load it: {error}") from error
        self.start(self._answer)

    def close(self) -> None:
        """See `Captioner`."""
        if self.batcher is not None:
            self.batcher.close()
            self.batcher = None
            del self._llm

    def _answer(self, requests: Sequence[Request]) -> list[Response]:
        """Answers; a request that vLLM refuses, being too long, is found by halves, as it refuses all together."""
        try:
            found = self._llm.chat(
                [body_of(one, pictures="images")["messages"] for one in requests],
                sampling_params=[self._sampling(one) for one in requests],
                chat_template_kwargs=self.template_variables,
                use_tqdm=False,
            )
        except ValueError as error:
            if len(requests) == 1:
                return [Response(id=requests[0].id, error=f"ValueError: {error}", is_refused=True)]
            middle = len(requests) // 2
            return self._answer(requests[:middle]) + self._answer(requests[middle:])
        return [_response(*one) for one in zip(requests, found, strict=True)]

    def _sampling(self, request: Request) -> Any:
        schema = None if request.schema is None else StructuredOutputsParams(json=dict(request.schema))
        return vllm.SamplingParams(
            temperature=0.0,
            seed=self.seed,
            max_tokens=request.max_tokens,
            structured_outputs=schema,
            logprobs=_NUM_LOGPROBS if request.wants_probabilities else None,
        )


def _response(request: Request, found: Any) -> Response:
    (answer,) = found.outputs
    told = None
    if request.wants_probabilities and answer.logprobs is not None:
        told = probabilities_of(choices_of(request.schema), _as_server_tells(answer.token_ids, answer.logprobs))
    reason: FinishReason | None = answer.finish_reason if answer.finish_reason in get_args(FinishReason) else None
    return Response(
        id=request.id,
        text=answer.text,
        finish_reason=reason,
        error=None if reason else f"vLLM ended the answer: {answer.finish_reason}",
        prompt_tokens=len(found.prompt_token_ids),
        completion_tokens=len(answer.token_ids),
        probabilities=told,
    )


def _as_server_tells(tokens: Sequence[int], logprobs: Sequence[Mapping[int, Any]]) -> dict[str, Any]:
    """Of each token of an answer, what it and the likeliest others are."""
    content = []
    for token, candidates in zip(tokens, logprobs, strict=True):
        each = {key: {"token": one.decoded_token or "", "logprob": one.logprob} for key, one in candidates.items()}
        content.append({**each[token], "top_logprobs": list(each.values())})
    return {"content": content}


def make(model: str, *, device: str, **options: Any) -> VllmCaptioner:
    """See the package; vLLM takes the GPUs that are visible, whatever `device` says."""
    return VllmCaptioner(model=model, **options)
