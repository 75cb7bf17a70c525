"""``python -m tf_pipeline STAGE --config ...``: what launchers start, locally and in pods."""

import time

STARTED = time.perf_counter()  # before any import that counts

from pipelines.entry import run_entry  # noqa: E402

__all__ = ["main"]


def main() -> None:
    """Run the stage that the command line names."""
    run_entry("tf", STARTED)


if __name__ == "__main__":
    main()
