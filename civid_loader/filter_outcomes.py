"""From the truth about clips to what becomes of their samples, and the counts of it with reasons."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from civid_loader.where import FALSE, TRUE, UNKNOWN, Condition

Scope = Literal["all", "any"]
"""Of how many of its clips the condition must be true for a sample to be kept."""
Unknown = Literal["drop", "keep"]
"""What becomes of a sample of which nobody can tell."""
OUTCOMES: Final = ("dropped", "unknown", "kept")
"""By truth: FALSE, UNKNOWN, TRUE."""
MAX_REASONS: Final = 20
"""Texts of one layer that are told; the rest is one number."""

Truth: TypeAlias = npt.NDArray[np.uint8]
Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcomes:
    """What becomes of the samples of a batch."""

    samples: Truth
    """FALSE, UNKNOWN or TRUE for each."""
    because: Mask
    """(condition, sample): of a dropped one, whether the condition is false for a clip; of an unknown one, unknown."""
    unknown_clips: Mask
    """(condition, clip): unknown, and so is the sample."""


def judge(truth: Truth, bounds: npt.NDArray[np.int64], *, scope: Scope) -> Outcomes:
    """Outcomes of samples whose clips begin at `bounds`; `truth` is of shape (condition, clip)."""
    of_clips = truth.min(axis=0) if len(truth) else np.full(truth.shape[1], TRUE, np.uint8)  # `and`
    samples = _per_sample(of_clips, bounds, scope=scope)
    has_false, has_unknown = (
        _per_sample((truth == value).astype(np.uint8), bounds, scope="any") > 0 for value in (FALSE, UNKNOWN)
    )
    is_unknown = np.repeat(samples == UNKNOWN, np.diff(bounds))
    return Outcomes(
        samples=samples,
        because=np.where(samples == FALSE, has_false, has_unknown & (samples == UNKNOWN)),
        unknown_clips=(truth == UNKNOWN) & is_unknown,
    )


def _per_sample(values: Truth, bounds: npt.NDArray[np.int64], *, scope: Scope) -> Truth:
    """The smallest (all) or largest (any) value of the clips of each sample, along the last axis."""
    lengths = np.diff(bounds)
    found = np.full((*values.shape[:-1], len(lengths)), TRUE if scope == "all" else FALSE, np.uint8)
    filled = lengths > 0
    if filled.any():
        reduce = np.minimum if scope == "all" else np.maximum
        found[..., filled] = reduce.reduceat(values, bounds[:-1][filled], axis=-1)
    return found


@dataclass(kw_only=True)
class Tally:
    """Counts of outcomes and reasons, batch after batch."""

    conditions: tuple[Condition, ...]
    samples: dict[str, Counter[str]] = field(default_factory=dict)
    """Split -> outcome -> samples."""
    because: dict[str, Counter[str]] = field(default_factory=dict)
    """dropped or unknown -> condition -> samples; a sample counts with each condition that is to blame."""
    reasons: Counter[str] = field(default_factory=Counter)
    """`<layer>: <its reason>` -> clips with an unknown value."""
    _blames: dict[bytes, str] = field(default_factory=dict)

    def add(self, outcomes: Outcomes, split: str, used: Mapping[int, Mapping[str, pa.StructArray]]) -> None:
        """Count a batch; `used` are the layers that each condition reads, with a row per clip."""
        counts = np.bincount(outcomes.samples, minlength=3).tolist()
        self.samples.setdefault(split, Counter()).update(dict(zip(OUTCOMES, counts, strict=True)))
        for value in (FALSE, UNKNOWN):
            numbers = (outcomes.because & (outcomes.samples == value)).sum(axis=1).tolist()
            named = {one.text: number for one, number in zip(self.conditions, numbers, strict=True) if number}
            self.because.setdefault(OUTCOMES[value], Counter()).update(named)
        for i, layers in used.items():
            mask = outcomes.unknown_clips[i]
            for name, struct in layers.items() if mask.any() else ():
                self._add_reasons(name, struct.filter(pa.array(mask)))

    def _add_reasons(self, layer: str, rows: pa.StructArray) -> None:
        is_missing = rows.is_null()
        if any(one.name == "reason" for one in rows.type):
            told = pc.fill_null(pc.struct_field(rows, "reason"), "no value, and no reason given")
        else:
            told = pa.array(["no value"] * len(rows), pa.string())
        texts = pc.if_else(is_missing, "the layer has no row for the clip", told)
        for entry in pc.value_counts(texts).to_pylist():
            self.reasons[f"{layer}: {entry['values']}"] += entry["counts"]

    def blame(self, outcomes: Outcomes, sample: int) -> str:
        """The conditions that a sample was dropped for, as text."""
        mask = outcomes.because[:, sample]
        key = mask.tobytes()
        if key not in self._blames:
            self._blames[key] = " and ".join(
                one.text for one, is_to_blame in zip(self.conditions, mask, strict=True) if is_to_blame
            )
        return self._blames[key]

    def summary(self) -> dict[str, Any]:
        """All counts, as plain JSON."""
        common = self.reasons.most_common()
        common.sort(key=lambda entry: (-entry[1], entry[0]))
        reasons = dict(common[:MAX_REASONS])
        if rest := sum(number for _, number in common[MAX_REASONS:]):
            reasons["other reasons"] = rest
        order = [one.text for one in self.conditions]
        dropped, unknown = (self.because.get(name, Counter[str]()) for name in ("dropped", "unknown"))
        return {
            "samples": {
                split: {name: counts[name] for name in OUTCOMES[::-1]} for split, counts in self.samples.items()
            },
            "dropped_by": {text: dropped[text] for text in order if dropped[text]},
            "unknown_by": {text: unknown[text] for text in order if unknown[text]},
            "unknown_reasons": reasons,
        }
