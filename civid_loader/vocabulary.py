"""How long texts are and which words they use, counted piece by piece; and which words others use more."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_NO_WORD: Final = r"[^\pL\pN'’-]+"
_MAX_LENGTH: Final = 100_000
"""Words; longer texts count as this long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Lengths of texts in words, as spaces separate them."""

    num_texts: int
    mean: float
    p5: float
    median: float
    p95: float


@dataclass(frozen=True, kw_only=True, slots=True)
class WordShift:
    """A word that one set of texts uses more than the other."""

    word: str
    first_per_million: float
    """Of a million words of the first texts, so many are this one."""
    second_per_million: float
    z: float
    """Log-odds ratio in standard deviations; > 0: gained, < 0: lost."""


@dataclass(kw_only=True)
class TextCounts:
    """Counts of texts, added piece by piece."""

    words: Counter[str] = field(default_factory=Counter)
    """In small letters, without punctuation."""
    _by_length: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))

    def add(self, texts: pa.Array) -> None:
        """Count these texts; nulls are none."""
        texts = texts.drop_null()
        if not len(texts):
            return
        lengths = np.minimum(pc.count_substring_regex(texts, r"\S+").to_numpy(), _MAX_LENGTH)
        counts = np.bincount(lengths, minlength=len(self._by_length))
        counts[: len(self._by_length)] += self._by_length
        self._by_length = counts
        plain = pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(texts), _NO_WORD, " "))
        words = pc.value_counts(pc.utf8_split_whitespace(plain).flatten())
        found = zip(words.field("values").to_pylist(), words.field("counts").to_pylist(), strict=True)
        self.words.update({word: number for word, number in found if word})

    @property
    def num_words(self) -> int:
        """Of all texts."""
        return self.words.total()

    def lengths(self) -> Lengths | None:
        """Of the texts so far; None where there are none."""
        num_texts = int(self._by_length.sum())
        if not num_texts:
            return None
        up_to = np.cumsum(self._by_length)
        # The smallest length that so many texts do not exceed.
        p5, median, p95 = (float(np.searchsorted(up_to, share * num_texts)) for share in (0.05, 0.5, 0.95))
        mean = float(np.arange(len(up_to)) @ self._by_length / num_texts)
        return Lengths(num_texts=num_texts, mean=mean, p5=p5, median=median, p95=p95)


def word_shifts(first: Counter[str], second: Counter[str]) -> list[WordShift]:
    """All words by how much more the second texts use them: gained ones first, lost ones last.

    Log-odds ratios with an informative Dirichlet prior, the words of both sets together, in standard deviations
    (Monroe, Colaresi and Quinn, "Fightin' Words", 2008, section 3.4), so that neither rare nor common words win by
    being rare or common.
    """
    words = sorted(first.keys() | second.keys())
    if not first or not second:
        return []
    counts = np.array([[of[word] for word in words] for of in (first, second)], np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    prior = counts.sum(axis=0)
    strength = min(totals.sum() / 10, 10_000.0)
    prior = prior * strength / prior.sum()
    posterior = counts + prior
    log_odds = np.log(posterior) - np.log(np.maximum(totals + strength - posterior, 1e-9))
    z = (log_odds[1] - log_odds[0]) / np.sqrt((1 / posterior).sum(axis=0))
    per_million = counts / totals * 1e6
    return [
        WordShift(
            word=words[i],
            first_per_million=float(per_million[0, i]),
            second_per_million=float(per_million[1, i]),
            z=float(z[i]),
        )
        for i in np.argsort(-z, kind="stable").tolist()
    ]
