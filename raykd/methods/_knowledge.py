"""The repository's knowledge without its teacher's weights: what the server gathers before the first round, and what a site makes
of it. It is read from the teacher's clean pass over patches of labelled cases, and of the images of `proxy`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from raykd.methods._base import LocalContext
from raykd.methods._thinning import named, said_of_some
from raykd.models._base import SegmentationNetwork
from raykd.numerics.hint import hint_adapters
from raykd.numerics.known_classes import merge_probs
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload, load_state, select
from raykd.numerics.prototypes import ClassStatistics, class_statistics
from raykd.numerics.response_losses import entropy
from raykd.numerics.sent_knowledge import (
    affinity_loss,
    alignment_loss,
    class_cosines,
    comparable_labels,
    from_top_classes,
    top_classes,
)
from raykd.numerics.thinned_labels import Kept, completed, restored

BEFORE = -1
"""The round whose proxy patches carry soft labels."""
Terms = Callable[[Mapping[str, Tensor], Batch], dict[str, Tensor]]
"""Loss terms of a student's feature maps by layer and a batch."""


def gather_features(context: LocalContext, teacher: SegmentationNetwork, layers: tuple[str, ...], num_patches: int) -> Payload:
    """Of every layer: mean and variance (L, F) and number of cells (L,) by class, and the mean cosine by pair of classes with the
    number of patches behind it. Kilobytes.

    Args:
        context: the server's.
        teacher: in evaluation mode.
        layers: named.
        num_patches: of labelled cases, looked at in pairs.
    """
    found: dict[str, ClassStatistics] = {}
    cosines: dict[str, Tensor] = {}
    pairs: dict[str, Tensor] = {}
    for batch in context.patches(-(-num_patches // 2), purpose="knowledge"):
        with torch.no_grad():
            features = teacher.forward_with_features(batch.image_BCIJK, layers)[1]
        label_BIJK = comparable_labels(batch.label_BIJK, context.teacher_classes, batch.outlined(context.annotated))
        for layer, feature in features.items():
            fresh = class_statistics(feature, label_BIJK, context.num_classes)
            found[layer] = found[layer].merge(fresh) if layer in found else fresh
            cosine_BP, both_BP = class_cosines(feature, label_BIJK, context.num_classes)
            cosines[layer] = cosines.get(layer, 0.0) + (cosine_BP * both_BP).sum(dim=0)
            pairs[layer] = pairs.get(layer, 0.0) + both_BP.sum(dim=0, dtype=torch.float32)
    sent = {f"prototypes/{name}.{layer}": value for layer in found for name, value in vars(found[layer]).items()}
    sent |= {f"prototypes/cosine.{layer}": cosines[layer] / pairs[layer].clamp(min=1.0) for layer in found}
    sent |= {f"prototypes/num_patches.{layer}": pairs[layer] for layer in found}
    return {key: value.cpu() for key, value in sent.items()}


def gather_responses(context: LocalContext, teacher: SegmentationNetwork, num_patches: int, kept: Kept) -> Payload:
    """Soft labels of proxy patches, in half precision, with the most probable classes of each voxel that is sent."""
    found: list[Tensor] = []
    spacings: list[list[float]] = []
    for batch in context.proxy_patches(-(-num_patches // 2), round_index=BEFORE):
        with torch.no_grad():
            probs_BLIJK = torch.softmax(teacher(batch.image_BCIJK), dim=1)
        found.append(merge_probs(probs_BLIJK, context.teacher_classes).cpu())
        spacings += [] if batch.spacing_mm_B3 is None else batch.spacing_mm_B3.tolist()
    probs_NLIJK = torch.cat(found)
    if not kept.leaves_out:
        values, classes = top_classes(probs_NLIJK, kept.num_classes or context.num_classes)
        return {"logits/values": values, "logits/classes": classes}
    return said_of_some(probs_NLIJK, probs_NLIJK, range(context.num_classes), spacings, kept)


def proxy_batches(context: LocalContext) -> Iterator[Batch]:
    """The proxy patches with the soft labels that were handed out, two a batch, in shuffled passes without end; the entropy is
    infinite in voxels that were not sent.
    """
    sent = named(context.handed_out)
    patches = context.proxy_patches(len(sent.get("sent", sent["values"])) // 2, round_index=BEFORE)
    said_of, rng = _reader(sent, context.num_classes, patches[0].image_BCIJK.shape[-1]), context.generator("proxy-order")
    while True:
        for index in torch.randperm(len(patches), generator=rng).tolist():
            soft_BLIJK, entropy_BIJK = said_of(slice(2 * index, 2 * index + 2))
            batch = replace(patches[index], soft_label_BLIJK=soft_BLIJK, entropy_BIJK=entropy_BIJK)
            yield batch.to(str(batch.image_BCIJK.device))


def _reader(sent: Mapping[str, Tensor], num_classes: int, edge: int) -> Callable[[slice], tuple[Tensor, Tensor]]:
    """Gives soft labels and entropies of some patches, `edge` voxels long on the last axis."""
    if "sent" not in sent:

        def whole(own: slice) -> tuple[Tensor, Tensor]:
            soft_BLIJK = from_top_classes(sent["values"][own], sent["classes"][own], num_classes)
            return soft_BLIJK, entropy(soft_BLIJK)

        return whole
    values_NLIJK, is_said_NLIJK = (part[..., :edge] for part in restored(sent, num_classes))

    def some(own: slice) -> tuple[Tensor, Tensor]:
        soft_BLIJK = completed(values_NLIJK[own], is_said_NLIJK[own])
        return soft_BLIJK, entropy(soft_BLIJK).masked_fill(~is_said_NLIJK[own].any(dim=1), torch.inf)

    return some


def adapters_of(context: LocalContext, state: Payload, student: Mapping[str, int]) -> nn.ModuleDict:
    """For every layer with other channels than the teacher's, what leads from the student's to those, as the site left it.

    Args:
        state: the site's.
        student: channels by layer.
    """
    teacher = {layer: context.handed_out[f"prototypes/mean_CF.{layer}"].shape[1] for layer in student}
    unlike = {layer: channels for layer, channels in student.items() if channels != teacher[layer]}
    adapters = hint_adapters(unlike, teacher, context.generator("sent-features"))
    if kept := select(state, "control"):
        load_state(adapters, kept, "control")
    return adapters


def feature_terms(context: LocalContext, adapters: nn.ModuleDict, layers: tuple[str, ...], weight: float) -> Terms:
    """The terms `alignment`, of class means, and `affinity`, of cosines between them, on labelled patches; summed over layers."""
    sent, num_classes = context.handed_out, context.num_classes

    def terms(features: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        if not batch.num_labelled:
            return {}
        label_BIJK = comparable_labels(batch.label_BIJK, context.teacher_classes, batch.outlined(context.annotated))
        aligned, related = [], []
        for layer in layers:
            own = features[layer][: batch.num_labelled]
            of = {name: sent[f"prototypes/{name}.{layer}"].to(own) for name in ("mean_CF", "variance_CF", "count_C")}
            cosine_P, seen_P = (sent[f"prototypes/{name}.{layer}"].to(own.device) for name in ("cosine", "num_patches"))
            related.append(affinity_loss(own, label_BIJK, cosine_P, seen_P > 0, num_classes))
            adapted = adapters[layer](own) if layer in adapters else own
            aligned.append(alignment_loss(adapted, label_BIJK, ClassStatistics(**of)))
        return {"alignment": weight * torch.stack(aligned).sum(), "affinity": weight * torch.stack(related).sum()}

    return terms
