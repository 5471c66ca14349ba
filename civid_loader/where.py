"""Conditions on clips, written as SQL expressions and computed by duckdb, which can reach nothing but the given table.

An expression is parsed first. Only what is on the lists below is let through: no subqueries, no statements, no
functions that look outside, give another answer each time or fill the memory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from civid_loader.errors import WhereError

FALSE: Final = 0
UNKNOWN: Final = 1
TRUE: Final = 2
"""Truth of SQL in three values. In this order `and` is the smallest, `or` the largest."""

MAX_CHARS: Final = 10_000
_TABLE: Final = '"clips of a batch"'
_SETTINGS: Final = (
    "enable_external_access = false", "autoinstall_known_extensions = false", "autoload_known_extensions = false",
    "allow_community_extensions = false", "memory_limit = '2GB'", "max_temp_directory_size = '0KB'", "threads = 1",
    "TimeZone = 'UTC'", "lock_configuration = true",
)  # fmt: skip
_NODES: Final = {
    "CONJUNCTION", "COMPARISON", "BETWEEN", "OPERATOR", "FUNCTION", "COLUMN_REF", "CONSTANT", "CAST", "CASE", "LAMBDA",
    "TYPE",
}  # fmt: skip
_CALLABLE: Final = (
    # operators, as the parser names them
    "+ - * / // % ** ^ & | || << >> ~ ~~ !~~ ~~* !~~* ~~~ ^@ @> <@ && "
    "like_escape not_like_escape ilike_escape not_ilike_escape "
    # numbers
    "abs ceil ceiling floor round trunc sign sqrt cbrt exp ln log log2 log10 pow power mod fmod fdiv greatest least "
    "isnan isinf isfinite nullif if "
    # texts
    "length len strlen lower upper lcase ucase trim ltrim rtrim contains starts_with ends_with prefix suffix left "
    "right substr substring replace reverse split split_part string_split str_split string_split_regex "
    "str_split_regex concat concat_ws position strpos instr strip_accents levenshtein jaccard jaro_similarity "
    "jaro_winkler_similarity regexp_matches regexp_full_match regexp_extract regexp_extract_all regexp_replace "
    "md5 sha256 "
    # lists, maps and structs
    "list_value list_contains list_has list_has_any list_has_all list_filter list_transform list_apply list_reduce "
    "list_sum list_avg list_min list_max list_median list_stddev_pop list_count list_any_value list_first list_last "
    "list_sort list_distinct list_unique list_concat list_position list_element list_extract list_slice list_bool_and "
    "list_bool_or array_contains array_has array_has_any array_has_all array_length array_extract array_position "
    "flatten element_at cardinality map_keys map_values map_entries map_contains map_extract map_extract_value "
    "struct_extract struct_pack row "
    # times
    "year month day hour epoch date_part datepart date_diff datediff date_trunc datetrunc to_days to_hours to_minutes "
    "to_seconds to_months to_years"
)
FUNCTIONS: Final = frozenset(_CALLABLE.split())
"""Functions an expression may call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One of the conditions that an expression joins by `and`."""

    text: str
    names: tuple[tuple[str, ...], ...]
    """Columns it reads, each with the fields after its dots; in order, each once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """An expression that may be computed."""

    text: str
    """As the user wrote it."""
    conditions: tuple[Condition, ...]

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """Columns of all conditions."""
        return tuple(dict.fromkeys(name for one in self.conditions for name in one.names))


def parse_where(text: str) -> Where:
    """Read an expression, such as `flow_mean_px >= 20 and cut_count == 0`.

    Raises:
        WhereError: it is no expression, or holds what is not let through.
    """
    if not text.strip() or len(text) > MAX_CHARS or "\0" in text:
        raise WhereError(f"a condition has 1 to {MAX_CHARS:,} characters and no null byte, not {len(text):,}")
    with _connect() as connection:
        try:
            # The parser takes the text as it is; what it understood, and nothing else, is computed later.
            parsed = _ask(connection, "SELECT json_serialize_sql(?::VARCHAR)", f"SELECT 1 FROM t WHERE {text}\n")
            node = _only_where(text, json.loads(parsed))
            children = node["children"] if node["type"] == "CONJUNCTION_AND" else [node]
            conditions = tuple(
                Condition(text=_text_of(connection, child), names=tuple(dict.fromkeys(_names(child, frozenset()))))
                for child in children
            )
        except RecursionError as error:
            raise WhereError("the condition is nested too deeply; write it as several, one after the other") from error
    return Where(text=text, conditions=conditions)


def _connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    for setting in _SETTINGS:
        connection.execute(f"SET {setting}")
    return connection


def _ask(connection: duckdb.DuckDBPyConnection, query: str, value: str) -> str:
    ((answer,),) = connection.execute(query, [value]).fetchall()
    return str(answer)


def _only_where(text: str, parsed: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of the expression; refuses a text that says more than that."""
    if parsed["error"]:
        raise WhereError(f"{_short(text)}: not an expression: {parsed['error_message']}")
    nodes = [one["node"] for one in parsed["statements"]]
    extras = ("modifiers", "group_expressions", "group_sets", "having", "sample", "qualify")
    is_plain = len(nodes) == 1 and nodes[0]["type"] == "SELECT_NODE" and not any(nodes[0][name] for name in extras)
    if not is_plain or nodes[0]["where_clause"] is None or nodes[0]["cte_map"]["map"]:
        raise WhereError(f"{_short(text)}: only one expression is allowed, without clauses or statements after it")
    where: dict[str, Any] = nodes[0]["where_clause"]
    return where


def _names(node: Any, bound: frozenset[str]) -> list[tuple[str, ...]]:
    """Columns read below a node, but for the parameters of lambdas; refuses what is not on the lists."""
    if isinstance(node, list):
        return [name for child in node for name in _names(child, bound)]
    if not isinstance(node, dict):
        return []
    kind = node.get("class")
    if kind is not None and kind not in _NODES:
        raise WhereError(f"a condition is about one clip and its columns; {_called(node)} is not allowed in it")
    if kind == "FUNCTION" and node["function_name"].lower() not in FUNCTIONS:
        known = sorted(name for name in FUNCTIONS if name.isidentifier())
        raise WhereError(f"{node['function_name']}() is not allowed in a condition; these are: {', '.join(known)}")
    if kind == "COLUMN_REF":
        parts = tuple(node["column_names"])
        return [] if parts[0].lower() in bound else [parts]
    if kind == "LAMBDA":
        parameters = {parts[0].lower() for parts in _names(node["lhs"], frozenset())}
        return _names(node["expr"], bound | parameters)
    return [name for child in node.values() for name in _names(child, bound)]


def _called(node: Mapping[str, Any]) -> str:
    return {"SUBQUERY": "a subquery", "STAR": "*", "WINDOW": "a window function", "PARAMETER": "a parameter"}.get(
        node["class"], str(node["class"]).lower().replace("_", " ")
    )


def _text_of(connection: duckdb.DuckDBPyConnection, node: Mapping[str, Any]) -> str:
    """A condition as duckdb writes it: `(a == 1)` -> `a = 1`."""
    statement = json.loads(_ask(connection, "SELECT json_serialize_sql(?::VARCHAR)", "SELECT 1"))
    statement["statements"][0]["node"]["select_list"] = [node]
    query = _ask(connection, "SELECT json_deserialize_sql(?::JSON)", json.dumps(statement))
    text = query.removeprefix("SELECT ")
    inner = text[1:-1]
    is_wrapped = text.startswith("(") and text.endswith(")") and node["class"] != "FUNCTION"
    return inner if is_wrapped and _is_balanced(inner) else text


def _is_balanced(text: str) -> bool:
    """Whether no bracket is closed before it is opened; brackets in quotes count as well, which is safe here."""
    depth = 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if depth < 0:
            return False
    return depth == 0


class Evaluator:
    """Computes the conditions of an expression on tables with a row per clip."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._connection = _connect()
        columns = ", ".join(f"({one.text}) AS c{i}" for i, one in enumerate(where.conditions))
        self._query = f"SELECT {columns} FROM {_TABLE}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def __call__(self, clips: pa.Table) -> npt.NDArray[np.uint8]:
        """FALSE, UNKNOWN or TRUE of shape (condition, clip).

        Raises:
            WhereError: it cannot be computed, such as a text taken as a number, or a condition is no condition.
        """
        try:
            self._connection.register(_TABLE.strip('"'), clips)
            found = self._connection.sql(self._query).to_arrow_table()
            self._connection.unregister(_TABLE.strip('"'))
        except duckdb.Error as error:
            raise WhereError(f"{_short(self._where.text)}: {error}") from error
        assert found.num_rows == clips.num_rows
        truth = np.empty((found.num_columns, found.num_rows), np.uint8)
        for i, condition in enumerate(self._where.conditions):
            values = found.column(i)
            if values.type != pa.bool_():
                raise WhereError(
                    f"{condition.text}: a {values.type}, neither true nor false; compare it with something"
                )
            is_true = values.fill_null(False).to_numpy()
            truth[i] = np.where(values.is_null().to_numpy(), UNKNOWN, np.where(is_true, TRUE, FALSE))
        return truth


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:200]}…")
