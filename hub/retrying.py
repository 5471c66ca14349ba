"""Another try where the Hub says that it may help, by status and never by message."""

from collections.abc import Callable
from typing import Final, TypeVar

import tenacity
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined] # public, and not in __all__

from civid_loader.hub.access import REFUSED_BY_STORAGE, TRANSPORT_ERROR, cause_of, status_of

T = TypeVar("T")

MAX_TRIES: Final = 6
_TRANSIENT: Final = frozenset({408, 409, 412, 425, 429, 500, 502, 503, 504})
"""409 and 412: somebody else pushed in between; what is left to do is planned anew."""
_BACK_OFF: Final = tenacity.wait_exponential_jitter(initial=1, max=60)


def retrying(work: Callable[[], T], *, tell: Callable[[str], None], progress: Callable[[], int] = lambda: 0) -> T:
    """The result of `work`, which is called again after errors that may pass; it must find what it did before.

    Waits as long as the Hub asks for (Retry-After, RateLimit), else 1, 2, 4 ... s. `tell` gets a line before each wait.
    Tries are counted anew whenever `progress()` has changed: a push of days may meet any number of faults.
    """
    done = progress()

    def may_pass(state: tenacity.RetryCallState) -> bool:
        nonlocal done
        error = state.outcome.exception() if state.outcome else None
        if (now := progress()) != done:
            done, state.attempt_number = now, 1
        return error is not None and is_transient(error)

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        status = status_of(cause_of(error)) if error else None
        what = "the connection was lost" if status is None else f"the Hub answers HTTP {status}"
        tell(f"{what}; trying again in {state.upcoming_sleep:.0f} s ({state.attempt_number} of {MAX_TRIES - 1})")

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(MAX_TRIES),
        wait=_wait_seconds,
        retry=may_pass,
        before_sleep=before_sleep,
        reraise=True,
    )(work)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    is_upload = error is not (cause := cause_of(error))
    error = cause
    status = status_of(error)
    if status is not None:
        # An address for an upload gets too old; the next try asks for another.
        return status in _TRANSIENT or (is_upload and status in REFUSED_BY_STORAGE)
    # Without a reply: the connection failed. Errors of the client about its own input are of other classes.
    return isinstance(error, TRANSPORT_ERROR | ConnectionError | TimeoutError) and not isinstance(error, HfHubHTTPError)


def _wait_seconds(state: tenacity.RetryCallState) -> float:
    error = cause_of(state.outcome.exception() or TimeoutError()) if state.outcome else TimeoutError()
    headers = getattr(getattr(error, "response", None), "headers", {})
    limit = parse_ratelimit_headers(headers)
    asked = headers.get("Retry-After", "")
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds + 1)
    return float(asked) if asked.isdigit() else _BACK_OFF(state)
