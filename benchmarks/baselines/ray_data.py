"""`python -m benchmarks.baselines.ray_data SCRIPT TIMES ACTORS`: the same by Ray Data.

`map_batches` with a class, on a pool of actors with a device each: a GPU, or one CPU, for which Ray
gives torch one thread. The cluster is that of RAY_ADDRESS, or one that Ray starts here.
"""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.baselines.workload import Clip, ClipTimes, Script, write_times


class RenderRow:
    """The class of `map_batches`; a batch is one clip."""

    def __init__(self, script: Script) -> None:
        from benchmarks.baselines.renderer import PlainRenderer

        self._renderer = PlainRenderer(script)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        (row,) = zip(*batch.values(), strict=True)
        values: dict[str, Any] = dict(zip(batch, row, strict=True))
        values["seed"] = int(values["seed"])  # pandas has its own integers
        times = self._renderer.render(Clip(**values))
        return {"times": [asdict(times)]}


def main(script_path: Path, times_path: Path, num_actors: int) -> None:
    import ray
    import ray.data

    script = Script.read(script_path)
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False)
    else:
        ray.init(log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    device: dict[str, Any] = {"num_gpus": 1} if script.device == "cuda" else {"num_cpus": 1}
    dataset = ray.data.from_items(
        [asdict(clip) for clip in script.clips], override_num_blocks=len(script.clips)
    ).map_batches(
        RenderRow,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        fn_constructor_args=(script,),
        **device,
    )
    for row in dataset.iter_rows():
        write_times(times_path, ClipTimes(**row["times"]))
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
