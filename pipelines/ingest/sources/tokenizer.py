"""Tokenisers of ``source: text``: the bytes themselves, or byte-pair encoding trained on them."""

import re
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

__all__ = ["END_OF_TEXT", "Bpe", "Bytes", "TextTokenizer", "pieces"]

END_OF_TEXT = "<|endoftext|>"
"""Where a text spells it out, byte-pair encoding makes it one token: number 0."""

PIECE_CHARACTERS = 4 << 10
BATCH_PIECES = 256

# Where GPT-2's rule for words, which ByteLevel applies, always begins a new one: no word of it
# runs from something visible into a line break.
_CUT = re.compile(r"(?<=\S)\n")


class TextTokenizer(Protocol):
    """Turns text into numbers, without loss; pickles."""

    @property
    def size(self) -> int:
        """How many different tokens there can be."""

    @property
    def longest(self) -> int:
        """The most bytes that one token stands for."""

    def encode(self, text: str) -> npt.NDArray[np.unsignedinteger]:
        """The text's tokens, of shape (tokens,)."""


class Bytes:
    """One token per byte of UTF-8."""

    size = 256
    longest = 1

    def encode(self, text: str) -> npt.NDArray[np.uint8]:
        """The text's bytes, of shape (bytes,)."""
        return np.frombuffer(text.encode(), np.uint8)


class Bpe:
    """Byte-level byte-pair encoding, in the format of Hugging Face's ``tokenizers``."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.size: int = tokenizer.get_vocab_size()
        # The vocabulary is spelled in an alphabet of one character per byte.
        self.longest = max(map(len, tokenizer.get_vocab()))

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> "Bpe":
        """Learn the pairs from texts; the same texts always give the same vocabulary.

        It is smaller than ``vocabulary_size`` if the texts have too few pairs that occur twice.
        """
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = byte_level
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            min_frequency=2,
            initial_alphabet=byte_level.alphabet(),
            special_tokens=[END_OF_TEXT],
            show_progress=False,
        )
        tokenizer.train_from_iterator((piece for text in texts for piece in pieces(text)), trainer)
        return cls(tokenizer)

    def to_json(self) -> bytes:
        """What ``tokenizers.Tokenizer.from_buffer`` reads."""
        return self._tokenizer.to_str(pretty=True).encode()

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """The text's tokens, of shape (tokens,).

        It is encoded in pieces, many at a time, which is several times as fast; the tokens are
        the same as of the text in one.
        """
        parts = [np.zeros(0, np.uint32)]
        batch: list[str] = []
        for piece in pieces(text):
            batch.append(piece)
            if len(batch) == BATCH_PIECES:
                parts += self._encode_batch(batch)
                batch = []
        return np.concatenate(parts + self._encode_batch(batch))

    def _encode_batch(self, batch: list[str]) -> list[npt.NDArray[np.uint32]]:
        return [
            np.array(encoding.ids, np.uint32)
            for encoding in self._tokenizer.encode_batch_fast(batch)
        ]


def pieces(text: str) -> Iterator[str]:
    """Cut a text before line breaks, where tokens never run across; together they are the text.

    A piece has at least ``PIECE_CHARACTERS`` characters, save the last.
    """
    start = 0
    while start < len(text):
        cut = _CUT.search(text, start + PIECE_CHARACTERS)
        stop = cut.start() if cut else len(text)
        yield text[start:stop]
        start = stop
