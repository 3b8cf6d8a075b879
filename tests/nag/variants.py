"""Pipelines that share a model with another one, and the proof that each is guided as that is.

A variant takes from a pool of parts and arguments what its own constructor and call name, so that a
family needs one pool for all of its variants.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any

import diffusers
import pytest
import torch

from nag import install
from nag.installation.coverage import find_models
from nag.installation.negative_prompt import NegativePrompt

STEPS = 2
STRONG: dict[str, Any] = {"nag_scale": 5.0, "nag_tau": 2.5, "nag_alpha": 0.5}
UNIT: dict[str, Any] = {**STRONG, "nag_scale": 1.0}
WORDS = "a red cat"
CPU = torch.device("cpu")
Pool = dict[str, Any]


def seeded(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Variant:
    """One pipeline.

    Args:
        name: name of its class in diffusers.
        parts: returns a pool of parts.
        arguments: returns a pool of the call's arguments, its texts among them.
        negative: returns a negative prompt of a seed, as embeddings or in words.
        text: argument of the model that holds the text.
        prompt: argument of the call that holds the prompt's embeddings.
        changes: further parts, in place of those of the pool.
        further: further arguments, in place of those of the pool.
        attributes: values that the pipeline takes after it is built.
        patches: values of names in diffusers' modules, such as the size of a pipeline's images.
        takes_words: True if the call takes a prompt in words, no embeddings.
        note: tells this row from another one of the same class.
    """

    name: str
    parts: Callable[[], Pool]
    arguments: Callable[[], Pool]
    negative: Callable[[int], NegativePrompt]
    text: str = "encoder_hidden_states"
    prompt: str = "prompt_embeds"
    changes: Callable[[Pool], Pool] = lambda _pool: {}
    further: Pool = field(default_factory=dict[str, Any])
    attributes: Pool = field(default_factory=dict[str, Any])
    patches: Pool = field(default_factory=dict[str, Any])
    takes_words: bool = False
    note: str = ""

    def build(self) -> Any:
        kind = getattr(diffusers, self.name)
        parts = self.parts()
        pool = {**parts, **self.changes(parts)}
        names = signature(kind.__init__).parameters
        chosen = {
            name: pool.get(name)
            for name, one in names.items()
            if name in pool or (one.default is Parameter.empty and name != "self")
        }
        pipeline = kind(**chosen)
        for name, value in self.attributes.items():
            setattr(pipeline, name, value)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def call(self, pipeline: Any) -> Pool:
        """Return the arguments of a call with classifier-free guidance, where it has that."""
        names = signature(type(pipeline).__call__).parameters
        always = {
            "num_inference_steps": STEPS,
            "strength": 1.0,
            "output_type": "latent",
            "return_dict": False,
        }
        pool = {**always, **self.arguments(), **self.further}
        if self.takes_words:
            pool |= {"prompt": WORDS, "prompt_embeds": None, "negative_prompt_embeds": None}
        return {name: one for name, one in pool.items() if name in names}

    def prompt_of(self, pipeline: Any, call: Pool) -> Any:
        """Return the embeddings of the prompt."""
        if self.takes_words:
            return pipeline.encode_prompt(WORDS, CPU, 1, False)[0]
        return call[self.prompt]

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in self.patches.items():
            monkeypatch.setattr(f"diffusers.{name}", value, raising=False)


@dataclass
class ModelCall:
    """One call of a model: the text of each row, and the result of each row."""

    texts: list[torch.Tensor]
    results: list[torch.Tensor]


def check_guidance(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prove that the prompt's pass is guided, and no other one.

    The unconditional rows are known by their text, as the pipeline hands it to the model.
    """
    variant.patch(monkeypatch)
    pipeline = variant.build()
    call = variant.call(pipeline)
    prompt = variant.prompt_of(pipeline, call)
    model = find_models(pipeline)[0].model
    calls: list[ModelCall] = []
    watches = _watch(model, variant.text, calls)

    def render() -> tuple[torch.Tensor, list[ModelCall]]:
        calls.clear()
        torch.manual_seed(0)  # some encode their images with noise of no generator
        result = pipeline(**call, generator=torch.Generator().manual_seed(0))
        return torch.cat([one.flatten() for one in _tensors(result)]), [*calls]

    plain, plain_calls = render()
    with install(pipeline) as nag:
        with nag.guide(variant.negative(2), **UNIT):
            assert torch.equal(render()[0], plain)
        with nag.guide(variant.negative(2), **STRONG):
            guided, guided_calls = render()
        with nag.guide(variant.negative(3), **STRONG):
            other = render()[0]
    for watch in watches:
        watch.remove()
    assert torch.isfinite(plain).all()
    assert _distance(guided, plain) > 1e-3
    assert _distance(guided, other) > 1e-3
    _check_rows(plain_calls, guided_calls, prompt)


def _check_rows(plain: list[ModelCall], guided: list[ModelCall], prompt: Any) -> None:
    """Compare the rows of the first step, in which both renders have the same latents."""
    assert len(plain) == len(guided)
    first = len(plain) // STEPS
    prompted: list[bool] = []
    for one, other in zip(plain[:first], guided[:first], strict=True):
        each = len(one.texts) // len(one.results)  # a clip has a text for each of its frames
        texts = one.texts[::each]
        # Rows of the negative prompt come last; guidance takes them off behind this hook.
        its_results = other.results[: len(texts)]
        for text, result, its_result in zip(texts, one.results, its_results, strict=True):
            length = min(len(text), len(prompt[0]))
            has_prompt = bool(torch.allclose(text[:length], prompt[0][:length], atol=1e-5))
            distance = _distance(its_result, result)
            # Rows with the prompt behind the first one are perturbed, and stay unguided.
            if has_prompt and not any(prompted):
                assert distance > 1e-4
            else:
                assert distance < 1e-5
            prompted.append(has_prompt)
    assert any(prompted)


def _watch(model: Any, text: str, calls: list[ModelCall]) -> list[Any]:
    """Note what the pipeline hands to the model; hooks of guidance come behind this one."""
    names = signature(model.forward)

    def before(_model: Any, args: Any, kwargs: Any) -> None:
        given = names.bind(*args, **kwargs).arguments[text]
        given = given[0] if isinstance(given, tuple) else given  # Cosmos' images
        calls.append(ModelCall([one.clone() for one in given], []))

    def after(_model: Any, _args: Any, output: Any) -> None:
        if not isinstance(output, tuple):
            output = (output.sample,)
        calls[-1].results = [one.clone() for one in output[0]]

    return [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after),
    ]


def _tensors(result: Any) -> list[torch.Tensor]:
    result = result[0]
    if torch.is_tensor(result):
        return [result]
    assert all(torch.is_tensor(one) for one in result)
    return list(result)


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()
