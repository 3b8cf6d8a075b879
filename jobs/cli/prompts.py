"""`nagfarm prompts`: write a prompt set of the field as a manifest."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from jobs.cli.pattern.command import EXIT_OK, Command, Context, Options
from jobs.errors import RefusedError
from jobs.prompt_sets.captions import caption_prompts
from jobs.prompt_sets.objects import OBJECTS, TASKS, Words, object_prompts
from jobs.prompt_sets.pairs import NEGATIVE_NAMES, PROMPT_NAMES, SUFFIXES, pair_prompts
from jobs.prompt_sets.prompt_rows import (
    MAX_PROMPTS,
    SetPrompt,
    check_option,
    clean,
    write_rows,
)
from jobs.text import counted
from pipelines.regular_files import read_bounded
from pipelines.request import MAX_SEED

Form = Literal["objects", "captions", "pairs"]
FORMS: tuple[Form, ...] = get_args(Form)
DEFAULT_EACH = 20
MAX_WORDS_BYTES = 1_000_000


@dataclass(frozen=True)
class PromptsOptions(Options):
    """The options of `nagfarm prompts`."""

    form: Form
    source: Path | None
    output: Path
    limit: int | None
    opening: str
    negative_prompt: str
    seed: int

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("form", choices=FORMS, metavar="FORM", help=", ".join(FORMS))
        add("source", type=Path, nargs="?", metavar="FILE", help="the captions, pairs or objects")
        add("--output", type=Path, required=True, metavar="FILE", help="the manifest, in JSONL")
        add(
            "--limit",
            type=int,
            metavar="N",
            help=f"prompts of the set; of objects, prompts of each task (default {DEFAULT_EACH})",
        )
        add(
            "--opening",
            default="a video of",
            metavar="TEXT",
            help="begins each prompt of objects (default 'a video of'); '' for none",
        )
        add(
            "--negative-prompt",
            default="",
            metavar="TEXT",
            help="negative prompt of each row of objects and captions",
        )
        add("--seed", type=int, default=0, metavar="N", help="seed of the first row (default 0)")

    def prompts(self) -> Iterator[SetPrompt]:
        """Return the prompts of the set. Raises RefusedError if an option is wrong."""
        most = MAX_PROMPTS if self.limit is None else self.limit
        if not 1 <= most <= MAX_PROMPTS:
            raise RefusedError(f"--limit: expected 1 to {MAX_PROMPTS:,}, got {self.limit}")
        if not 0 <= self.seed <= MAX_SEED - MAX_PROMPTS:
            raise RefusedError(f"--seed: expected 0 to {MAX_SEED - MAX_PROMPTS}, got {self.seed}")
        check_option("--opening", self.opening)
        check_option("--negative-prompt", self.negative_prompt)
        if self.form == "objects":
            words = Words(OBJECTS if self.source is None else _objects(self.source), self.opening)
            return object_prompts(self.limit or DEFAULT_EACH, words, self.negative_prompt)
        if self.source is None:
            raise RefusedError(f"{self.form}: name the file of {self.form}")
        if self.form == "captions":
            return caption_prompts(self.source, self.limit, self.negative_prompt)
        if self.negative_prompt:
            raise RefusedError("--negative-prompt: each pair has one of its own; leave it out")
        return pair_prompts(self.source, self.limit)


def _objects(path: Path) -> dict[str, str]:
    """Return the objects of a file: a line each, with the plural behind a comma if it is not -s.

    Raises:
        RefusedError: the file cannot be read, or holds fewer than two objects.
    """
    found: dict[str, str] = {}
    try:
        lines = read_bounded(path, MAX_WORDS_BYTES).decode().splitlines()
        for line in filter(str.strip, lines):
            one, _, plural = line.partition(",")
            found[clean(one)] = clean(plural) if plural.strip() else f"{clean(one)}s"
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RefusedError(f"{path}: {error}") from error
    if len(found) < 2:
        raise RefusedError(f"{path}: expected two objects or more, a line each")
    return found


def run(options: PromptsOptions, context: Context) -> int:
    """Write the manifest.

    Raises:
        RefusedError: an option is wrong, the source has another form, or the manifest is there.
    """
    num = write_rows(options.prompts(), options.output, options.seed)
    context.say(f"{options.output}: {counted(num, 'row')}")
    return EXIT_OK


COMMAND = Command(
    name="prompts",
    summary="write a prompt set of the field as a manifest: objects, captions, pairs",
    epilog=f"""\
forms:
  objects   the form of GenEval, with words of its own or of FILE, a line each:
            {", ".join(TASKS)}
  captions  a sample of a captions file in COCO's form: a caption of each picture
  pairs     the form of NegGenBench and DCS-Bench: a prompt, and what must not be seen;
            {", ".join(SUFFIXES)} with {" or ".join(PROMPT_NAMES[:2])} and \
{" or ".join(NEGATIVE_NAMES[:2])}

examples:
  nagfarm prompts objects --output objects.jsonl --limit 50
  nagfarm prompts captions captions_val2017.json --output coco.jsonl --limit 5000
  nagfarm prompts pairs neggen.json --output pairs.jsonl
  nagfarm render pairs.jsonl --model wan2.1-t2v-1.3b --output ./pairs

A row has a prompt, a negative prompt, a seed of its own and notes: `form`, the objects that the
prompt asks for, and `unwanted`, about which `nagfarm score` asks a model. Add further fields, or
lines, as to any manifest. `nagfarm bench paper --prompts FILE` renders a set with and without
guidance and scores both.
""",
    options=PromptsOptions,
    run=run,
)
