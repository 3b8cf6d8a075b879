"""The contact sheet of a benchmark: one row per task and seed, one column per method."""

import tempfile
from collections.abc import Container, Mapping
from pathlib import Path

from jobs.bench.design.blocks import Block, PlannedClip
from jobs.bench.design.options import REPORT
from jobs.media.contact_sheet import SheetClip, draw_contact_sheet
from jobs.media.decode_check import decode_mp4
from jobs.records.commit import read_record
from jobs.store.store import Store
from jobs.whole_files import written_for
from pipelines.shapes.evaluation.negation import NegationTask

TASKS_SHOWN = 8


def draw_method_sheet(
    block: Block, clip_ids: Mapping[str, str], committed: Container[str], store: Store, path: Path
) -> None:
    """Draw the first tasks that all methods have rendered; write no file if there are none."""

    def ids(task: NegationTask) -> list[str]:
        return [clip_ids[PlannedClip(block, setting, task).name] for setting in block.settings]

    whole = [task for task in block.tasks if all(clip_id in committed for clip_id in ids(task))]
    clips: list[SheetClip] = []
    with tempfile.TemporaryDirectory(prefix="nagfarm-") as folder:
        for line, task in enumerate(whole[:TASKS_SHOWN]):
            heading = f"{task.prompt}   [negative: {task.negative_prompt}]"
            for setting, clip_id in zip(block.settings, ids(task), strict=True):
                mp4 = Path(folder) / f"{clip_id}.mp4"
                mp4.write_bytes(store.get(read_record(store, clip_id).key))
                clips.append(SheetClip(heading, setting.name, line, decode_mp4(mp4).frames))
    if clips:
        with written_for(REPORT, path) as unfinished:
            draw_contact_sheet(clips, unfinished)
