"""Files that are either whole or not there, however the process that writes them ends."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_whole"]


def write_whole(path: Path, content: "str | bytes | pa.Buffer") -> None:
    """Write beside the target, under a name of this call's own, and rename; text as UTF-8.

    Several processes may write the same file at once: the last one's stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
