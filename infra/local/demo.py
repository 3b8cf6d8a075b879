"""The demo: a batch for a real S3 server and a real Ray cluster on this machine, and its results.

`make demo` runs it. Its clips stay in `.demo/`: a second run finds everything committed and renders
nothing.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from infra.local.local_process import stop_signal_as_interrupt
from infra.local.ray_cluster import LocalRay, ray_command
from infra.local.s3_server import LocalS3
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.media.contact_sheet import SheetClip, draw_contact_sheet, negative_heading
from jobs.media.decode_check import decode_mp4
from jobs.records.commit import committed_ids, read_record
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store

MANIFEST = Path("examples/shapes.yaml")
BUCKET = "renders"
STAGES_OF_WORK = ("load", "text", "denoise", "decode", "encode", "check", "upload")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--state", type=Path, default=Path(".demo"), help="folder of the S3 server's data"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo-output"),
        help="folder for clips and contact sheet",
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    num_cpus = os.cpu_count() or 1
    with stop_signal_as_interrupt():
        print("starting a local S3 server ...", flush=True)
        arguments.state.mkdir(parents=True, exist_ok=True)
        with LocalS3(BUCKET, arguments.state.resolve() / "s3") as server:
            print(f"S3 at {server.endpoint_url}; starting a local Ray cluster ...", flush=True)
            os.environ.update(server.environment())  # for boto3 in this process
            with LocalRay(num_cpus, server.environment()) as cluster:
                print(f"Ray at {cluster.address}, dashboard at {cluster.dashboard_url}", flush=True)
                submitted = time.monotonic()
                exit_code = submit(cluster)
                rendered_s = time.monotonic() - submitted
            print_summary(f"s3://{BUCKET}/shapes", arguments.output)
            write_gallery(f"s3://{BUCKET}/shapes", arguments.output / "shapes")
    print(
        f"rendering took {rendered_s:.0f} s, all of it {time.monotonic() - started:.0f} s; "
        "nothing is left running"
    )
    return exit_code


def submit(cluster: LocalRay) -> int:
    """Run `ray job submit` and show its log."""
    command = [
        *(ray_command(), "job", "submit", f"--address={cluster.dashboard_url}"),
        *(f"--working-dir={MANIFEST.parent}", "--"),
        *("nagfarm", "render", MANIFEST.name, "--output", f"s3://{BUCKET}/shapes"),
    ]
    print(f"$ RAY_AUTH_MODE=token ray {' '.join(command[1:])}", flush=True)
    return subprocess.run(command, env=cluster.environment(), check=False).returncode


def print_summary(uri: str, output: Path) -> None:
    """Copy the clips, draw the contact sheet, and print the time of each stage."""
    store = open_store(uri, StoreConfig())
    names = {spec.clip_id: spec.name for spec in open_manifest(MANIFEST, ModelCatalog()).specs()}
    committed = committed_ids(store)  # may hold clips of an older manifest or older weights
    records = {id_: read_record(store, id_) for id_ in names if id_ in committed}
    folder = output / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    totals_s: Counter[str] = Counter()
    clips: list[SheetClip] = []
    for clip_id, record in records.items():
        path = folder / f"{names[clip_id]}.mp4"
        path.write_bytes(store.get(record.key))
        totals_s.update(record.stage_totals_s)
        frames = decode_mp4(path).frames
        request = record.request
        column = negative_heading(request.negative_prompt)
        clips.append(SheetClip(f"prompt: {request.prompt}", column, request.sampling.seed, frames))
    sheet = output / "contact-sheet.png"
    if clips:
        draw_contact_sheet(clips, sheet)
    work_s = sum(totals_s[stage] for stage in STAGES_OF_WORK)
    print(f"\n{len(records)} clips in {uri}, copied to {folder}/, drawn in {sheet}")
    print("share of the workers' time per stage, over all committed clips:")
    for stage in STAGES_OF_WORK:
        share = totals_s[stage] / work_s if work_s else 0
        print(f"  {stage:<8} {share:6.1%}  {totals_s[stage]:7.2f} s")


def write_gallery(uri: str, folder: Path) -> None:
    """Copy an output to a folder, as `aws s3 sync` would, and write its gallery there."""
    store = open_store(uri, StoreConfig())
    for stored in store.entries(""):
        path = folder / stored.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(stored.key))
    subprocess.run([Path(sys.executable).with_name("nagfarm"), "report", folder], check=True)


if __name__ == "__main__":
    sys.exit(main())
