"""The cost of a run in words, for logs, the status and notifications. Pure."""

from jobs.costs.run_cost import RunCost


def cost_text(cost: RunCost) -> str | None:
    """Return a cost in one line, such as `12.4 device-hours, USD 31.00, 3% wasted (lost 0.37 h)`.

    Returns:
        None before the first worker has devices.
    """
    if not cost.device_hours:
        return None
    parts = [f"{hours_text(cost.device_hours)} device-hours"]
    if cost.price is not None:
        left_out = f" ({hours_text(cost.unpriced_hours)} h have no price)"
        parts.append(price_text(cost.price, cost.currency) + left_out * bool(cost.unpriced_hours))
    if cost.wasted_share:
        reasons = dict[str, float]()
        for row in cost.models:
            for reason, hours in row.wasted_hours.items():
                reasons[reason] = reasons.get(reason, 0.0) + hours
        named = ", ".join(f"{reason} {hours_text(hours)} h" for reason, hours in reasons.items())
        parts.append(f"{cost.wasted_share:.1%} wasted ({named})")
    return ", ".join(parts)


def price_text(price: float, currency: str) -> str:
    """Return a price with its currency: `USD 31.00`, `$31.00`."""
    blank = " " if currency.isalpha() else ""
    return f"{currency}{blank}{price:,.2f}"


def hours_text(hours: float) -> str:
    """Return hours with about three digits."""
    for least, digits in ((100, 0), (10, 1), (0.1, 2), (0.01, 3)):
        if hours >= least:
            return f"{hours:,.{digits}f}"
    return f"{hours:.4f}"
