import pytest

from pipelines.secrets import shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/a.csv?sig=x&y=z", "https://host/a.csv"),
        ("https://user:pa:ss@host:8080/a@b.csv", "https://host:8080/a@b.csv"),
        ("s3://key:secret@bucket/a.csv", "s3://bucket/a.csv"),
        ("/data/a?.csv", "/data/a?.csv"),
        ("data/me@home/*.csv", "data/me@home/*.csv"),
        ("403, url='https://u:p@h/a?b=c' said", "403, url='https://h/a' said"),
    ],
)
def test_urls_are_shown_without_credentials(url: str, expected: str) -> None:
    assert shown(url) == expected
