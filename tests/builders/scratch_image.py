"""Build a target of a Dockerfile without a container engine: each stage in a folder of its own.

The base is a fresh Debian of `debootstrap`. Each RUN and COPY is executed in the file's order, with
the variables that the file sets and no others. What pip's settings on this machine name, such as
folders of wheels, is mounted there too.
"""

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser

from tests.builders.scratch_root import HOST_NETWORK, Image, check_run, debian, pip_settings

SUITES = {"debian:bookworm-slim": "bookworm"}


class ScratchBuild:
    """The stages of one Dockerfile, each built when it is first needed.

    Args:
        dockerfile: the file.
        context: the folder that COPY reads; its `.dockerignore` counts.
        work: a folder for the stages.
        arguments: as `--build-arg` gives them.
    """

    def __init__(
        self, dockerfile: Path, context: Path, work: Path, arguments: Mapping[str, str]
    ) -> None:
        self._context = context
        self._work = work
        self._arguments = arguments
        self._built: dict[str, Image] = {}
        self._stages: dict[str, list[tuple[str, str]]] = {}
        self._parents: dict[str, str] = {}
        for line in DockerfileParser(str(dockerfile)).structure:
            self._add(line["instruction"], line["value"])
        patterns = (context / ".dockerignore").read_text().splitlines()
        self.files = sorted(
            name
            for name in exclude_paths(
                str(context), [one for one in patterns if one and not one.startswith("#")]
            )
            if (context / name).is_file() and name != ".dockerignore"  # it sends this itself
        )

    def _add(self, instruction: str, value: str) -> None:
        if instruction == "FROM":
            parent, _as, name = value.split()
            self._stages[name], self._parents[name] = [], parent
        elif instruction != "COMMENT":
            self._stages[list(self._stages)[-1]].append((instruction, value))

    def image(self, target: str) -> Image:
        """Return a target, built from all stages that it needs."""
        if target not in self._built:
            image = self._start(target)
            variables: dict[str, str] = {}
            for instruction, value in self._stages[target]:
                image = self._execute(image, instruction, value, variables)
            self._built[target] = image
        return self._built[target]

    def _start(self, target: str) -> Image:
        parent, root = self._parents[target], self._work / target
        if parent not in self._stages:
            return Image(debian(SUITES[parent], root))
        image = self.image(parent)
        check_run("cp", "-a", str(image.root), str(root))
        return replace(image, root=root, environment=dict(image.environment))

    def _execute(
        self, image: Image, instruction: str, value: str, variables: dict[str, str]
    ) -> Image:
        match instruction:
            case "RUN":
                self._run(image, value, variables)
            case "COPY":
                self._copy(image, shlex.split(value))
            case "ARG":
                name, _, default = value.partition("=")
                variables[name] = self._arguments.get(name, default)
            case "ENV":
                for word in shlex.split(value):
                    name, _, text = word.partition("=")
                    text = text.replace("$PATH", image.environment["PATH"])
                    image.environment[name] = text
            case "WORKDIR":
                (image.root / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
                return replace(image, folder=value)
            case "SHELL":
                return replace(image, shell=tuple(json.loads(value)))
            case "USER":
                return replace(image, user=value)
            case "HEALTHCHECK":
                return replace(image, healthcheck=tuple(json.loads(value.partition("CMD ")[2])))
            case "CMD":
                return replace(image, command=tuple(json.loads(value)))
            case _:
                raise AssertionError(f"{instruction} {value}: not understood here")
        return image

    def _run(self, image: Image, value: str, variables: Mapping[str, str]) -> None:
        mounts: dict[str, Path] = {}
        while value.startswith("--mount="):
            option, _, value = value.partition(" ")
            keys = dict(pair.split("=", 1) for pair in option.removeprefix("--mount=").split(","))
            assert keys["type"] == "bind", option
            source = self.image(keys["from"]).root / keys["source"].lstrip("/")
            mounts[keys["target"]] = source
            value = value.lstrip()
        settings, places = pip_settings() if "pip " in value else ({}, {})
        image.run(
            [*image.shell, value],
            mounts={**mounts, **places},
            environment={**settings, **variables},
            network=HOST_NETWORK,
        )
        for place in mounts:  # the mount points, which an engine removes too
            target = image.root / place.lstrip("/")
            target.rmdir() if target.is_dir() else target.unlink()

    def _copy(self, image: Image, words: list[str]) -> None:
        *sources, target = words
        folder = Path(os.path.normpath(f"{image.root}{image.folder}/{target}"))
        for source in sources:
            names = [name for name in self.files if name == source or name.startswith(f"{source}/")]
            assert names, f"COPY {source}: not in the context"
            for name in names:
                inner = name.removeprefix(f"{source}/") if name != source else Path(name).name
                place = folder / inner
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self._context / name, place)
