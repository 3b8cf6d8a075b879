"""The result of a simulated run: its wall time, the use of the devices' time, and the bottleneck.

Decides what counts as the bottleneck. Loads without torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

# The reasons why a device does not compute. "end": no clip is left for it, or no worker had it.
Loss = Literal["start", "encoding", "store", "driver", "end"]
BUSY_SHARE = 0.9  # from here on, only more devices make a run shorter


@dataclass(frozen=True)
class Outcome:
    """The result of one simulated run.

    Args:
        wall_s: seconds from the start of the run until its last clip is committed.
        busy_s: seconds in which devices computed clips, over all devices.
        lost_s: seconds in which devices did not, over all devices, by reason.
        halt: the error by which the run would stop before its end; None if it finishes.
    """

    num_devices: int
    num_done: int
    num_quarantined: int
    num_workers_lost: int
    wall_s: float
    busy_s: float
    lost_s: Mapping[Loss, float]
    halt: str | None = None

    @property
    def device_hours(self) -> float:
        """All devices from the start of the run to its end, in hours."""
        return self.num_devices * self.wall_s / 3600

    @property
    def busy_share(self) -> float:
        """The part of the devices' time in which they computed clips."""
        return self.busy_s / (self.num_devices * self.wall_s) if self.wall_s else 0.0

    @property
    def clips_per_hour(self) -> float:
        return self.num_done / self.wall_s * 3600 if self.wall_s else 0.0

    @property
    def bottleneck(self) -> str:
        """Return "devices", or the reason for most of the lost time if much of it is lost."""
        if self.busy_share >= BUSY_SHARE or not any(self.lost_s.values()):
            return "devices"
        return max(self.lost_s, key=lambda reason: self.lost_s[reason])
