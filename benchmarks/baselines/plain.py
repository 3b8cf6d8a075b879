"""`python -m benchmarks.baselines.plain SCRIPT TIMES`: render the clips of a script in a loop."""

import sys
from pathlib import Path

from benchmarks.baselines.renderer import PlainRenderer
from benchmarks.baselines.workload import Script, write_times


def main(script_path: Path, times_path: Path) -> None:
    script = Script.read(script_path)
    renderer = PlainRenderer(script)
    for clip in script.clips:
        write_times(times_path, renderer.render(clip))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
