"""One tiny pipeline for each class of model that is guided, with a guided call.

A new row of the families' own tables is a row here too.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import pytest
import torch

from nag import NegativeText, install
from nag.installation.coverage import find_models
from tests.builders import (
    tiny,
    tiny_ltx2,
    tiny_skyreels,
    tiny_wan_copies,
)
from tests.builders.tiny_sana_wm import sana_wm_pipeline
from tests.nag import (
    cross_families,
    joint_families,
    ltx2_by_hand,
    reference,
    sequence_families,
    test_sana_wm,
)

STRENGTHS: dict[str, Any] = {"nag_scale": 5.0, "nag_tau": 1.5, "nag_alpha": 0.5}
OF_BUILDERS = [
    # numpy's, of torch in diffusers' schedulers
    pytest.mark.filterwarnings("ignore:__array(_wrap)?__ (implementation|must)"),
    # diffusers' own, which Chroma and PRX use
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`LoraLoaderMixin` is deprecated:FutureWarning"),
]
# Further layouts and settings of a model that has a row of its own.
FURTHER = {
    "plain processors",
    "InstructPix2Pix",
    "latent consistency",
    "upscaler",
    "latent upscaler",
    "SDXL, fused",
    "SDXL with a text projection",
    "SDXL without perturbation",
    "SDXL with perturbation",
    "SDXL with perturbation alone",
    "HunyuanDiT, fused",
    "SDXL InstructPix2Pix",
    "SDXL with a ControlNet",
    "PixArt, plain processors",
    "Sana Sprint",
    "Cosmos 2.5 with image tokens",
    "DeepFloyd, plain processors",
    "PRX Pixel",
    "Kandinsky 6 without filler",
}


@dataclass(frozen=True)
class Case:
    """One class of models.

    Args:
        build: builds its tiny pipeline.
        negative: a negative prompt.
        call: renders one result; further arguments go to the pipeline.
        names_calls: True if the pipeline names the calls of its model.
        strengths: strengths of NAG.
        settings: arguments of the pipeline's constructor beside its components.
        fewest_steps: steps that the scheduler can do with.
    """

    build: Callable[[], Any]
    negative: NegativeText
    call: Callable[..., Any]
    names_calls: bool
    strengths: dict[str, Any] = field(default_factory=lambda: STRENGTHS)
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    fewest_steps: int = 1

    def quick(self, pipeline: Any) -> torch.Tensor:
        """Return the result after as few steps as possible."""
        return self.render(pipeline, num_inference_steps=self.fewest_steps)

    def render(self, pipeline: Any, **arguments: Any) -> torch.Tensor:
        result = self.call(pipeline, **arguments)
        return torch.cat([one.flatten() for one in result]) if isinstance(result, tuple) else result


def model_of(pipeline: Any) -> Any:
    return find_models(pipeline)[0].model


def text_layers(pipeline: Any) -> list[str]:
    """Return the names of the linear layers in the attentions to text."""
    with install(pipeline) as nag:
        models = nag._models
    return [
        f"{name}.{part}"
        for name, attention in models[0].text_attentions()
        for part, layer in attention.named_modules()
        if isinstance(layer, torch.nn.Linear) and not part.startswith("processor")
    ]


def _cross(family: cross_families.Family) -> Case:
    def call(pipeline: Any, **arguments: Any) -> torch.Tensor:
        return family.render(pipeline, 1, cfg=False, **arguments)

    return Case(
        family.build,
        family.negative(1),
        call,
        family.is_named,
        STRENGTHS,
        dict(family.settings),
    )


def _joint(family: joint_families.Family) -> Case:
    return Case(
        family.build,
        family.negative()[0],
        partial(joint_families.render, family=family),
        family.names_calls,
        family.strengths(),
    )


def _sequence(family: sequence_families.Family) -> Case:
    return Case(
        family.build,
        family.negative(sequence_families.negatives(family)),
        partial(sequence_families.render, family=family),
        family.is_named,
        sequence_families.STRENGTHS,
    )


def _video(
    build: Callable[[], Any], length: int = 12, *, is_named: bool = True, **others: Any
) -> Case:
    def call(pipeline: Any, **arguments: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        arguments = {"generator": generator, **others, **arguments}
        return reference.render(pipeline, reference.text(1, length, 1), **arguments)

    return Case(build, NegativeText(reference.text(1, length, 2)), call, is_named)


def _sound(build: Callable[[], Any]) -> Case:
    def call(pipeline: Any, **arguments: Any) -> Any:
        return ltx2_by_hand.render(pipeline, "a fox", **arguments)

    video, sound = ltx2_by_hand.texts(build(), 1, 7, 2)
    return Case(build, NegativeText(video, audio_embeds=sound), call, False, fewest_steps=2)


_BUILT: dict[str, Case] = {
    "Wan": _video(tiny.wan_pipeline),
    "Wan VACE": _video(tiny.wan_vace_pipeline),
    "SkyReels V2": _video(tiny_skyreels.text_to_video),
    "ChronoEdit": _video(
        tiny_wan_copies.chronoedit_pipeline, 512, is_named=False, image=reference.image()
    ),
    "LTX": _video(tiny.ltx_pipeline, is_named=False),
    "LTX-2": _sound(tiny_ltx2.pipeline),
    "SANA-WM": Case(sana_wm_pipeline, test_sana_wm.NEGATIVE, test_sana_wm.render, False),
    **{name: _cross(one) for name, one in cross_families.FAMILIES.items() if name not in FURTHER},
    **{name: _joint(one) for name, one in joint_families.FAMILIES.items()},
    **{name: _sequence(one) for name, one in sequence_families.FAMILIES.items()},
}
# Mochi divides by the steps before the last one; at the first of Cosmos' noise levels, what a model
# predicts is lost in rounding.
CASES = _BUILT | {name: replace(_BUILT[name], fewest_steps=2) for name in ("Mochi", "Cosmos 2")}
every_family = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


@cache
def classes_of_cases() -> tuple[tuple[type, type], ...]:
    """Return the classes of pipeline and model of each case."""
    built = [case.build() for case in CASES.values()]
    return tuple((type(one), type(model_of(one))) for one in built)
