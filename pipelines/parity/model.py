"""What ``parity.json`` holds: the verdict, and every figure that it rests on."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipelines.parity.probe import Precision
from pipelines.parity.trace import Quantity

__all__ = [
    "Bounds",
    "Claim",
    "Comparison",
    "Curve",
    "Divergence",
    "EndCheck",
    "Parity",
    "StepCheck",
]

Claim = Literal["exact", "rounding", "mixed"]
"""``exact`` (float64): 1e-12 throughout. ``rounding`` (float32): 1e-6, or a small multiple of the
self-noise. ``mixed``: the same with a few roundings of the lower precision for 1e-6."""


Kind = Literal["frameworks", "workers", "order"]
"""What a comparison sets side by side: the frameworks at one worker count; one framework at two
worker counts; or one run and the same run with its examples permuted, which claims nothing but
shows how rounding grows."""


class _Part(BaseModel):
    """A part of the result: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="strings",
    )


class Divergence(_Part):
    """Where two runs first lie further apart than they may."""

    quantity: str
    """``loss``, ``gradient_norm``, ``weight_norm``, ``weights``, or a metric of evaluation."""
    step: int | None
    """Counted from 1; null: after the last step."""
    left: float
    right: float
    difference: float
    """Relative; of a metric of evaluation, absolute."""
    bound: float


class StepCheck(_Part):
    """One quantity, compared at every step."""

    quantity: Quantity
    differences: list[float]
    """Relative, step by step."""
    first_steps: float
    """The largest over the first steps."""
    largest: float
    """The largest over all steps."""
    largest_step: int
    times_floor: float | None
    """The largest ratio to the self-noise up to the same step; null where there was no noise."""
    share_of_bound: float
    """The largest ratio to the bound; above 1 is failure."""


class EndCheck(_Part):
    """The final weights, or a metric of evaluation."""

    quantity: str
    left: float
    right: float
    difference: float
    bound: float
    times_floor: float | None


class Comparison(_Part):
    """Two runs, side by side."""

    kind: Kind
    left: str
    right: str
    steps: list[StepCheck]
    ends: list[EndCheck]
    divergence: Divergence | None
    """What differs first; null: they agree."""

    @property
    def title(self) -> str:
        """Such as ``tf x1 and torch x1``."""
        return f"{self.left} and {self.right}"


class Bounds(_Part):
    """What one quantity may differ by, and the self-noise behind it, step by step."""

    quantity: Quantity
    floor: list[float]
    """Largest difference so far of the perturbed runs from the unperturbed one."""
    bound: list[float]


class Curve(_Part):
    """The loss of one run at every step."""

    run: str
    loss: list[float]


class Parity(_Part):
    """The verdict on one configuration."""

    study: str
    created: str
    """ISO 8601, UTC."""
    passed: bool
    summary: str
    """The verdict in one line."""
    claim: Claim
    workload: str
    optimizer: str
    precision: Precision
    global_batch_size: int
    """The same at every worker count."""
    workers: list[int]
    steps: int
    first_steps: int
    """How many steps are held, and told, by themselves."""
    least: dict[Quantity, float]
    """What is allowed over these whatever the self-noise, ..."""
    later: dict[Quantity, float]
    """... and from then on."""
    multiple: float
    """How many times the self-noise two runs may differ by."""
    lookahead: int
    """From how many steps later the self-noise is taken; above 0 for networks with kinks."""
    floor_run: str
    """The run that was perturbed to measure the self-noise."""
    floor_runs: int
    """How many perturbations of it were run."""
    bounds: list[Bounds]
    comparisons: list[Comparison]
    curves: list[Curve]
    params: dict[str, str]
    """What the verdict holds for, as it is tracked."""
    mlflow_run_id: str | None = None
