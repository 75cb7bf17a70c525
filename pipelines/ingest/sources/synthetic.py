"""``synthetic``: examples made up from a seed, with a signal that can be learned.

They come in blocks of fixed size, each from random numbers of its own, so a block is the same
whoever makes it, and the first rows stay when more are asked for.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.data_config import DataConfig, SyntheticConfig
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources.base import ID, Fragment, Skip, Source
from pipelines.ingest.sources.synthetic_tabular import ClickLog
from pipelines.ingest.sources.synthetic_text import MarkovText
from pipelines.ingest.sources.synthetic_vision import NoisyPrototypes

__all__ = ["GENERATOR_VERSION", "Synthetic", "click_probabilities"]

GENERATOR_VERSION = 1
"""To be raised whenever the same configuration would give other examples."""

_Kind = NoisyPrototypes | MarkovText | ClickLog

_KINDS: dict[str, type[_Kind]] = {
    "vision": NoisyPrototypes,
    "text": MarkovText,
    "tabular": ClickLog,
}
_STREAMS = {"vision": 1, "text": 2, "tabular": 3}


class Synthetic(Source):
    """What ``data.synthetic`` asks for; the classes of the three kinds give the formulas.

    Ids are ``synthetic-000000000000`` and so on.
    """

    ids_are_unique = True

    def __init__(self, config: DataConfig) -> None:
        """Make up nothing yet but the signal."""
        self._config = config.synthetic
        kind = _kind(self._config)
        self._block_rows = kind.block_rows
        self.features = (Feature(name=ID, dtype="string"), *kind.features)
        self.label = kind.label
        self.classes = kind.classes
        self.description = {
            "name": config.source,
            "kind": self._config.kind,
            "seed": str(self._config.seed),
            "generator": str(GENERATOR_VERSION),
            **kind.description,
        }

    def fragments(self) -> list[Fragment]:
        """The blocks."""
        rows = self._config.rows
        starts = range(0, rows, self._block_rows)
        return [
            Fragment(block, f"rows from {start:,}", (block, min(self._block_rows, rows - start)))
            for block, start in enumerate(starts)
        ]

    def read(self, fragment: Fragment, skip: Skip) -> Iterator[pa.Table]:
        """The block, in one table; made whole even if few of its rows are wanted."""
        block, rows = fragment.place
        columns = _kind(self._config).block(_generator(self._config, block), self._block_rows)
        first = block * self._block_rows
        numbers = pa.array(np.arange(first, first + rows)).cast(pa.string())
        ids = pc.binary_join_element_wise("synthetic-", pc.utf8_lpad(numbers, 12, "0"), "")
        yield pa.table([ids, *(column[:rows] for column in columns)], schema=self.schema)


def click_probabilities(config: SyntheticConfig) -> npt.NDArray[np.float64]:
    """How likely each example of a click log was to be clicked: (rows,).

    As predictions, they have the best log-loss and AUC that any model can be expected to reach.
    """
    log = ClickLog(_generator(config, None))
    blocks = range(-(-config.rows // log.block_rows))
    probabilities = [
        log.block_with_probabilities(_generator(config, block), log.block_rows)[1]
        for block in blocks
    ]
    return np.concatenate(probabilities)[: config.rows]


def _kind(config: SyntheticConfig) -> _Kind:
    return _KINDS[config.kind](_generator(config, None))


def _generator(config: SyntheticConfig, block: int | None) -> np.random.Generator:
    """The random numbers of a block; without one, those of the signal."""
    stream = 0 if block is None else 1 + block
    return np.random.default_rng([config.seed, _STREAMS[config.kind], stream])
