"""Tiers of quality, each a part of the one before (MiraData: 788K, 330K, 93K, 42K and 9K clips).

The paper raises thresholds from tier to tier and does not publish them; so there are no defaults here. `fit_tiers`
finds thresholds of one's own data that keep given shares.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from civid_loader.errors import StageError

Op = Literal[">=", ">", "<=", "<", "=", "!="]
Mask = npt.NDArray[np.bool_]
_TESTS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    ">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A test of one column. What is missing fails it."""

    column: str
    op: Op
    value: float | bool | str
    """What the column is compared with."""

    def __post_init__(self) -> None:
        if self.op not in get_args(Op):
            raise StageError(f"rule on {self.column}: {self.op!r} must be one of {' '.join(get_args(Op))}")

    @property
    def where(self) -> str:
        """As a condition of `civid filter`."""
        text = "'{}'".format(str(self.value).replace("'", "''"))
        value = text if isinstance(self.value, str) else str(self.value).lower()
        return f"{self.column} {self.op} {value}"

    def implies(self, looser: "Rule") -> bool:
        """Whether what passes this passes the other too, as far as the rules alone tell."""
        if self == looser:
            return True
        if self.column != looser.column or isinstance(self.value, str) or isinstance(looser.value, str):
            return False
        sides = {">=": 1, ">": 1, "<=": -1, "<": -1}
        side = sides.get(looser.op, 0)
        if not side or sides.get(self.op, 0) != side:
            return self.op == "=" and bool(_TESTS[looser.op](self.value, looser.value))
        is_strict = self.op in "<>" or looser.op not in "<>"
        return side * self.value > side * looser.value or (self.value == looser.value and is_strict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tier:
    """A clip is in it if it passes all rules."""

    name: str
    rules: tuple[Rule, ...]
    """None: everything is in it."""

    @property
    def where(self) -> str:
        """As a condition of `civid filter`."""
        return " and ".join(rule.where for rule in self.rules)


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityTiers:
    """Tiers, loosest first."""

    tiers: tuple[Tier, ...]

    def __post_init__(self) -> None:
        for wider, tier in pairwise(self.tiers):
            for looser in wider.rules:
                if not any(rule.implies(looser) for rule in tier.rules):
                    raise StageError(
                        f"tier {tier.name} is no part of tier {wider.name}: it has no rule at least as strict as "
                        f"{looser.where}; repeat the rule, or raise it"
                    )

    def members(self, table: pa.Table) -> list[Mask]:
        """For each tier bool [rows]: whether the row is in it. A tier's rows are all in the tier before.

        Raises:
            StageError: a column that a rule names is not there.
        """
        return [passing(table, tier.rules) for tier in self.tiers]


def passing(table: pa.Table, rules: Sequence[Rule]) -> Mask:
    """bool [rows]: which pass all rules; a null or NaN passes none.

    Raises:
        StageError: a column that a rule names is not there.
    """
    kept = np.ones(table.num_rows, bool)
    for rule in rules:
        values = _column(table, rule.column).to_pylist()
        test = _TESTS[rule.op]
        kept &= np.array([v is not None and v == v and bool(test(v, rule.value)) for v in values], bool)
    return kept


def fit_tiers(
    table: pa.Table, columns: Sequence[str], target_fractions: Sequence[float], *, base: Sequence[Rule] = ()
) -> QualityTiers:
    """Thresholds that keep given shares of a table: all columns' quantiles are raised together, one step at a time.

    Rows are dropped one by one: of 1,000 rows and two columns, first the row with the lowest score of the first, then
    that of the second, then the next of the first ... until `round(fraction * 1,000)` are left. So the counts are
    exact, but where rows have equal scores, of which all are kept.

    Args:
        table: one row per clip.
        columns: scores, more is better: aesthetic and flow in the paper. A row without one of them is in no tier.
        target_fractions: of the rows of the table, falling, each in (0, 1]; the paper's are .419 .118 .053 .011.
        base: rules of every tier: `nsfw = false`. Rows that fail are in no tier.

    Raises:
        StageError: no such column, fractions that are none, or more asked for than rows can be judged.
    """
    if not columns or not target_fractions or not all(0 < share <= 1 for share in target_fractions):
        raise StageError(
            f"fractions {list(target_fractions)} of columns {list(columns)}: at least one of each, in (0, 1]"
        )
    if any(later > share for share, later in pairwise(target_fractions)):
        raise StageError(f"fractions {list(target_fractions)} must fall: every tier is a part of the one before")
    scores = [np.array(_column(table, name).cast(pa.float64()).to_numpy(zero_copy_only=False)) for name in columns]
    can_be_in = passing(table, base) & np.all([np.isfinite(of_column) for of_column in scores], axis=0)
    scores = [of_column[can_be_in] for of_column in scores]
    num_rows = int(can_be_in.sum())
    # Row r falls when the threshold of a column passes its rank: step rank * columns + column + 1, the first of them.
    falls = np.full(num_rows, np.iinfo(np.int64).max)
    for number, of_column in enumerate(scores):
        rank = np.empty(num_rows, np.int64)
        rank[np.argsort(of_column, kind="stable")] = np.arange(num_rows)
        falls = np.minimum(falls, rank * len(scores) + number + 1)
    by_step = np.sort(falls)[::-1]
    tiers = []
    for share in target_fractions:
        num_kept = max(1, round(share * table.num_rows))
        if num_kept > num_rows:
            raise StageError(
                f"{share:g} of {table.num_rows:,} rows are {num_kept:,}, but only {num_rows:,} pass the base rules and "
                f"have all of {', '.join(columns)}"
            )
        step = int(by_step[num_kept - 1]) - 1  # after as many steps, exactly these are left
        levels = [step // len(scores) + (number < step % len(scores)) for number in range(len(scores))]
        fitted = [
            Rule(column=name, op=">=", value=float(np.sort(of_column)[level]))
            for name, of_column, level in zip(columns, scores, levels, strict=True)
        ]
        tiers.append(Tier(name=f"{share:g}", rules=(*base, *fitted)))
    return QualityTiers(tiers=tuple(tiers))


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise StageError(f"no column {name!r}; there are {', '.join(table.column_names)}")
    return table.column(name)
