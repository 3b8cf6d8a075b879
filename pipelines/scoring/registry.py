"""The classes of the measures, imported when one is loaded. Loads without torch."""

from typing import TYPE_CHECKING

from pipelines.errors import ScoringError
from pipelines.scoring.scored_clip import Measure
from pipelines.scoring.scorer_weights import ScorerWeights

if TYPE_CHECKING:
    import torch


def load_measure(weights: ScorerWeights, device: "torch.device") -> Measure:
    """Load a measure whose weights were found.

    Raises:
        ScoringError: its weights cannot be loaded.
    """
    name, folder = weights.spec.name, weights.folder
    if name == "frames":
        from pipelines.scoring.frame_statistics import FrameStatisticsMeasure

        return FrameStatisticsMeasure()
    if name == "shapes":
        from pipelines.scoring.shapes_verdict import ShapesVerdict

        return ShapesVerdict()
    if folder is None:
        raise ScoringError(f"measure {name}: no folder of weights was found")
    if name in ("clip", "hps"):
        from pipelines.scoring.text_similarity import ClipScore, Hps

        return (ClipScore if name == "clip" else Hps)(folder, device)
    if name == "reward":
        from pipelines.scoring.image_reward import ImageReward

        return ImageReward(folder, device)
    if name == "vqa":
        from pipelines.scoring.question_answering import QuestionAnswering

        return QuestionAnswering(folder, device, weights.spec.question)
    from pipelines.scoring.image_features import ImageFeatures

    return ImageFeatures(folder, device, is_patch=name == "pfid")


def prepare_device(num_threads: int) -> "torch.device":
    """Set torch's threads in this process, and return its GPU, or the CPU."""
    import torch

    torch.set_num_threads(num_threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
