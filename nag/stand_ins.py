"""The attributes and hooks that guidance puts on objects, and their part in copies of these.

A copy, by `copy.deepcopy` or `pickle`, is a stock object again: it has the methods of its class,
and hooks that do nothing. Guidance stays on the object that it was put on.
"""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from nag.errors import GuidedCopyError


class ReplacedMethod:
    """Stands in the place of a method of an object, until it is removed.

    Args:
        owner: the object.
        name: name of its method.
        call: called instead.

    Attributes:
        own: the method that it replaces.
    """

    def __init__(self, owner: Any, name: str, call: Callable[..., Any]) -> None:
        # Pipelines read its signature. It also takes all attributes of another one of these.
        update_wrapper(self, getattr(owner, name))
        self._owner, self._name, self._call = owner, name, call
        self._earlier = vars(owner).get(name)  # another extension's
        self.own: Any = getattr(owner, name)
        setattr(owner, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._earlier is not None:
            return _itself, (self._earlier,)
        return getattr, (self._owner, self._name)

    def remove(self) -> None:
        """Give the earlier method back, unless another extension has replaced this one since."""
        restore(self._owner, self._name, self, self._earlier)


class ModelHook:
    """A hook of a model or of a part of it.

    Args:
        call: called as the hook.
        is_guiding: returns True while the model must not be copied.
    """

    def __init__(self, call: Callable[..., Any], is_guiding: Callable[[], bool]) -> None:
        self._call, self._is_guiding = call, is_guiding

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._is_guiding():
            raise GuidedCopyError(
                "a guided model cannot be copied or pickled: copy it outside guide(), and call "
                "guide() for the copy"
            )
        return _idle_hook, ()


def stock_of(processor: Any) -> tuple[Any, ...]:
    """Return what copies a processor of this library as the stock one, for `__reduce__`."""
    return _itself, (processor.stock,)


def restore(owner: Any, name: str, ours: Any, earlier: Any) -> None:
    """Take an attribute of ours off an object, unless another extension has replaced it since.

    Args:
        earlier: the object's own attribute of this name before; None without one.
    """
    if vars(owner).get(name) is not ours:
        return
    if earlier is None:
        delattr(owner, name)
    else:
        setattr(owner, name, earlier)


def _itself(one: Any) -> Any:
    return one


def _idle_hook() -> Callable[..., None]:
    return _do_nothing


def _do_nothing(*_args: Any, **_kwargs: Any) -> None:
    return None
