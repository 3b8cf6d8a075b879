"""A folder in which the commands of the manual run, and the rules for those that cannot run here.

Most of `spring.yaml` of README.md is rendered there by models that draw waves, into `./spring`
and `./renders/spring`. In commands, `./renders` stands for the bucket `s3://renders`, and a job is
run as the command behind `ray job submit`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.builders.page_commands import PLAIN
from tests.builders.pages import SHELL, Block, blocks, page_names, simple_commands
from tests.structure import ROOT

# A command of nagfarm that matches cannot run in a test, for the reason behind it.
CANNOT_RUN = {
    r"^bench ": "renders for minutes to hours; tests/jobs/bench run it",
    r"--fetch": "downloads weights from the hub",
    r"--measure (clip|vqa|hps|reward|fid|pfid)": "needs weights of measures that are not here",
    r"^prompts (captions|pairs)": "reads a file of the reader's",
    r"--remote|--cluster": "asks the nodes of a cluster; tests/jobs/cluster run it",
    r"--stay": "ends by a signal alone; tests/jobs/watch do it",
    r"--timing": "loads weights that are not here",
    r"wan2\.|ltx-video|my-models": "needs weights that are not here",
    r"--links presigned": "needs a bucket of S3: tests/jobs/cli/test_report_command.py runs it",
    r"kms|addressing_style|endpoint_url": "needs a bucket with these rules",
    r"(^| )\.\.\.( |$)|NAME|MANIFEST|FOLDER|URI": "has places to fill in",
    r"/etc/nagfarm": "is run inside a pod or on a machine of the units",
}
SUBMIT = re.compile(r"(RAY_AUTH_MODE=\S+ )?ray job submit (.|\\\n)*? -- ")
CLIPS = "clips: [{prompt: a circle moving right}, {prompt: a square moving up}]\n"
FILES = {
    "prompts.txt": "a circle moving right\na square moving up\n",
    "prompts.csv": "prompt,seed\na circle moving right,1\na square moving up,2\n",
    "shots.csv": "prompt,shot,Scene No.\na circle moving right,a,1\n",
    "night.yaml": "model: shapes-wan\noutput: ./night\n" + CLIPS,
    "trial.yaml": "model: shapes-wan\noutput: ./trial\n" + CLIPS,
    "again.jsonl": '{"prompt": "a circle moving right", "model": "shapes-wan", "seed": 6}\n',
    "picks.jsonl": '{"prompt": "a circle moving right", "model": "shapes-wan", "seed": 5}\n',
    "picks.txt": "spring-000003\nspring-000017\n",
    "favourites/spring-000003.mp4": "",
    "shapes.yaml": "model: shapes-wan\noutput: ./shapes\n" + CLIPS,
}
# exit codes besides 0 that are right here: no GPU, and clips that are not rendered yet
OTHER_CODES = {"nagfarm doctor": 2, "nagfarm verify": 3}
TIMEOUT_S = 240


@dataclass(frozen=True)
class Workspace:
    """A folder with manifests and rendered outputs, and the environment of its commands."""

    folder: Path
    environment: dict[str, str]

    def copy(self, to: Path) -> "Workspace":
        shutil.copytree(self.folder, to, dirs_exist_ok=True, symlinks=True)
        return Workspace(to, self.environment)

    def write(self, block: Block) -> None:
        """Write the file that a block is."""
        path = self.folder / str(file_of(block))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(here(block.text), encoding="utf-8")

    def run_page(self, page: str) -> list[str]:
        """Write the files and run the commands of a page; return a text for each that failed."""
        failed: list[str] = []
        for block, statement in steps(page):
            if not statement:
                self.write(block)
                continue
            ended = self.run(statement)
            codes = [code for start, code in OTHER_CODES.items() if start in statement]
            if ended.returncode not in (0, *codes):
                output = (ended.stdout + ended.stderr)[-2000:]
                text = f"{block.place}: {statement}\n  ended with {ended.returncode}: {output}"
                failed.append(text)
        return failed

    def run(self, statement: str) -> subprocess.CompletedProcess[str]:
        """Run one command line in bash."""
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", here(statement)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )


def here(statement: str) -> str:
    """Return a command line as it runs in a workspace."""
    return SUBMIT.sub("", statement).replace("s3://renders", "./renders")


def reason_against(statement: str) -> str | None:
    """Return why a command line cannot run in a workspace, or None if it can."""
    commands = list(simple_commands(statement))
    if not commands:
        return "starts no program"
    runs = [" ".join(one.arguments) for one in commands if one.program == "nagfarm"]
    if other := {one.program for one in commands} - PLAIN - {"nagfarm", "ray", "jq"}:
        return f"needs {', '.join(sorted(other))}"
    if any(one.program == "ray" and one.arguments[:2] != ("job", "submit") for one in commands):
        return "starts or reaches a cluster: tests/infra/ray"
    if not runs and any(one.program == "jq" for one in commands):
        return "reads the output of a command that did not run"
    for pattern, reason in CANNOT_RUN.items():
        if any(re.search(pattern, run) for run in runs):
            return reason
    return None


def file_of(block: Block) -> str | None:
    """Return the name of the file that a block is, if its first line says so: `# spring.yaml`."""
    named = re.match(r"# ([\w./-]+\.(?:yaml|csv|txt|jsonl))\b", block.text)
    return named[1] if named and block.language not in SHELL else None


def steps(page: str) -> Iterator[tuple[Block, str]]:
    """Yield the files of a page, and the command lines that run in a workspace, in their order.

    A file comes as its block and an empty text.
    """
    for block in blocks(page=page):
        if file_of(block):
            yield block, ""
        elif block.language in SHELL:
            for statement in block.statements():
                if reason_against(statement) is None:
                    yield block, statement


def pages_to_run() -> list[str]:
    return [page for page in page_names() if any(statement for _, statement in steps(page))]


def empty_workspace(folder: Path, environment: dict[str, str], module: str = "jobs") -> Workspace:
    """Return a workspace without files, whose `nagfarm` is a module of this checkout."""
    program = folder / ".bin" / "nagfarm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": f"{folder}/.cache"}
    return Workspace(folder, environment | own)


def make_workspace(folder: Path, environment: dict[str, str]) -> Workspace:
    """Write the manifests and render `spring.yaml`, on the cluster of the environment."""
    space = empty_workspace(folder, environment, "tests.fakes.standin_nagfarm")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (manifest,) = blocks("yaml", page="README.md")
    (folder / "spring.yaml").write_text(manifest.text)
    (dated,) = blocks("yaml", page="docs/how-to/schedules.md")
    (folder / "news.yaml").write_text(
        dated.text.replace("s3://renders", "./renders") + "model: shapes-wan\n" + CLIPS
    )
    rendered = space.run("nagfarm render spring.yaml --limit 40")  # 8 are left to plan
    if rendered.returncode:
        raise RuntimeError(rendered.stdout + rendered.stderr)
    shutil.copytree(folder / "spring", folder / "renders" / "spring")
    return space
