"""The settings of federated learning with dual knowledge distillation, and its presets. Symbols in brackets are the paper's or
its code's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from torch import Tensor

from raykd.methods._thinning import ThinnedSettings
from raykd.numerics.aggregation import Weighting
from raykd.numerics.boundary import Emphasis
from raykd.numerics.dual_distillation import PUBLISHED_TEMPERATURES
from raykd.numerics.teacher_bias import adjust_knowledge, anneal_teacher
from raykd.scenario.fields import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

FeatureName = Literal[
    "channel_kl", "attention", "pairwise", "region_affinity", "intra_class", "cka", "cka_debiased", "hint", "none"
]
KnowledgeName = Literal["model", "features", "responses"]
NAMES = "start response response_weight response_ramp mask feature feature_weight feature_layers teacher trust".split()  # noqa: SIM905
PAPER = ("cold", "softmax_mse", 0.1, True, "classes", "channel_kl", 1.0, ("bottleneck",), "ema", False)
ADVISED = ("warm", "dice_kl", 1.0, False, "none", "none", 0.1, ("decoder_1",), "adapted", True)
INTENDED = {"ramps": "federation", "normaliser": "classes"}
PRESETS: dict[str, dict[str, Any]] = {
    "paper-code": dict(zip(NAMES, PAPER, strict=True)) | {"mask": "two", "ramps": "round", "normaliser": "two"},
    "paper-intent": dict(zip(NAMES, PAPER, strict=True)) | INTENDED,
    "raykd": dict(zip(NAMES, ADVISED, strict=True)) | INTENDED,
}
WITHOUT_TEACHER = {"start": "cold", "feature": "none", "teacher": "frozen", "trust": False, "labelled": "none"}
"""What these settings are, whatever the preset, at sites that have no teacher."""


class DualKDSettings(ThinnedSettings):
    """The settings of `dual_kd`; those left out are its preset's."""

    name: Literal["dual_kd"]
    preset: Literal["paper-code", "paper-intent", "raykd"] = "raykd"
    """Gives every setting that is not given: the published method as its code runs, but for what is an error whoever looks at it
    (mixed-up data, teachers and distances); as its text means it; or what this toolkit advises."""
    knowledge: KnowledgeName | Annotated[tuple[KnowledgeName, ...], Field(min_length=1)] = "model"
    """How the repository's knowledge travels, once, before the first round; several as a list. `model`: the teacher's weights.
    `features`: of its feature maps, by class the mean and variance, and by pair of classes the cosine. `responses`: its soft labels
    of the images of `proxy`. Without `model` no weights of the repository's leave it, and sites have no teacher."""
    weighting: Weighting = "uniform"
    """p_k of the average of the students."""
    start: Literal["cold", "warm"] | None = None
    """Students begin at random, or from a model of their own size trained on the repository."""
    num_unlabelled: NonNegativeInt = 2
    """Unlabelled patches beside the labelled ones in every step [B_u]."""
    response: Literal["softmax_mse", "kl", "dice_kl", "dkd", "channel_wise", "none"] | None = None
    """Loss on soft labels: squared error of probabilities; KL divergence; half KL, half soft Dice; `dkd`, which parts how sure the
    teacher is of a voxel's class from what it says of the others; `channel_wise`, which compares where in the patch a class lies.
    """
    response_weight: NonNegativeFloat | None = None
    """[alpha]; channel_wise was published with 3."""
    response_ramp: bool | None = None
    """Whether that weight rises as exp(-5 (1 - r/R)^2) over the federation [lambda]."""
    temperature: PositiveFloat | None = None
    """Of the responses but softmax_mse [T]; None: 4 for dkd and channel_wise, as published, and 1 for the others."""
    non_target_weight: NonNegativeFloat = 2.0
    """Of what dkd learns of the other classes [beta]; published with 8 for a hundred classes."""
    emphasis: Literal["none", "boundary", "classes", "both"] = "none"
    """Which voxels weigh more in the response: those near the teacher's boundaries in mm, those of small classes, as the inverse
    square root of a class's volume, or the product of both."""
    boundary_gain: NonNegativeFloat = 5.0
    """A voxel on a boundary weighs 1 + gain [kappa]."""
    boundary_width_mm: PositiveFloat = 3.0
    """Standard deviation of the Gaussian in which that weight falls to 1 [sigma]."""
    labelled: Literal["none", "adjusted", "annealed"] = "none"
    """What labelled patches learn from the teacher beside their labels: nothing; its soft labels, with the probabilities of its
    class and the true one swapped where it errs; or its soft labels, mixed linearly into the labels from the first round, all
    teacher, to the last, all label [rho]."""
    num_passes: NonNegativeInt = 8
    """Stochastic teacher passes behind a soft label and its entropy [T]; 0: one clean pass."""
    input_noise: NonNegativeFloat = 0.1
    """Of the noise on their z-scored inputs."""
    ramps: Literal["federation", "round"] | None = None
    """Whether weight and entropy threshold ramp over the rounds, or begin anew in every round as in the reference code, whose
    threshold then ramps over 12150 steps whatever their number and all but stands still."""
    normaliser: Literal["classes", "two"] | None = None
    """What softmax_mse is divided by: the number of classes, or the 2 of the task that the reference code took it from."""
    mask: Literal["classes", "two", "quantile", "none"] | None = None
    """Voxels are learnt from where the entropy is under (0.75 + 0.25 r) ln(base); the base is the number of classes, or 2 as
    in the reference code [H]. `quantile`: the `certain_share` of a step's voxels with the lowest entropy."""
    certain_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Of the voxels, for `mask: quantile`; voxels of equal entropy are kept or left together."""
    feature: FeatureName | None = None
    """Loss on feature maps: KL divergence over channels, which needs one network on both sides; attention maps; cosines between
    places, between classes, or between places and their class; alignment of centred kernels, plain or without the bias of few
    places; `hint`, squared error through a 1x1x1 convolution that is trained beside the student and never leaves the site."""
    feature_weight: NonNegativeFloat | None = None
    """Published with 100 for hint, 200 for intra_class and 1 for cka."""
    feature_layers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Named layers of both networks."""
    teacher: Literal["frozen", "ema", "adapted"] | None = None
    """`frozen` as it was sent; `ema`: from `ema_start_round` on, each site moves its teacher by a = min(r/R, 0.99) towards the
    received student; `adapted`: each site first trains its teacher on its own labels for `adapt_steps`."""
    ema_start_round: NonNegativeInt = 7
    adapt_steps: NonNegativeInt = 200
    trust: bool | None = None
    """Whether distillation of a class fades out where the received student is as good as the teacher on the site's labels."""
    knowledge_patches: PositiveInt = 32
    """Patches, of the repository's cases for `features` and of the proxy's for `responses`, that the server looks at."""
    kept_classes: PositiveInt | None = 2
    """Of a soft label that is sent, so many of the most probable classes; the others share what is left of one. None: all."""
    prototype_weight: NonNegativeFloat = 0.0
    """Of an auxiliary term: features of a labelled patch are drawn to the prototypes of the step's other labelled patches in their
    class and away from those of other classes."""

    @model_validator(mode="after")
    def _nothing_is_asked_of_a_teacher_that_is_not_sent(self) -> DualKDSettings:
        if not self.sends("responses") and self.kept().leaves_out:
            raise ValueError(
                "kept_share, kept_confidence and kept_within_mm are of responses; add these to knowledge, or drop them"
            )
        if self.sends("model"):
            return self
        wrong = [name for name, value in WITHOUT_TEACHER.items() if getattr(self, name) not in (None, value)]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)} must have a teacher or its weights at the sites; add model to knowledge, or drop it"
            )
        if self.sends("responses") and self.response == "none":
            raise ValueError("responses that are sent must be learnt from by a loss; choose a response, or drop it from knowledge")
        return self

    def sends(self, name: KnowledgeName) -> bool:
        """Whether the repository's knowledge travels in this way."""
        return name == self.knowledge if isinstance(self.knowledge, str) else name in self.knowledge

    def get(self, name: str) -> Any:
        """A setting as given, else as its preset has it."""
        value = getattr(self, name)
        if name in WITHOUT_TEACHER and not self.sends("model"):
            return WITHOUT_TEACHER[name]
        return PRESETS[self.preset][name] if value is None else value

    def layers(self) -> tuple[str, ...]:
        """The named layers that anything is learnt from or on."""
        is_used = self.sends("features") or self.prototype_weight > 0
        return tuple(self.get("feature_layers")) if is_used else self.taught_layers()

    def named_layers(self) -> tuple[str, ...]:
        """All that a network must have: those that are used, and those that were named, used or not."""
        return tuple(dict.fromkeys([*self.layers(), *(self.feature_layers or ())]))

    def taught_layers(self) -> tuple[str, ...]:
        """The named layers whose maps students learn from a teacher at the site."""
        return () if self.get("feature") == "none" else tuple(self.get("feature_layers"))

    def temperature_of_response(self) -> float:
        """As given, else as published."""
        return self.temperature or PUBLISHED_TEMPERATURES.get(self.get("response"), 1.0)

    def response_options(self) -> dict[str, float]:
        """What the response has besides."""
        if self.get("response") == "softmax_mse" and self.get("normaliser") == "two":
            return {"normaliser": 2.0}
        return {"non_target_weight": self.non_target_weight} if self.get("response") == "dkd" else {}

    def weighs(self) -> Emphasis | None:
        """Weights of voxels in the response; None: all alike."""
        if self.emphasis == "none":
            return None
        boundary, classes = self.emphasis in ("boundary", "both"), self.emphasis in ("classes", "both")
        return Emphasis(boundary, classes, self.boundary_gain, self.boundary_width_mm)

    def corrects(self, progress: float) -> Callable[[Tensor, Tensor], Tensor] | None:
        """What makes the target of a labelled patch from soft label and label; None: labels alone teach it.

        Args:
            progress: from 0 in the first round to 1 in the last.
        """
        if self.labelled == "none":
            return None
        return adjust_knowledge if self.labelled == "adjusted" else partial(anneal_teacher, share=progress)
