"""Text left out of some samples, for classifier-free guidance."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class DropText:
    """Replace all `texts` of a sample at once, now and then; `is_text_dropped`, bool, says where.

    A model trained so learns the distribution without text beside the one with it, which guidance needs
    (Ho and Salimans, "Classifier-Free Diffusion Guidance", section 3.2).

    Raises, when called:
        ValueError: the texts have been interleaved or tokenized already, so that dropping them would change nothing.
    """

    probability: float = 0.1
    """Share of samples without text, 0 to 1."""
    replacement: str = ""
    """What each clip gets instead of its text."""

    def __post_init__(self) -> None:
        # Written so that NaN is refused too.
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability={self.probability!r}: the share of samples to drop, from 0 to 1")
        if not isinstance(self.replacement, str):
            raise ValueError(f"replacement={self.replacement!r}: must be a text; '' is none at all")

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with its text, or without."""
        if late := sorted({"items", "tokens"} & sample.keys()):
            raise ValueError(
                f"sample {sample['sample_id']}: its text is in {late[0]!r} already; put DropText in front of "
                "Interleave and TokenizeText"
            )
        is_dropped = bool(rng.random() < self.probability)
        texts = [self.replacement] * len(sample["texts"]) if is_dropped else sample["texts"]
        return {**sample, "texts": texts, "is_text_dropped": is_dropped}
