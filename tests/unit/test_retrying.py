"""Which errors of the Hub are tried again, how often, and what is said of the others."""

import importlib
from collections.abc import Callable

import pytest
from huggingface_hub.errors import HfHubHTTPError

from civid_loader.errors import HubError
from civid_loader.hub import retrying as module
from civid_loader.hub.access import TRANSPORT_ERROR, hub_errors
from civid_loader.hub.retrying import MAX_TRIES, is_transient, retrying

http = importlib.import_module(TRANSPORT_ERROR.__module__.partition(".")[0])
"""The client's HTTP library, of whatever name."""


def refused(status: int) -> HfHubHTTPError:
    request = http.Request("PUT", "http://127.0.0.1/x")
    return HfHubHTTPError("refused", response=http.Response(status, request=request))


def of_upload(cause: Exception) -> RuntimeError:
    """As the client wraps whatever goes wrong with a file."""
    error = RuntimeError("Error while uploading 'a.parquet' to the Hub.")
    error.__cause__ = cause
    return error


def failing(errors: list[Exception], *, then: Callable[[], None] = lambda: None) -> Callable[[], str]:
    def work() -> str:
        then()
        if errors:
            raise errors.pop(0)
        return "done"

    return work


@pytest.mark.parametrize("status", [400, 403, 404])
def test_the_storage_refusing_is_tried_again_and_the_hub_refusing_is_not(status: int) -> None:
    assert is_transient(of_upload(refused(status)))
    assert not is_transient(refused(status))
    assert not is_transient(of_upload(ValueError("ours")))


def test_tries_are_counted_anew_when_something_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACK_OFF", lambda state: 0)
    faults: list[Exception] = [refused(503) for _ in range(3 * MAX_TRIES)]
    done = 0

    def go_on() -> None:
        nonlocal done
        done += 1

    lines: list[str] = []
    assert retrying(failing(list(faults), then=go_on), tell=lines.append, progress=lambda: done) == "done"
    assert len(lines) == len(faults)
    with pytest.raises(HfHubHTTPError):
        retrying(failing(list(faults)), tell=lines.append, progress=lambda: done)
    assert len(lines) == len(faults) + MAX_TRIES - 1


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (refused(403), r"org/x at revision 'main': the storage behind the Hub refuses \(HTTP 403\).*run the same"),
        (refused(500), r"the Hub has a problem of its own \(HTTP 500\).*'a.parquet'.*run the same command again"),
        (http.ConnectError("gone"), r"cannot be reached \(gone\).*'a.parquet'.*run the same command again"),
    ],
)  # fmt: skip
def test_a_failed_upload_is_a_message(cause: Exception, message: str) -> None:
    with pytest.raises(HubError, match=message), hub_errors("org/x", "main"):
        raise of_upload(cause)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="uploading"), hub_errors("org/x"):
        raise of_upload(ValueError("ours"))
    with pytest.raises(ZeroDivisionError), hub_errors("org/x"):
        raise ZeroDivisionError
