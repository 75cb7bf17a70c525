"""Synthetic text: tokens of a first-order Markov chain whose entropy rate is known."""

import numpy as np
import pyarrow as pa

from pipelines.ingest.schema import Feature

__all__ = ["MarkovText"]

_VOCABULARY = 256
_LENGTH = 129
_SLOTS = 16
_SUCCESSOR_SLOTS = (8, 4, 2, 1)


class MarkovText:
    """Sequences of 129 tokens (128, and the one to predict last) over a vocabulary of 256.

    Every token has four likely successors of its own, drawn from the seed, which follow it with
    probabilities 8/16, 4/16, 2/16 and 1/16; in the remaining 1/16 of cases any of the 256 tokens
    follows, all alike. The first token is uniform. So the best reachable loss per token is::

        H = -sum(q log q),  q = w + 1/4096 for w in (8/16, 4/16, 2/16, 1/16); 1/4096 252 times

    which is 1.6 nats (``entropy_rate_nats``), while not looking back costs up to log 256 = 5.5.
    """

    block_rows = 32_768
    features = (Feature(name="tokens", dtype="int64", shape=(_LENGTH,)),)
    label = None
    classes = _VOCABULARY

    def __init__(self, generator: np.random.Generator) -> None:
        """Draw the successors from ``generator``."""
        order = generator.random((_VOCABULARY, _VOCABULARY)).argsort(axis=1)
        chosen = order[:, : len(_SUCCESSOR_SLOTS)]
        self._successors = np.repeat(chosen, _SUCCESSOR_SLOTS, axis=1).astype(np.uint8)
        any_token = 1 / (_SLOTS * _VOCABULARY)
        probabilities = np.full(_VOCABULARY, any_token)
        probabilities[: len(_SUCCESSOR_SLOTS)] += np.array(_SUCCESSOR_SLOTS) / _SLOTS
        self.entropy_rate = float(-(probabilities * np.log(probabilities)).sum())
        """Nats per token; the same after every token, hence whatever the chain's state."""
        self.description = {"entropy_rate_nats": f"{self.entropy_rate:.6f}"}

    def block(self, generator: np.random.Generator, rows: int) -> list[pa.Array]:
        """Columns of that many examples."""
        slots = generator.integers(0, _SLOTS, (_LENGTH, rows), dtype=np.uint8)
        tokens = generator.integers(0, _VOCABULARY, (_LENGTH, rows), dtype=np.uint8)
        for position in range(1, _LENGTH):
            successor = np.flatnonzero(slots[position] < sum(_SUCCESSOR_SLOTS))
            before = tokens[position - 1, successor]
            tokens[position, successor] = self._successors[before, slots[position, successor]]
        flat = np.ascontiguousarray(tokens.T).ravel().astype(np.int64)
        return [pa.FixedSizeListArray.from_arrays(pa.array(flat), _LENGTH)]
