"""What is answered to a request that cannot be met (PS3.18 table 8.5-1). The text repeats nothing of the request."""

from collections.abc import Mapping


class WebError(Exception):
    """A status of 4xx or 503, and a line for the person who reads the client's log."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, dict(headers or {})


def not_found() -> WebError:
    """Return what is said of whatever is not held, or must not be seen."""
    return WebError(404, "the node holds no such object, or not any more")


def not_acceptable(text: str) -> WebError:
    """Return what is said where nothing that is asked for can be given."""
    return WebError(406, text)


def busy() -> WebError:
    """Return what is said where too much is under way."""
    return WebError(503, "too much is asked at once: try again", {"Retry-After": "5"})
