"""What people, logs and records may see of texts that can hold credentials."""

import re

__all__ = ["shown"]

_USER_INFO = re.compile(r"(\w://)[^/\s@]*@")
_QUERY = re.compile(r"(\w://[^\s?'\"]*)\?[^\s'\")]*")


def shown(text: str) -> str:
    """A URL, or a text that holds some, without user, password and signature."""
    return _QUERY.sub(r"\1", _USER_INFO.sub(r"\1", text))
