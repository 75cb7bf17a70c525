"""What cannot be had here: said in one line, and never taken for zero."""

__all__ = ["Unchecked"]


class Unchecked(Exception):
    """An entry of the ledger could not be had; the message is the reason, without any address."""
