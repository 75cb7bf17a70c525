import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.ledger import measure
from pipelines.ledger.images import image_of, read_images
from pipelines.ledger.measure import measure_here
from pipelines.ledger.packages import Packages
from pipelines.ledger.unchecked import Unchecked

LOCK = "infra/requirements/{}.txt"
TAG = "tandem-{}:0.1.0"

Write = Callable[..., None]


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.example")
    said = subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    )
    return said.stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with both sides' locks."""
    for framework in ("tf", "torch"):
        lock = tmp_path / LOCK.format(framework)
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.write_text("thing==1\n")
    (tmp_path / "code.py").touch()
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "First")
    return tmp_path


@pytest.fixture
def write(root: Path) -> Write:
    """Writes what ``make images`` would, of both frameworks unless told otherwise."""

    def write_images(
        suffix: str = "",
        images: tuple[str, ...] = ("tf", "torch"),
        from_cache: bool = False,
        **more: str,
    ) -> None:
        built = {
            "version": "0.1.0",
            "revision": git(root, "rev-parse", "HEAD") + suffix,
            "accelerator": "cpu",
            "engine": "20.10",
            "images": {
                name: {
                    "tag": TAG.format(name),
                    "bytes": 1_500_000_000,
                    "build_seconds": 61.5,
                    "from_cache": from_cache,
                }
                for name in images
            },
        }
        (root / "out").mkdir(exist_ok=True)
        (root / "out" / "images.json").write_text(json.dumps(built | more))

    return write_images


def test_an_image_of_the_same_locks_counts_whatever_else_has_changed(
    root: Path, write: Write
) -> None:
    write("-modified")
    built_at = git(root, "rev-parse", "HEAD")
    (root / "code.py").write_text("X = 1\n")
    git(root, "commit", "--quiet", "--all", "-m", "Second")

    image = image_of("tf", root)

    assert (image.tag, image.bytes, image.build_seconds) == (TAG.format("tf"), 1_500_000_000, 61.5)
    assert (image.accelerator, image.engine) == ("cpu", "20.10")
    assert image.revision == f"{built_at}-modified"


def test_an_image_of_other_locks_than_the_present_ones_is_not_theirs(
    root: Path, write: Write
) -> None:
    write()
    built_at = git(root, "rev-parse", "HEAD")
    (root / LOCK.format("tf")).write_text("thing==2\n")

    with pytest.raises(Unchecked) as told:
        image_of("tf", root)
    assert str(told.value) == (
        f"the image is of commit {built_at[:12]}, and infra/requirements/tf.txt has changed since; "
        "run `make images`"
    )
    assert image_of("torch", root).bytes == 1_500_000_000


def test_an_image_of_a_commit_that_git_does_not_know_does_not_count(
    root: Path, write: Write
) -> None:
    for revision in ("unknown", 40 * "0"):
        write(revision=revision)
        with pytest.raises(Unchecked, match=f"of commit {revision[:12]} has the present packages"):
            image_of("tf", root)


def test_what_was_not_built_is_not_checked_on_its_side_alone(root: Path, write: Write) -> None:
    with pytest.raises(Unchecked, match=r"^run `make images`$"):
        image_of("tf", root)

    write(images=("core", "torch"))

    with pytest.raises(Unchecked, match=r"^run `make images`$"):
        image_of("tf", root)
    assert image_of("torch", root).tag == TAG.format("torch")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", r"not valid JSON"),
        ("[]", r"must be a mapping"),
        ('{"revision": "--output=x"}', r"revision: "),
        ('{"images": {"tf": {"bytes": "much"}}}', r"images\.tf\.bytes: .* not 'much'"),
        ('{"images": {"tf": {"build_seconds": NaN}}}', r"images\.tf\.build_seconds: "),
    ],
)
def test_a_file_that_no_build_has_written_is_named_with_its_field(
    root: Path, text: str, words: str
) -> None:
    (root / "out").mkdir()
    (root / "out" / "images.json").write_text(text)

    whole = rf"^out/images\.json: .*{words}.*; run `make images` again$"
    with pytest.raises(InputError, match=whole) as told:
        read_images(root)
    assert "\n" not in str(told.value)


def test_seconds_of_a_build_from_the_cache_are_no_measurement(
    root: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "image_of", lambda framework: image_of(framework, root))
    packages = Packages((), (), {}, (), frozenset(), 1)
    write()
    whole = measure_here("torch", packages, 600)
    write(from_cache=True)
    cached = measure_here("torch", packages, 600)

    assert (whole.metrics["image_bytes"], whole.metrics["image_build_seconds"]) == (1.5e9, 61.5)
    assert cached.metrics["image_bytes"] == 1.5e9
    assert "image_build_seconds" not in cached.metrics
    assert cached.not_checked["image_build_seconds"] == (
        "layers came from the cache; run `make images ARGS=--no-cache`"
    )
    assert cached.image is not None
    assert cached.image.build_seconds is None
