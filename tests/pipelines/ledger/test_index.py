import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from pipelines.ledger.index import Release, newest_of, releases_of
from pipelines.ledger.tools import Tools
from pipelines.ledger.unchecked import Unchecked

Serve = Callable[[dict[str, list[dict[str, Any]]]], Tools]


def file(name: str, day: str | None = None, **more: object) -> dict[str, Any]:
    """A file as an index's JSON tells it."""
    when = {} if day is None else {"upload-time": f"{day}T12:00:00Z"}
    return {"filename": name, "url": name, "hashes": {}, **when, **more}


@pytest.fixture
def serve() -> Iterator[Serve]:
    """An index on this machine, with these projects' files."""
    servers = []

    def start(projects: dict[str, list[dict[str, Any]]]) -> Tools:
        class Index(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.strip("/").rpartition("/")[2]
                self.send_response(200 if name in projects else 404)
                self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
                self.end_headers()
                page = {
                    "meta": {"api-version": "1.1"},
                    "name": name,
                    "versions": [],
                    "files": projects.get(name, []),
                }
                self.wfile.write(json.dumps(page).encode())

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return Tools(Path("uv"), f"http://127.0.0.1:{server.server_port}/simple/")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_release_is_as_old_as_its_first_file_and_knows_whether_linux_has_a_wheel(
    serve: Serve,
) -> None:
    tools = serve(
        {
            "thing": [
                file("thing-1.0.tar.gz", "2024-01-02"),
                file("thing-1.0-cp311-cp311-manylinux_2_39_x86_64.whl", "2024-01-05"),
                file("thing-1.1-py2-none-any.whl", "2024-03-01"),
                file("thing-1.1.tar.gz", "2024-03-02"),
                file("thing-1.2-cp311-cp311-win_amd64.whl", "2024-04-01", yanked=True),
                file("thing-not a version.tar.gz", "2024-05-01"),
            ],
        }
    )

    found = releases_of(["thing", "nowhere"], tools)

    assert found == {
        "thing": {
            Version(version): Release(
                Version(version),
                datetime(2024, month, day, 12, tzinfo=UTC),
                has_wheel=wheel,
                yanked=yanked,
            )
            for version, month, day, wheel, yanked in (
                ("1.0", 1, 2, True, False),
                ("1.1", 3, 1, False, False),
                ("1.2", 4, 1, False, True),
            )
        }
    }


def test_the_newest_release_is_neither_a_candidate_nor_taken_back(serve: Serve) -> None:
    names = ("2.0", "10.0", "11.0rc1", "12.0.dev1")
    files = [file(f"thing-{version}.tar.gz") for version in names]
    files.append(file("thing-10.1.tar.gz", yanked="broken"))

    newest = newest_of(releases_of(["thing"], serve({"thing": files}))["thing"])

    assert newest is not None
    assert str(newest.version) == "10.0"
    assert newest_of({}) is None


def test_an_index_that_does_not_answer_is_said_without_its_address() -> None:
    tools = Tools(Path("uv"), "http://user:secret@127.0.0.1:9/simple/")

    with pytest.raises(Unchecked) as refused:
        releases_of(["thing", "other"], tools)

    assert str(refused.value) == "the package index does not answer"
    assert "secret" not in repr(tools)
