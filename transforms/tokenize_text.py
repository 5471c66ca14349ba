"""Texts to tokens, with a tokenizer of the user's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeText:
    """Set `tokens`: what the tokenizer returns for the `texts` of the sample, N of them, "" where a clip has none.

    A tokenizer of Hugging Face works as it is:

        tokenizer = AutoTokenizer.from_pretrained("google/t5-v1_1-xxl")
        options = {"padding": "max_length", "max_length": 512, "truncation": True, "return_tensors": "pt"}
        TokenizeText(tokenizer=tokenizer, options=options)     # tokens["input_ids"]: [N, 512]

    Pad to one length, or samples cannot be stacked. It must pickle to reach the workers of a loader: a function of a
    module does, a lambda does not.
    """

    tokenizer: Callable[..., Any]
    """Called with the list of texts and the options."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Keyword arguments of every call."""

    def __post_init__(self) -> None:
        if not callable(self.tokenizer):
            raise ValueError(f"tokenizer={self.tokenizer!r}: must be callable with a list of texts; give the object, "
                             "not its name")  # fmt: skip
        if strange := [key for key in self.options if not isinstance(key, str)]:
            raise ValueError(f"options: {strange[0]!r} is no keyword; name each argument of the tokenizer by a text")
        object.__setattr__(self, "options", dict(self.options))

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with its `tokens`."""
        return {**sample, "tokens": self.tokenizer([text or "" for text in sample["texts"]], **self.options)}
