"""Slices of one or two parameters for a sweep; all else is as in the model's YAML. Pure."""

from dataclasses import dataclass

from jobs.bench.design.blocks import PLAIN, Setting
from jobs.bench.design.options import PRECISION, SLICE_NAMES, cfg_scale
from nag.params import NagParams
from pipelines.catalog.model_config import ModelConfig

Fields = tuple[tuple[str, str | float], ...]


@dataclass(frozen=True)
class Axis:
    """One parameter, or several that change together: a tick and manifest fields for each point."""

    name: str
    ticks: tuple[str, ...]
    points: tuple[Fields, ...]


@dataclass(frozen=True)
class Slice:
    """A line through a method's parameters, or with `y` a plane."""

    name: str
    method: str
    x: Axis
    y: Axis | None = None


def numbers_axis(name: str, *values: float) -> Axis:
    return Axis(
        name,
        tuple(f"{value:g}" for value in values),
        tuple(((name, float(value)),) for value in values),
    )


RANGES = ((0.0, 0.25), (0.0, 0.5), (0.0, 0.75), (0.0, 1.0), (0.25, 1.0), (0.5, 1.0))
RANGE_AXIS = Axis(
    "nag_start to nag_end",
    tuple(f"{start:g}-{end:g}" for start, end in RANGES),
    tuple((("nag_start", start), ("nag_end", end)) for start, end in RANGES),
)
NORM_AXIS = Axis("nag_norm", ("l1", "l2"), ((("nag_norm", "l1"),), (("nag_norm", "l2"),)))
SCALE_AXIS = numbers_axis("nag_scale", 3, 6, 9)
SLICES = (
    Slice("scale-alpha", "nag", SCALE_AXIS, numbers_axis("nag_alpha", 0.125, 0.25, 0.5, 0.75, 1.0)),
    Slice("scale-tau", "nag", SCALE_AXIS, numbers_axis("nag_tau", 1.25, 1.5, 2.5, 5.0)),
    Slice("range", "nag", RANGE_AXIS),
    Slice("norm", "nag", NORM_AXIS),
    Slice("guidance-scale", "cfg", numbers_axis("guidance_scale", 1.5, 2, 3, 5, 8)),
    Slice(
        "vsf", "vsf", numbers_axis("vsf_scale", 0.5, 1, 2, 4), numbers_axis("vsf_bias", 0, 0.2, 1)
    ),
    Slice("nasa", "nasa", numbers_axis("nasa_scale", 0.1, 0.3, 0.6, 1.0)),
)
assert (*(a_slice.name for a_slice in SLICES), PRECISION) == SLICE_NAMES
PRECISION_METHODS = (PLAIN, "nag")


def slice_setting(config: ModelConfig, a_slice: Slice, x: int, y: int | None = None) -> Setting:
    """Return the setting at one point.

    Values equal to those of the YAML are left out, so that a setting has one name in all slices.
    """
    fields = dict(a_slice.x.points[x])
    if a_slice.y is not None and y is not None:
        fields |= dict(a_slice.y.points[y])
    defaults = _defaults(config)
    chosen = {name: value for name, value in sorted(fields.items()) if value != defaults[name]}
    if a_slice.method == "cfg":
        chosen["guidance_scale"] = fields["guidance_scale"]
    shown = (
        f"{name}={value if isinstance(value, str) else format(value, 'g')}"
        for name, value in chosen.items()
    )
    return Setting(
        " ".join((a_slice.method, *shown)), (("method", a_slice.method), *chosen.items())
    )


def has_steps(config: ModelConfig, setting: Setting, num_steps: int) -> bool:
    """Return True if guidance is active in at least one step of the setting's range."""
    fields = {**_defaults(config), **dict(setting.fields)}
    start, end = (float(fields[name]) for name in ("nag_start", "nag_end"))
    params = NagParams(nag_start=start, nag_end=end)
    return any(params.is_active_at(step, num_steps) for step in range(num_steps))


def sweep_settings(
    config: ModelConfig, num_steps: int, slices: tuple[Slice, ...]
) -> tuple[Setting, ...]:
    """Return "no guidance" and every setting of the slices, each once."""
    settings = [Setting(PLAIN, (("method", PLAIN),))]
    for a_slice in slices:
        ys = range(len(a_slice.y.points)) if a_slice.y is not None else (None,)
        settings += [
            slice_setting(config, a_slice, x, y) for y in ys for x in range(len(a_slice.x.points))
        ]
    return tuple(
        setting for setting in dict.fromkeys(settings) if has_steps(config, setting, num_steps)
    )


def _defaults(config: ModelConfig) -> dict[str, str | float]:
    nag, vsf, nasa = config.nag, config.vsf, config.nasa
    return {
        "guidance_scale": cfg_scale(config),
        "nag_scale": nag.nag_scale,
        "nag_tau": nag.nag_tau,
        "nag_alpha": nag.nag_alpha,
        "nag_start": nag.nag_start,
        "nag_end": nag.nag_end,
        "nag_norm": nag.nag_norm,
        "vsf_scale": vsf.vsf_scale,
        "vsf_bias": vsf.vsf_bias,
        "nasa_scale": nasa.nasa_scale,
    }
