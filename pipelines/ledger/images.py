"""Size and build time of a framework's container image, as ``make images`` last measured them.

``infra/docker/images.sh`` writes ``out/images.json``. It may be older than the code: its figures
count as long as what makes up nearly all of an image, the locked packages, is the same.
"""

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError
from pipelines.ledger.commit import changed_since
from pipelines.ledger.model import Image
from pipelines.ledger.unchecked import Unchecked
from pipelines.strategies import Framework
from pipelines.yaml_file import validated

__all__ = ["BuiltImage", "BuiltImages", "image_of", "read_images"]

_FILE = Path("out") / "images.json"
_MODIFIED = "-modified"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class BuiltImage(_Part):
    """One image."""

    tag: str
    bytes: PositiveInt
    """Of all its layers, as the engine keeps them."""
    build_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    from_cache: bool
    """Whether some layer was there already, so that the seconds are not those of a build."""


class BuiltImages(_Part):
    """The whole file."""

    revision: Annotated[str, Field(pattern=rf"^(unknown|[0-9a-f]{{40,64}}({_MODIFIED})?)$")]
    """Git's, with ``-modified`` after it where files differed from it; or ``unknown``."""
    accelerator: str
    """``cpu`` or ``cuda``: of all images in the file, so both sides' figures are of the same."""
    engine: str
    images: dict[str, BuiltImage]
    """By ``core`` or framework; those that were asked for."""


def read_images(root: Path = PROJECT_ROOT) -> BuiltImages | None:
    """What was built last; None if nothing was.

    Raises:
        InputError: if the file is not what ``make images`` writes.
    """
    try:
        raw = json.loads((root / _FILE).read_bytes())
        if not isinstance(raw, dict):
            raise InputError(f"{_FILE}: must be a mapping")
        return validated(BuiltImages, raw, str(_FILE))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{_FILE}: not valid JSON: {error}; run `make images` again") from None
    except InputError as error:
        raise InputError(f"{error}; run `make images` again") from None


def image_of(framework: Framework, root: Path = PROJECT_ROOT) -> Image:
    """The framework's image, if it is of the present locks.

    Raises:
        Unchecked: if there is none, or it has other packages than the code would give it now.
        InputError: if the file is not what ``make images`` writes.
    """
    built = read_images(root)
    if built is None or framework not in built.images:
        raise Unchecked("run `make images`")
    revision = built.revision.removesuffix(_MODIFIED)
    made_of = (
        f"infra/requirements/{framework}*.txt",
        f"infra/docker/{framework}.Dockerfile",
        "infra/docker/install.sh",
    )
    changed = changed_since(revision, made_of, root)
    if changed is None:
        raise Unchecked(
            f"git cannot tell whether the image of commit {revision[:12]} has the present "
            "packages; run `make images`"
        )
    if changed:
        raise Unchecked(
            f"the image is of commit {revision[:12]}, and {changed[0]} has changed since; "
            "run `make images`"
        )
    image = built.images[framework]
    return Image(
        tag=image.tag,
        bytes=image.bytes,
        build_seconds=None if image.from_cache else image.build_seconds,
        accelerator=built.accelerator,
        revision=built.revision,
        engine=built.engine,
    )
