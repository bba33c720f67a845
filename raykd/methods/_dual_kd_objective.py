"""The loss of `dual_kd` in one local update, from its settings. Symbols in brackets are the paper's or its code's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from raykd.methods._base import LocalContext, labelled_loss
from raykd.methods._dual_kd_settings import DualKDSettings
from raykd.methods._knowledge import feature_terms, proxy_batches
from raykd.numerics.dual_distillation import DualDistillation
from raykd.numerics.hint import hint_adapters
from raykd.numerics.local_sgd import Batch, Loss
from raykd.numerics.params import Payload
from raykd.numerics.prototypes import episodic_loss
from raykd.numerics.response_losses import entropy_threshold, sigmoid_ramp
from raykd.numerics.sent_knowledge import comparable_labels

STEPS_OF_PUBLISHED_RAMP = 54 * 225
"""Of the entropy threshold [I_max]; the reference code counts from 0 in every round and takes some 120 of them."""


def loss_of(
    settings: DualKDSettings,
    context: LocalContext,
    known: tuple[int, ...] | None,
    trust: tuple[float, ...] | None,
    adapters: nn.ModuleDict | None,
    sent: nn.ModuleDict | None,
) -> Loss:
    """All terms of a round's steps: what labels, teacher and sent knowledge say.

    Args:
        known, trust, adapters: as for `distillation_of`.
        sent: what leads to the channels of the statistics that were sent.
    """
    layers, steps, weight = settings.layers(), itertools.count(), settings.prototype_weight
    distillation = distillation_of(settings, context, known, trust, adapters)
    beside = sent_terms(settings, context, sent)

    def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
        logits_BLIJK, features = model.forward_with_features(batch.image_BCIJK, layers)
        now = at_step(settings, distillation, next(steps), context)
        # Background in which other classes hide corrects no teacher and makes no prototype.
        label_BIJK = comparable_labels(batch.label_BIJK, None, batch.outlined(context.annotated))
        terms = now(logits_BLIJK, features, replace(batch, label_BIJK=label_BIJK)) | beside(model, features, batch, now)
        if batch.num_labelled:
            own = slice(batch.num_labelled)
            terms["supervised"] = labelled_loss(logits_BLIJK, batch, context.annotated)
            if weight > 0:
                contrasts = [episodic_loss(features[layer][own], label_BIJK, context.num_classes) for layer in layers]
                terms["prototype"] = weight * sum(contrasts[1:], contrasts[0])
        return terms

    return loss


def distillation_of(
    settings: DualKDSettings,
    context: LocalContext,
    known: tuple[int, ...] | None,
    trust: tuple[float, ...] | None,
    adapters: nn.ModuleDict | None,
) -> DualDistillation:
    """What the round asks for.

    Args:
        known: the foreground classes that the site's teacher was taught; None: all.
        trust: in it, by class; None: 1 for all.
        adapters: of a hint.
    """
    get = settings.get
    progress = sigmoid_ramp(context.round_index + 1, context.num_rounds)
    base = mask_base(settings, context, known)
    return DualDistillation(
        response=get("response"),
        feature=get("feature"),
        response_weight=get("response_weight") * (progress if get("response_ramp") else 1.0),
        feature_weight=get("feature_weight"),
        temperature=settings.temperature_of_response(),
        max_entropy=None if base is None else entropy_threshold(progress, base),
        trust=trust,
        response_options=settings.response_options(),
        certain_share=settings.certain_share if get("mask") == "quantile" else None,
        emphasis=settings.weighs(),
        correct=settings.corrects(context.round_index / max(context.num_rounds - 1, 1)),
        adapters=adapters,
        known=known,
    )


def mask_base(settings: DualKDSettings, context: LocalContext, known: tuple[int, ...] | None) -> int | None:
    """The number of classes of the entropy threshold; None: there is none."""
    return {"two": 2, "classes": context.num_classes if known is None else len(known) + 1}.get(settings.get("mask"))


def at_step(settings: DualKDSettings, distillation: DualDistillation, step: int, context: LocalContext) -> DualDistillation:
    """The same at a step of the round, counted from 0, where ramps begin anew in every round.

    The reference's weight rises by local epoch [e / E], here by step.
    """
    if settings.get("ramps") == "federation":
        return distillation
    weight = settings.get("response_weight") * (sigmoid_ramp(step, context.num_steps) if settings.get("response_ramp") else 1.0)
    base, progress = mask_base(settings, context, distillation.known), sigmoid_ramp(step, STEPS_OF_PUBLISHED_RAMP)
    return replace(distillation, response_weight=weight, max_entropy=None if base is None else entropy_threshold(progress, base))


def adapters_of_hint(settings: DualKDSettings, context: LocalContext, student: Payload) -> nn.ModuleDict | None:
    """For a hint, what leads from the student's channels to the teacher's, as many as a first look at a patch shows."""
    if settings.get("feature") != "hint":
        return None
    batch = next(context.patches(1, num_labelled=1, num_unlabelled=1))
    _, features = context.network(student).forward_with_features(batch.image_BCIJK, settings.taught_layers())
    of_student, of_teacher = ({layer: maps[layer].shape[1] for layer in features} for maps in (features, batch.features))
    return hint_adapters(of_student, of_teacher, context.generator("hint-adapters"))


def joined(hint: nn.ModuleDict | None, sent: nn.ModuleDict | None) -> nn.Module | None:
    """All that is trained beside the student."""
    return hint if sent is None else nn.ModuleList([part for part in (hint, sent) if part is not None])


def sent_terms(
    settings: DualKDSettings, context: LocalContext, adapters: nn.ModuleDict | None
) -> Callable[[Any, Mapping[str, Tensor], Batch, DualDistillation], dict[str, Tensor]]:
    """The terms of what was handed out in a teacher's place: `alignment` and `affinity` of the student's features, and `proxy`, the
    response on proxy patches beside the site's own.

    Args:
        adapters: of the features that were sent.
    """
    match = None if adapters is None else feature_terms(context, adapters, settings.layers(), settings.get("feature_weight"))
    proxies = proxy_batches(context) if settings.sends("responses") else None

    def terms(model: Any, features: Mapping[str, Tensor], batch: Batch, now: DualDistillation) -> dict[str, Tensor]:
        found = {} if match is None else match(features, batch)
        if proxies is not None:
            proxy, alone = next(proxies), replace(now, feature="none", known=context.teacher_classes)
            found["proxy"] = alone(model(proxy.image_BCIJK), {}, proxy)["response"]
        return found

    return terms
