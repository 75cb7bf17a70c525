"""The ``network`` section of the configuration: hosts that one machine pretends to be."""

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from pipelines.data_config import Section

__all__ = ["NetworkConfig"]


class NetworkConfig(Section):
    """Emulated hosts: network namespaces of this machine, joined by links of their own."""

    hosts: PositiveInt = 1
    """Hosts among which the workers are shared out; 1: this machine as it is. More need root."""
    bandwidth: Annotated[str, Field(pattern=r"^\d+(\.\d+)?[kmg]bit$")] | None = None
    """Rate of each host's link in each direction, such as ``1gbit``; null: as fast as it goes."""
    latency: Annotated[str, Field(pattern=r"^\d+(\.\d+)?(us|ms)$")] | None = None
    """Delay of each host's link in each direction, such as ``2ms``; needs the kernel's netem."""

    @model_validator(mode="after")
    def _shapes_links_that_are_there(self) -> Self:
        if self.hosts == 1 and (self.bandwidth or self.latency):
            raise ValueError("bandwidth and latency are those of links between several hosts")
        return self

    def describe(self) -> str:
        """What every run records, so that no emulated network is compared with a real one."""
        if self.hosts == 1:
            return "real"
        links = [self.bandwidth or "unshaped", *([self.latency] if self.latency else [])]
        return f"emulated: {self.hosts} hosts, {', '.join(links)}"
