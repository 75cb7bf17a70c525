"""The ``scorecard`` section of the configuration: what each criterion weighs, to its reader."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from pipelines.data_config import Section

__all__ = ["CRITERIA", "Criterion", "ScorecardConfig"]

Criterion = Literal[
    "production_readiness",
    "developer_experience",
    "deployment_flexibility",
    "performance_and_scalability",
    "ecosystem",
    "stability",
    "time_to_deploy",
    "debugging",
]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)


class ScorecardConfig(Section):
    """How the scorecard weighs its criteria; it changes no measurement and no verdict."""

    weights: dict[Criterion, Annotated[float, Field(ge=0)]] = {}
    """Criterion -> weight, relative to the others'; one that is not named weighs 1."""

    @model_validator(mode="after")
    def _something_weighs(self) -> Self:
        if not any(self.weight(criterion) for criterion in CRITERIA):
            raise ValueError("weights: at least one criterion must weigh something")
        return self

    def weight(self, criterion: Criterion) -> float:
        """Of one criterion."""
        return self.weights.get(criterion, 1.0)
