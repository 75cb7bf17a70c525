"""What the tests' servers have in common: JSON in, JSON out, and no lines on the terminal."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

__all__ = ["JsonHandler"]


class JsonHandler(BaseHTTPRequestHandler):
    """Answers over connections that stay open, as clients with a pool of them expect."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """Head and body are sent one after the other: each would wait for the other side's answer."""

    def log_message(self, *_: Any) -> None:
        """Nothing: a test's output is its own."""

    def body(self) -> bytes:
        """What was sent; it has to be taken before the answer, even where it is not needed."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def say(self, status: int, said: Any, kind: str = "application/json") -> None:
        """Answer with JSON, or with a text as it is."""
        text = (said if isinstance(said, str) else json.dumps(said)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
