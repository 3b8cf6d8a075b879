"""What may be said on the command line, and the help that teaches it. Loads without torch.

Decides names and help texts alone; what a command does is `cli`'s.
"""

import argparse
from pathlib import Path

from jobs.bench.arguments import BENCH_EPILOG, BENCH_SUMMARY, add_bench_arguments
from jobs.cli.store_commands import add_store_commands

DESCRIPTION = (
    "Render text-to-video clips in batches: a manifest goes in, MP4s and records come out."
)
EPILOG = """\
examples:
  nagfarm plan spring.yaml                          check the manifest and say what would be rendered
  nagfarm render spring.yaml                        render it; run it again to go on where it stopped
  nagfarm render prompts.csv --model shapes-wan --output file:///tmp/spring
  ray job submit --working-dir . -- python -m jobs render spring.yaml
  nagfarm bench negatives --quick                   measure what negative prompts do, in a few minutes
  nagfarm status s3://renders/spring                how far it is, what is in flight, what failed
  nagfarm retry s3://renders/spring                 give what was given up another chance
  nagfarm gc s3://renders/spring                    what lies there that nothing needs; --delete removes it
  nagfarm models                                    which models there are, and whether their weights are here
  nagfarm doctor --output s3://renders/spring       what is missing on this machine

exit codes: 0 all committed, 2 refused before anything ran, 3 finished with clips in quarantine, 4 stopped
"""
MANIFEST_HELP = """\
a manifest (.yaml with axes; .jsonl or .csv with one clip a row):

  name: spring
  model: shapes-wan
  output: s3://renders/spring
  defaults: {num_inference_steps: 8}
  axes:
    prompt: [a circle moving right, a square moving up]
    negative_prompt: ["", red]
    seed: {range: [0, 4]}
    guidance: [{method: nag, nag_alpha: 0.5}, {method: cfg, guidance_scale: 5}]
  combine: prompt * negative_prompt * seed * guidance

guidance is a mapping of method (none, cfg, nag, vsf, nasa or cfg+nag), guidance_scale (of cfg and cfg+nag), nag_scale,
nag_tau, nag_alpha, nag_start, nag_end, nag_norm, vsf_scale, vsf_bias and nasa_scale; CSV has these as columns

parallel: {ulysses: 2, ring: 2} renders a clip on a group of 4 devices, all of one machine unless across_hosts: true;
it replaces a default's or the model's parallel as a whole, and parallel: {} is one device. CSV has ulysses, ring and
across_hosts as columns. Attention heads must be a multiple of ulysses, video tokens of ulysses times ring; a size that
is not is refused with the nearest that is. It decides no clip: two rows that differ in it alone are one clip
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nagfarm",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str, epilog: str | None = None) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument(
            "--models",
            type=Path,
            metavar="FOLDER",
            help="a folder of model YAMLs, besides those that come with nagfarm",
        )
        return command

    for name, summary in (
        ("plan", "check a manifest and say what would be rendered; renders nothing"),
        ("render", "render what is missing, with progress; resumes by itself"),
    ):
        command = add(name, summary, MANIFEST_HELP)
        command.add_argument("manifest", type=Path, metavar="MANIFEST")
        command.add_argument(
            "--output",
            metavar="URI",
            help="s3://bucket/prefix or file:///folder; wins over the manifest",
        )
        command.add_argument("--model", metavar="NAME", help="for rows that name none")
        command.add_argument(
            "--profile",
            type=Path,
            metavar="FILE",
            help="a YAML of run settings, over configs/base.yaml",
        )
        command.add_argument(
            "settings", nargs="*", metavar="key=value", help="run settings, such as workers.count=2"
        )
        if name == "render":
            command.add_argument(
                "--retry-quarantined",
                action="store_true",
                help="also render the manifest's clips that were given up",
            )
            command.add_argument(
                "--takeover",
                action="store_true",
                help="take the output from another driver, which is dead although its lease is not over yet",
            )

    add_bench_arguments(add("bench", BENCH_SUMMARY, BENCH_EPILOG))
    add_store_commands(commands)
    add("models", "list the models and whether their weights are here")
    doctor = add(
        "doctor", "check Ray, ffmpeg, GPUs, weights and the store, and say what is missing"
    )
    doctor.add_argument(
        "--output", metavar="URI", help="also check that clips can be written there"
    )
    doctor.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="run settings, such as store.endpoint_url=...",
    )
    return parser


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Settings may stand anywhere; argparse by itself does not find them behind an option."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "settings") or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.settings += rest
    return options
