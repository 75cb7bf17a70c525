"""Every batch comes 50 ms late."""

import time
from typing import Any

from pipelines.ingest.reader import SharedBatches
from torch_pipeline.__main__ import main

batches = SharedBatches.__iter__


def late(self: SharedBatches) -> Any:
    for batch in batches(self):
        time.sleep(0.05)
        yield batch


SharedBatches.__iter__ = late
main()
