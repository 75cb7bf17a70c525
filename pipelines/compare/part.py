"""What the parts of a report have in common."""

from pydantic import BaseModel, ConfigDict

__all__ = ["Interval", "Part"]

Interval = tuple[float, float]
"""Lower and upper end of a bootstrap 95 % interval."""


class Part(BaseModel):
    """A part of the report: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
