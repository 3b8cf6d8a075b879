"""Parts of the manual that are made from the code.

A page holds a marker, an HTML comment that GitHub hides; the site shows the generated text there.
"""

from collections.abc import Callable

GENERATED: dict[str, Callable[[], str]] = {}
