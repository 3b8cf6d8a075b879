"""The program `nagfarm`, and the right of its packages to their names.

Its packages have common names: a folder `jobs`, or a file `jobs.py`, may lie where a user works.
Python looks there first if it runs with `-m` or PYTHONPATH, and Ray puts that folder first in every
worker. Whoever imports this module gets nagfarm's packages by those names, the user's by no other.
Loads nothing else, so that no name is looked up before.
"""

import gc
import os
import signal
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
PACKAGES = ("nag", "pipelines", "jobs", "configs")
MARK = '_OWNER = "nagfarm"'  # stands in our `nag/__init__.py`
OVERWRITTEN = (
    "is another package's, installed over nagfarm's nag: pip uninstall that one (the author's is "
    "called nag), then pip install --force-reinstall --no-deps nagfarm, or nagfarm-nag"
)
OBJECTS_BETWEEN_COLLECTIONS = 20_000
# As `jobs.ending` has them, which cannot be loaded yet.
STOPPED = 4
STOPPED_LINE = "nagfarm: stopped: by SIGINT; run it again to go on"


class OwnPackages(MetaPathFinder):
    """Finds the packages beside this file, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        is_own = path is None and fullname in PACKAGES
        return PathFinder.find_spec(fullname, [str(ROOT)]) if is_own else None


def claim_packages() -> None:
    """Let this process find nagfarm's packages beside this file. May be called again."""
    if not any(isinstance(finder, OwnPackages) for finder in sys.meta_path):
        sys.meta_path.insert(0, OwnPackages())


def foreign_packages() -> dict[str, str]:
    """Return what Python would find by our names, in this folder and on the path: name and place.

    The names are those of the packages and of this module.
    """
    found = dict[str, str]()
    for name in (*PACKAGES, Path(__file__).stem):
        spec = PathFinder.find_spec(name, ["", *sys.path])
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        place = next((one for one in places if one), None)
        if place is not None and not Path(place).resolve().is_relative_to(ROOT):
            found[name] = place
    return found


def _end_at_once(_number: int, _frame: FrameType | None) -> NoReturn:
    """End the process while it loads its modules, which an exception could leave half loaded."""
    os.write(2, f"{STOPPED_LINE}\n".encode())
    os._exit(STOPPED)


def is_nag_overwritten() -> bool:
    """Return True if another package `nag`, such as the author's, was installed over ours.

    Its removal takes our `__init__.py` with it, and leaves a folder without one.
    """
    spec = PathFinder.find_spec("nag", [str(ROOT)])
    if spec is None or spec.loader is None:
        return spec is not None
    source = spec.loader.get_source("nag") if isinstance(spec.loader, InspectLoader) else None
    return source is not None and MARK not in source


def main() -> int:
    """Run one command, and return its exit code. Ctrl-C ends it quietly from here on."""
    is_asked = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored
    if is_asked:
        signal.signal(signal.SIGINT, _end_at_once)
    from jobs.cli.main import main as run

    if is_asked:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Python would look for cycles after every 700 objects, and through all imports: a third of the
    # time of a plan, whose rows make none.
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    return run()


claim_packages()

if __name__ == "__main__":
    sys.exit(main())
