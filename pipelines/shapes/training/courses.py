"""The courses of training of the Shapes transformers: their clips, their length and their speed."""

from dataclasses import dataclass

from pipelines.shapes.training.text import MAX_TOKENS


@dataclass(frozen=True)
class DenoiserTraining:
    """One course of training: its clips, its length and its speed.

    Args:
        anywhere: clips of any size, place and speed, instead of members of the world.
        num_clips: number of clips; None takes every member of the world.
        learning_rate: peak of AdamW.
        muon_learning_rate: peak of Muon, for the matrices of the blocks; None leaves them to AdamW.
        shape_weight: additional weight of the error where the latents differ from the background,
            about a seventh of them.
        flow_shift: shift of the training noise: more weight on the noisy end, where the content is
            decided.
        max_tokens: captions are padded or cut to this length.
        own_share: share of the states that lie on the model's own paths. Above 0, the course learns
            the exact answers of the whole world (`posterior`).
    """

    name: str
    anywhere: bool
    num_steps: int
    num_clips: int | None
    learning_rate: float
    flow_shift: float
    seed: int
    max_tokens: int = MAX_TOKENS
    muon_learning_rate: float | None = None
    shape_weight: float = 0.0
    own_share: float = 0.0
    batch_size: int = 64
    ema_decay: float = 0.999


EXACT_ANSWERS = DenoiserTraining(
    name="lattice, exact answers",
    anywhere=False,
    num_steps=4000,
    num_clips=None,
    learning_rate=1e-3,
    flow_shift=5.0,
    seed=11,
    muon_learning_rate=4e-3,
    shape_weight=6.0,
    own_share=0.5,
)

# Wan: the first course teaches colours, places and motion; the second teaches sharp shapes of the
# world; the third teaches the longest captions, and more of the second. LTX learns the world itself
# from the beginning; its later courses weigh the shapes more. The last course of both learns exact
# answers.
COURSES: dict[str, tuple[DenoiserTraining, ...]] = {
    "shapes-wan": (
        DenoiserTraining(
            name="anywhere",
            anywhere=True,
            num_steps=7000,
            num_clips=12_000,
            learning_rate=1.5e-3,
            flow_shift=2.0,
            max_tokens=32,
            seed=2,
        ),
        DenoiserTraining(
            name="lattice",
            anywhere=False,
            num_steps=5500,
            num_clips=7_000,
            learning_rate=1e-3,
            flow_shift=3.0,
            max_tokens=32,
            seed=2,
            muon_learning_rate=5e-3,
            shape_weight=6.0,
        ),
        DenoiserTraining(
            name="lattice, long captions",
            anywhere=False,
            num_steps=4200,
            num_clips=7_000,
            learning_rate=7e-4,
            flow_shift=3.0,
            seed=3,
            muon_learning_rate=4e-3,
            shape_weight=6.0,
        ),
        EXACT_ANSWERS,
    ),
    "shapes-ltx": (
        DenoiserTraining(
            name="lattice",
            anywhere=False,
            num_steps=3800,
            num_clips=None,
            learning_rate=2e-3,
            flow_shift=3.0,
            seed=2,
            muon_learning_rate=8e-3,
            shape_weight=4.0,
            batch_size=48,
        ),
        DenoiserTraining(
            name="lattice, shapes",
            anywhere=False,
            num_steps=1600,
            num_clips=None,
            learning_rate=1e-3,
            flow_shift=3.0,
            seed=3,
            muon_learning_rate=6e-3,
            shape_weight=8.0,
            batch_size=48,
        ),
        DenoiserTraining(
            name="lattice, longer",
            anywhere=False,
            num_steps=8000,
            num_clips=None,
            learning_rate=1.2e-3,
            flow_shift=3.0,
            seed=4,
            muon_learning_rate=6e-3,
            shape_weight=8.0,
            batch_size=48,
        ),
        EXACT_ANSWERS,
    ),
    # From shapes-wan. The second course weighs the noisy end: there an image decides the shape.
    "shapes-wan-i2v": (
        DenoiserTraining(
            name="first images",
            anywhere=False,
            num_steps=1500,
            num_clips=None,
            learning_rate=1e-3,
            flow_shift=3.0,
            seed=5,
            muon_learning_rate=4e-3,
            shape_weight=6.0,
        ),
        DenoiserTraining(
            name="first images, noisier",
            anywhere=False,
            num_steps=650,
            num_clips=None,
            learning_rate=7e-4,
            flow_shift=8.0,
            seed=6,
            muon_learning_rate=3e-3,
            shape_weight=8.0,
        ),
        DenoiserTraining(
            name="first images, longer",
            anywhere=False,
            num_steps=3000,
            num_clips=None,
            learning_rate=1e-3,
            flow_shift=5.0,
            seed=7,
            muon_learning_rate=4e-3,
            shape_weight=8.0,
        ),
    ),
}
