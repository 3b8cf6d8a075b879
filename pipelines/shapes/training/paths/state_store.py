"""A store of states to learn from, which the model that learns has passed itself."""

from typing import Generic, TypeVar

import torch

Option = TypeVar("Option")
State = TypeVar("State")


class StateStore(Generic[State]):
    """A store that is refilled by rendering when it runs out; `_render` gives the new states."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self._states: list[State] = []

    def take(self, num_states: int) -> list[State]:
        """Return so many states, each of a different clip or sigma."""
        while len(self._states) < num_states:
            states = self._render()
            order = torch.randperm(len(states), generator=self.generator)
            self._states += [states[index] for index in order.tolist()]
        taken, self._states = self._states[:num_states], self._states[num_states:]
        return taken

    def draw(self, options: tuple[Option, ...]) -> Option:
        """Return one of the options."""
        return options[int(torch.randint(len(options), (), generator=self.generator))]

    def _render(self) -> list[State]:
        raise NotImplementedError
