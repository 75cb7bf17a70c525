import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from pipelines.errors import InputError
from pipelines.ingest import files as files_module
from pipelines.ingest.files import find_files, open_file, read_range

CONTENT = bytes(range(256)) * 40


def refusal(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(InputError) as raised:
        call(*arguments)
    message = str(raised.value)
    assert len(message.splitlines()) == 1, message
    return message


def read_whole(url: str) -> bytes:
    with open_file(url) as opened:
        return opened.read()


def fill(folder: Path, *names: str, content: bytes = CONTENT) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def names_in(paths: str | list[str], suffixes: tuple[str, ...] = ()) -> list[str]:
    return [file.name for file in find_files(paths, suffixes)]


class WebServer(ThreadingHTTPServer):
    """Serves ``contents``; what a path begins with says how badly."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WebHandler)
        self.contents = {"/plain/a.csv": CONTENT, "/ranges/a.csv": CONTENT}
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.ranges: list[str] = []


class WebHandler(BaseHTTPRequestHandler):
    server: WebServer

    def do_HEAD(self) -> None:
        self.answer(with_content=False)

    def do_GET(self) -> None:
        self.answer(with_content=True)

    def answer(self, *, with_content: bool) -> None:
        path = self.path.partition("?")[0]
        content = self.server.contents.get(path)
        asked = self.headers.get("Range")
        if path.startswith("/forbidden"):
            self.send_error(403)
        elif path.startswith("/broken"):
            self.send_error(500)
        elif path.startswith("/unsized"):
            self.send_response(200)
            self.end_headers()
        elif content is None:
            self.send_error(404)
        else:
            status = 200
            if asked and path.startswith("/ranges"):
                self.server.ranges.append(asked)
                first, last = re.findall(r"\d+", asked)
                content, status = content[int(first) : int(last) + 1], 206
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"v1"')
            self.end_headers()
            if with_content:
                self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Tests say what went wrong."""


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """An S3 server with three objects in its bucket; yields its address."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id="someone",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="bucket")
    for name in ("data/a.csv", "data/more/b.csv", "data/_SUCCESS"):
        client.put_object(Bucket="bucket", Key=name, Body=CONTENT)
    yield address
    server.stop()


@pytest.fixture
def s3(store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's bucket, reached as the environment variables of a user would have it."""
    monkeypatch.setitem(fsspec.config.conf, "s3", {})
    fsspec.config.set_conf_env(
        fsspec.config.conf,
        {
            "FSSPEC_S3_ENDPOINT_URL": store,
            "FSSPEC_S3_KEY": "someone",
            "FSSPEC_S3_SECRET": "secret",
        },
    )
    return "s3://bucket"


def test_a_file_is_found_by_its_absolute_relative_and_home_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "raw/a.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    for path in (str(tmp_path / "raw" / "a.csv"), "raw/a.csv", "./raw/a.csv", "~/raw/a.csv"):
        (file,) = find_files(path)
        assert (file.url, file.name, file.size) == (
            str(tmp_path / "raw" / "a.csv"),
            "a.csv",
            len(CONTENT),
        )
        assert read_whole(file.url) == CONTENT


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.csv", ["a1.csv", "a2.csv", "b1.csv"]),
        ("a?.csv", ["a1.csv", "a2.csv"]),
        ("[b]1.csv", ["b1.csv"]),
        ("[!b]1.csv", ["a1.csv"]),
        ("**/c.csv", ["deep/c.csv", "deep/er/c.csv"]),
        ("*/c.csv", ["deep/c.csv"]),
        (".*.csv", [".hidden.csv"]),
    ],
)
def test_a_glob_finds_what_it_matches_and_nothing_hidden_by_chance(
    tmp_path: Path, pattern: str, found: list[str]
) -> None:
    fill(tmp_path, "a1.csv", "a2.csv", "b1.csv", ".hidden.csv", "deep/c.csv", "deep/er/c.csv")
    fill(tmp_path, ".git/c.csv", "_temporary/c.csv")

    assert names_in(f"{tmp_path}/{pattern}") == found


def test_a_folder_stands_for_its_files_with_the_suffix_hidden_ones_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "b.csv", "sub/a.csv", "notes.txt", ".hidden.csv", "_SUCCESS.csv", ".cache/d.csv")

    assert names_in(str(tmp_path), (".csv",)) == ["b.csv", "sub/a.csv"]
    assert names_in(str(tmp_path)) == ["b.csv", "notes.txt", "sub/a.csv"]
    assert names_in(f"{tmp_path}/", (".csv",)) == ["b.csv", "sub/a.csv"]


def test_a_folder_below_a_hidden_one_is_read_all_the_same(tmp_path: Path) -> None:
    fill(tmp_path, ".data/raw/a.csv", ".data/raw/b.csv")

    assert names_in(str(tmp_path / ".data" / "raw")) == ["a.csv", "b.csv"]
    assert names_in(str(tmp_path / ".data" / "raw" / "*.csv")) == ["a.csv", "b.csv"]


def test_a_list_finds_every_file_once_sorted_by_url(tmp_path: Path) -> None:
    fill(tmp_path, "b/2.csv", "a/1.csv")

    paths = [f"{tmp_path}/b/2.csv", str(tmp_path), f"{tmp_path}/*/1.csv"]

    assert names_in(paths) == ["a/1.csv", "2.csv"]


def test_a_files_name_stays_when_others_join_it(tmp_path: Path) -> None:
    fill(tmp_path, "2024/a.csv")
    alone = [names_in(str(tmp_path)), names_in(f"{tmp_path}/*/*.csv")]
    fill(tmp_path, "2025/a.csv")

    assert alone == [["2024/a.csv"]] * 2
    for path in (str(tmp_path), f"{tmp_path}/*/*.csv"):
        assert names_in(path) == ["2024/a.csv", "2025/a.csv"]


def test_two_files_that_would_share_a_name_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.csv", "b/1.csv")
    paths = [f"{tmp_path}/a/1.csv", f"{tmp_path}/b/1.csv"]

    assert refusal(find_files, paths) == (
        f"data.path: {paths[0]} and {paths[1]} would share the name '1.csv' in ids; name their "
        "common folder, a glob, or local copies"
    )


@pytest.mark.parametrize(
    "name", ["with space.csv", "hash#1.csv", "part[1].csv", "50%.csv", "who?.csv", "all*.csv"]
)
def test_a_name_with_special_characters_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    fill(tmp_path, name, "part1.csv")

    (file,) = find_files(str(tmp_path / name))

    assert (file.url, file.name) == (str(tmp_path / name), name)
    assert read_whole(file.url) == CONTENT
    assert read_range(file.url, 3, 5) == CONTENT[3:5]


def test_a_files_version_changes_when_it_is_written_to(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv")
    before = find_files(str(tmp_path / "a.csv"))[0]
    again = find_files(str(tmp_path / "a.csv"))[0]
    os.utime(tmp_path / "a.csv", (1, 1))
    after = find_files(str(tmp_path / "a.csv"))[0]

    assert before == again
    assert before.version != after.version


def test_what_names_no_file_is_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv")
    fill(tmp_path, "empty.csv", content=b"")
    (tmp_path / "void").mkdir()

    assert refusal(find_files, f"{tmp_path}/b.csv") == f"{tmp_path}/b.csv: no such file"
    for path in (f"{tmp_path}/*.txt", f"{tmp_path}/void"):
        expected = f"data.path: {path}: matches no file"
        assert refusal(find_files, path) == expected
        assert refusal(find_files, [f"{tmp_path}/a.csv", path]) == expected
    assert refusal(find_files, f"{tmp_path}/*.csv") == (
        f"{tmp_path}/empty.csv: is empty; remove it or leave it out of data.path"
    )


def test_what_cannot_be_opened_is_refused_by_name(tmp_path: Path) -> None:
    assert refusal(read_whole, f"{tmp_path}/b.csv") == f"{tmp_path}/b.csv: no such file"
    assert refusal(read_whole, str(tmp_path)) == f"{tmp_path}: is a folder, not a file"
    assert refusal(read_range, f"{tmp_path}/b.csv", 0, 1) == f"{tmp_path}/b.csv: no such file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path, "a.csv")
    (tmp_path / "a.csv").chmod(0)

    assert refusal(read_whole, f"{tmp_path}/a.csv") == (
        f"{tmp_path}/a.csv: may not be read; check its permissions"
    )


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (100, 300), (10_000, 20_000), (5, 5)])
@pytest.mark.parametrize("kind", ["local", "memory", "plain", "ranges", "s3"])
def test_a_range_is_the_same_wherever_the_file_is(
    tmp_path: Path, web: WebServer, s3: str, kind: str, start: int, stop: int
) -> None:
    fill(tmp_path, "a.csv")
    fsspec.filesystem("memory").pipe("/test_files/a.csv", CONTENT)
    url = {
        "local": str(tmp_path / "a.csv"),
        "memory": "memory://test_files/a.csv",
        "plain": f"{web.url}/plain/a.csv",
        "ranges": f"{web.url}/ranges/a.csv",
        "s3": f"{s3}/data/a.csv",
    }[kind]

    assert read_range(url, start, stop) == CONTENT[start:stop]


@pytest.mark.parametrize("kind", ["plain", "ranges"])
def test_a_file_on_the_web_is_found_and_read_with_and_without_ranges(
    web: WebServer, kind: str
) -> None:
    (file,) = find_files(f"{web.url}/{kind}/a.csv")

    assert (file.url, file.name) == (f"{web.url}/{kind}/a.csv", "a.csv")
    assert (file.size, file.version) == (len(CONTENT), "v1")
    assert read_whole(file.url) == CONTENT


def test_a_range_of_a_file_on_the_web_is_all_that_is_fetched(web: WebServer) -> None:
    read_range(f"{web.url}/ranges/a.csv", 100, 300)

    assert web.ranges == ["bytes=100-299"]


def test_a_web_server_that_refuses_is_told_from_one_that_has_no_such_file(web: WebServer) -> None:
    assert refusal(find_files, f"{web.url}/none.csv") == f"{web.url}/none.csv: no such file"
    assert refusal(find_files, f"{web.url}/forbidden.csv") == (
        f"{web.url}/forbidden.csv: may not be read: the server answers 403 Forbidden"
    )
    assert refusal(find_files, f"{web.url}/broken.csv") == (
        f"{web.url}/broken.csv: may not be read: the server answers 500 Internal Server Error"
    )
    assert refusal(find_files, f"{web.url}/unsized.csv") == (
        f"{web.url}/unsized.csv: its server does not tell its size; download the file and name it "
        "locally"
    )


def test_the_signature_of_a_url_is_neither_shown_nor_part_of_a_name(web: WebServer) -> None:
    web.contents["/plain/b.csv"] = CONTENT
    urls = [f"{web.url}/plain/{name}.csv?signature=s3cr3t/x" for name in "ab"]

    files = find_files(urls)

    assert [file.name for file in files] == ["a.csv", "b.csv"]
    assert [read_whole(file.url) for file in files] == [CONTENT, CONTENT]
    for path in ("none", "forbidden"):
        message = refusal(find_files, f"{web.url}/{path}.csv?signature=s3cr3t")
        assert message.startswith(f"{web.url}/{path}.csv: ")
        assert "s3cr3t" not in message


def test_urls_that_differ_in_their_query_alone_are_refused(web: WebServer) -> None:
    urls = [f"{web.url}/plain/a.csv?part={part}" for part in (1, 2)]

    assert refusal(find_files, urls) == (
        f"data.path: {web.url}/plain/a.csv and {web.url}/plain/a.csv would share the name 'a.csv' "
        "in ids; name their common folder, a glob, or local copies"
    )


def test_objects_of_s3_are_found_by_key_glob_and_prefix(s3: str) -> None:
    (file,) = find_files(f"{s3}/data/a.csv")

    assert (file.url, file.name, file.size) == ("s3://bucket/data/a.csv", "a.csv", len(CONTENT))
    assert re.fullmatch("[0-9a-f]{32}", file.version)
    assert names_in(f"{s3}/data/*.csv") == ["a.csv"]
    assert names_in(f"{s3}/data/**/*.csv") == ["a.csv", "more/b.csv"]
    assert names_in(f"{s3}/data") == ["a.csv", "more/b.csv"]
    assert names_in(f"{s3}/data/*") == ["a.csv"]
    assert read_whole(file.url) == CONTENT


def test_an_object_replaced_within_the_same_process_has_another_version(s3: str) -> None:
    filesystem = fsspec.filesystem("s3")
    versions = []
    for content in (b"one", b"three"):
        filesystem.pipe("bucket/changing/a.csv", content)
        versions += [(file.size, file.version) for file in find_files(f"{s3}/changing/*.csv")]

    assert [size for size, _ in versions] == [3, 5]
    assert versions[0][1] != versions[1][1]


def test_a_missing_object_and_a_missing_bucket_are_refused_by_name(s3: str) -> None:
    assert refusal(find_files, f"{s3}/none.csv") == "s3://bucket/none.csv: no such file"
    assert refusal(find_files, "s3://other/a.csv") == "s3://other/a.csv: no such file"
    assert refusal(find_files, f"{s3}/*.txt") == "data.path: s3://bucket/*.txt: matches no file"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.csv", "s3://b/a.csv", "gs://b/*.csv"])
def test_a_server_that_cannot_be_reached_is_refused_soon(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = {"endpoint_url": "http://127.0.0.1:1"}
    monkeypatch.setitem(fsspec.config.conf, "s3", {**nowhere, "key": "a", "secret": "b"})
    monkeypatch.setitem(fsspec.config.conf, "gs", {**nowhere, "token": "anon"})
    monkeypatch.setattr(files_module, "_ANSWERS_WITHIN", 2.0)
    started = time.monotonic()

    message = refusal(find_files, url)

    assert message.startswith(f"{url}: cannot be reached (")
    assert message.endswith("); check the address, the network and your credentials")
    assert time.monotonic() - started < 10
    assert caplog.messages == []


def test_a_server_that_takes_the_call_and_says_nothing_is_refused_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files_module, "_ANSWERS_WITHIN", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.csv"

        assert refusal(find_files, url) == (
            f"{url}: cannot be reached (no answer); check the address, the network and your "
            "credentials"
        )


@pytest.mark.parametrize(
    ("url", "package", "end"),
    [
        ("s3://b/a.csv", "s3fs", "; `pip install 'tandem[cloud]'`"),
        ("gs://b/a.csv", "gcsfs", "; `pip install 'tandem[cloud]'`"),
        ("abfs://b/a.csv", "adlfs", ""),
    ],
)
def test_a_protocol_whose_package_is_missing_says_what_to_install(
    url: str, package: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = import_module("fsspec.registry")
    monkeypatch.setitem(sys.modules, package, None)
    for protocol in ("s3", "gs", "abfs"):
        monkeypatch.delitem(registry._registry, protocol, raising=False)

    message = refusal(find_files, url)

    assert message.startswith(f"{url}: cannot be read: ")
    assert package in message
    assert message.endswith(end)


def test_an_unknown_protocol_is_refused_by_name() -> None:
    assert refusal(find_files, "nope://b/a.csv") == (
        "nope://b/a.csv: cannot be read: Protocol not known: nope"
    )
