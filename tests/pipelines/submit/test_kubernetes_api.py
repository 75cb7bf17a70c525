import pytest
from urllib3.exceptions import MaxRetryError, ReadTimeoutError

from pipelines.submit.kubernetes_api import retries


def silence() -> ReadTimeoutError:
    return ReadTimeoutError(None, "/", "no answer")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_changes_nothing_more_is_asked_again_after_a_silence(method: str) -> None:
    once = retries().increment(method, "/", error=silence())

    assert once.is_retry(method, 504)
    with pytest.raises(MaxRetryError):
        once.increment(method, "/", error=silence())


def test_what_creates_something_is_not_asked_again_after_a_silence() -> None:
    with pytest.raises(ReadTimeoutError):
        retries().increment("POST", "/", error=silence())
    assert not retries().is_retry("POST", 504)
    assert retries().is_retry("POST", 503)
