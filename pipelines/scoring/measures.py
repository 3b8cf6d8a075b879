"""The measures by which clips are scored: their names, their weights and their figures.

Decides which measures exist and which figures each gives; `registry` loads them. Loads without
torch.
"""

import hashlib
import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from pipelines.errors import ScoringError

LooksAt = Literal["stills", "frames", "patches"]
DEFAULT_STILLS = 4
DEFAULT_QUESTION = "is there a {negative}?"


@dataclass(frozen=True)
class MeasureKind:
    """A measure that `nagfarm score` knows.

    Args:
        summary: the measure in a few words, for the help.
        looks_at: a few whole frames, all frames made small, or a patch of a few frames.
        weights: the kind of weights that it needs; empty for plain arithmetic.
        source: hub id of the weights that are used unless another source is given.
        figures: the meaning of each figure; a set's measure has none of its own.
        version: raised when the same clip would get other figures, so that it is scored anew.
    """

    summary: str
    looks_at: LooksAt
    weights: str = ""
    source: str = ""
    figures: Mapping[str, str] | None = None
    version: int = 1

    @property
    def is_of_a_set(self) -> bool:
        """Return True if it notes vectors, and a figure belongs to a set of clips."""
        return self.figures is None


_DISTANCE = "weights of any vision model of transformers, such as DINOv2 or CLIP's"
MEASURES: dict[str, MeasureKind] = {
    "frames": MeasureKind(
        "motion and flicker, by arithmetic on all frames",
        "frames",
        figures={
            "motion": "largest mean difference from the first frame, in levels of 0 to 255",
            "step_change": "mean difference of neighbouring frames, in levels",
            "flicker": "squared difference of neighbouring frames over that of unrelated ones",
        },
    ),
    "shapes": MeasureKind(
        "the exact judge of the Shapes world, for its clips alone",
        "frames",
        figures={
            "clean": "1 for a member of the Shapes world, 0 for any other clip",
            "prompt_kept": "share of the attributes named in the prompt that the clip shows",
            "negative_seen": "share of the attributes named in the negative prompt that it shows",
        },
    ),
    "clip": MeasureKind(
        "CLIP score: similarity of prompt and frames",
        "stills",
        "a CLIPModel or SiglipModel of transformers",
        "openai/clip-vit-large-patch14",
        figures={
            "prompt": "100 times the cosine of prompt and frame, at least 0, mean over the frames",
            "negative": "the same for the negative prompt: lower is better",
        },
    ),
    "hps": MeasureKind(
        "HPSv2: preference by a CLIP ViT-H with its own weights",
        "stills",
        "HPSv2's weights as a CLIPModel of transformers",
        figures={"preference": "cosine of prompt and frame, mean over the frames"},
    ),
    "reward": MeasureKind(
        "ImageReward: preference by BLIP and a small network",
        "stills",
        "ImageReward's weights as safetensors, and the tokenizer of BERT beside them",
        figures={"preference": "normalised reward, mean over the frames"},
    ),
    "vqa": MeasureKind(
        "suppression: a model answers if the frames show the negative prompt",
        "stills",
        "a BlipForQuestionAnswering or ViltForQuestionAnswering of transformers",
        "Salesforce/blip-vqa-base",
        figures={
            "negative_seen": "share of questions and frames answered by yes; 1 minus its mean over "
            "clips is the rate of suppression",
        },
    ),
    "fid": MeasureKind(
        "Frechet distance of whole frames to references",
        "stills",
        _DISTANCE,
        "facebook/dinov2-base",
    ),
    "pfid": MeasureKind(
        "the same of patches in the frames' own pixels",
        "patches",
        _DISTANCE,
        "facebook/dinov2-base",
    ),
}


@dataclass(frozen=True)
class MeasureSpec:
    """A measure with its weights and settings: all that decides its figures of a clip.

    Args:
        name: a name of `MEASURES`.
        source: hub id or folder of the weights; empty without weights.
        revision: commit on the hub, or digest of the folder's weights; empty if not known yet.
        num_stills: frames that are looked at, evenly spaced; 0 for all.
        question: the question of `vqa`, with {negative} in it.
    """

    name: str
    source: str = ""
    revision: str = ""
    num_stills: int = 0
    question: str = ""

    @property
    def kind(self) -> MeasureKind:
        return MEASURES[self.name]

    def digest(self, sha256: str, prompts: tuple[str, ...]) -> str:
        """Return 16 digits that stand for the measure and all that it sees of a clip.

        Args:
            sha256: digest of the clip's MP4.
            prompts: the prompt, and each text that the clip must not show.
        """
        seen = {**asdict(self), "version": self.kind.version, "sha256": sha256, "prompts": prompts}
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:16]


def read_measure(text: str, num_stills: int, question: str) -> MeasureSpec:
    """Read a measure as people write it: NAME, NAME=SOURCE or NAME=SOURCE@REVISION.

    Raises:
        ScoringError: the name is unknown, a source is missing, or one is of no use.
    """
    name, has_source, source = text.strip().partition("=")
    if (kind := MEASURES.get(name)) is None:
        raise ScoringError(f"measure {name!r}: expected one of {', '.join(MEASURES)}")
    if not kind.weights:
        if has_source:
            raise ScoringError(f"measure {name}: it needs no weights; leave out ={source}")
        return MeasureSpec(name)
    source = source or kind.source
    if not source:
        raise ScoringError(
            f"measure {name}: it has no weights of its own on the hub; name a hub id or a folder "
            f"with {kind.weights}: {name}=FOLDER"
        )
    source, _, revision = source.partition("@")
    asked = question if name == "vqa" else ""
    if name == "vqa" and "{negative}" not in question:
        raise ScoringError(f"the question must hold {{negative}}, got {question!r}")
    return MeasureSpec(name, source, revision, num_stills, asked)


def measures_help() -> str:
    """Return a line for each measure, for the help of a command."""
    width = max(map(len, MEASURES))
    return "\n".join(
        textwrap.fill(
            f"{name:<{width}}  {kind.summary}; needs {kind.weights or 'no weights'}"
            + (f" (default {kind.source})" if kind.source else ""),
            98,
            initial_indent="  ",
            subsequent_indent=" " * (width + 4),
        )
        for name, kind in MEASURES.items()
    )
