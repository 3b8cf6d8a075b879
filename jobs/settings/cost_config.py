"""The prices of devices, by which a run says what it costs.

Decides which price a device has. Prices change no decision of a run. Loads without torch.
"""

import re
from dataclasses import dataclass, field

from jobs.errors import ConfigError
from jobs.settings.store_config import check_at_least
from jobs.text import shown

MAX_CURRENCY = 8  # characters
MAX_PRICE = 1e15  # in any currency; no cost that is made of it is infinite
CURRENCY = re.compile(rf"[^\W\d_]{{0,{MAX_CURRENCY}}}|[$€£¥]")


@dataclass(frozen=True)
class CostConfig:
    """The prices of device-hours.

    Args:
        currency: stands before each price, such as USD; a name of letters, or a sign.
        price_per_device_hour: price of an hour of each device that `prices` leaves out; None for
            no price.
        prices: price of an hour of single kinds of devices, by a word or more of the name that
            torch gives them, such as `H100` or `A100-SXM4-40GB`, or `cpu`. Of several that a name
            holds, the longest counts.
    """

    currency: str = ""
    price_per_device_hour: float | None = None
    prices: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        if not CURRENCY.fullmatch(self.currency):
            raise ConfigError(
                f"costs.currency must be at most {MAX_CURRENCY} letters, such as USD, or a sign, "
                f"got {shown(self.currency)}"
            )
        check_at_least("costs", self, 0, "price_per_device_hour")
        if (self.price_per_device_hour or 0) > MAX_PRICE:
            raise ConfigError(
                f"costs.price_per_device_hour must be at most {MAX_PRICE:g}, "
                f"got {self.price_per_device_hour}"
            )
        for name, price in self.prices.items():
            if not name.strip() or not 0 <= price <= MAX_PRICE:
                raise ConfigError(
                    "costs.prices: expected the name of a device and a number of at least 0, such "
                    f"as H100: 2.50, and at most {MAX_PRICE:g}, got {shown(name)}: {shown(price)}"
                )

    def price_of(self, device: str) -> float | None:
        """Return the price of an hour of a device; None without one.

        Args:
            device: name of the device, such as `NVIDIA H100 80GB HBM3`; empty if it is unknown.
        """
        names = [name for name in self.prices if _holds(device, name)]
        if not names:
            return self.price_per_device_hour
        return self.prices[max(names, key=len)]


def _holds(device: str, name: str) -> bool:
    """Return True if a device's name holds the name of a price as whole words."""
    pattern = rf"(?<!\w){re.escape(name.strip())}(?!\w)"
    return re.search(pattern, device, re.IGNORECASE) is not None
