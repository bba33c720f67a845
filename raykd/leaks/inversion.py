"""Images made from one client's upload, beside what the site trained on, what it never showed, and a blind guess."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from raykd.data.patches import batches, training_case
from raykd.federation.client import Client
from raykd.leaks.evidence import Evidence
from raykd.models._base import SegmentationNetwork
from raykd.numerics.image_similarity import correlation, psnr_db, ssim
from raykd.numerics.inversion import Effort, invert_gradient, invert_prototypes
from raykd.numerics.params import Payload, load_state, select
from raykd.numerics.rng import generator

Row = dict[str, Any]
METRICS = {"correlation": (correlation, 0.1), "ssim": (ssim, 0.1), "psnr_db": (psnr_db, 1.0)}
"""How images are compared, and by how much a leak exceeds both comparisons."""
MAX_PATCHES, MAX_GUESSED = 64, 4
"""Patches that reconstructions are compared with, and patches of a step that are guessed together."""


def gradient_inversion(evidence: Evidence, effort: Effort) -> list[Row] | str:
    """What matching the update's direction makes of it; a sentence where the upload holds no whole model."""
    client, received, sent = evidence.client, select(evidence.received, "params"), select(evidence.upload, "params")
    network = client.fresh_network("student")
    if not is_whole(network, sent) or not is_whole(network, received):
        return "no gradient inversion: what is uploaded is no whole model"
    load_state(network, received)
    update = {key.removeprefix("params/"): received[key] - sent[key] for key in sent if sent[key].is_floating_point()}
    shown = _patches(evidence)
    shape = (min(len(evidence.trained_on[0].image_BCIJK), MAX_GUESSED), *shown[0].shape)
    rng = generator(client.scenario.seed, "leaks-gradient", evidence.round_index, client.member.client_id)
    found_BCIJK = invert_gradient(network, update, shape, network.num_classes, effort=effort, rng=rng)
    return _judged(evidence, "gradient_inversion", "received and uploaded model", list(found_BCIJK[:, 0]))


def prototype_inversion(evidence: Evidence, effort: Effort) -> list[Row] | str:
    """What matching the uploaded prototypes makes of them; a sentence where there are none that this attack knows."""
    client, found = evidence.client, _prototypes(evidence.upload)
    layer = getattr(client.scenario.method, "layer", None)
    if found is None or layer is None:
        return "no prototype inversion: the upload holds no mean features of a named layer"
    network, knows = client.fresh_network("student"), "uploaded model"
    if is_whole(network, select(evidence.upload, "params")):
        load_state(network, evidence.upload)
    elif is_whole(network, select(evidence.after, "params")):
        load_state(network, evidence.after)
        knows = "the site's own model, which never left it: the worst case"
    else:
        return "no prototype inversion: no model gives the features"
    network.eval().requires_grad_(False)
    own = [client.member.client_id, evidence.round_index]
    found_BCIJK = invert_prototypes(
        lambda image_BCIJK: network.forward_with_features(image_BCIJK, (layer,))[1][layer],
        *found,
        client.member.training.patch_shape,
        effort=effort,
        rng=generator(client.scenario.seed, "leaks-prototypes", *own),
    )
    return _judged(evidence, "prototype_inversion", knows, [found_BCIJK[0, 0]])


def is_whole(network: SegmentationNetwork, params: Payload) -> bool:
    """Whether a payload holds every parameter and buffer of a network and nothing else."""
    shapes = {f"params/{name}": value.shape for name, value in network.state_dict().items()}
    return {key: value.shape for key, value in params.items()} == shapes


def _judged(evidence: Evidence, attack: str, knows: str, images: Sequence[Tensor]) -> list[Row]:
    """A row a metric: the most that an image resembles a patch that the site trained on, as many patches that it held back, and the
    most that the mean of the latter resembles the former."""
    shown, unseen = _patches(evidence), _unseen(evidence)
    mean_IJK, rows = torch.stack(unseen).mean(dim=0), []
    for metric, (measure, margin) in METRICS.items():

        def most(made: Sequence[Tensor], known: Sequence[Tensor], measure: Any = measure) -> float:
            return max(measure(image, patch) for image in made for patch in known)

        value, others, blind = most(images, shown), most(images, unseen), most([mean_IJK], shown)
        rows.append(
            {"attack": attack, "knows": knows, "metric": metric, "value": value, "unseen": others, "blind": blind,
             "num_members": len(shown), "num_others": len(unseen), "is_leaking": value > max(others, blind) + margin}
        )  # fmt: skip
    return rows


def _patches(evidence: Evidence) -> list[Tensor]:
    """The first patches (I, J, K) that the site trained on in the round, each once; of its cases where there was no training."""
    drawn = [patch for batch in evidence.trained_on for patch in batch.image_BCIJK[:, 0]]
    return drawn[:MAX_PATCHES] or _drawn(evidence, evidence.client.data.labelled, "leaks-shown", MAX_PATCHES // 4)


def _unseen(evidence: Evidence) -> list[Tensor]:
    """As many patches of the site's test cases, drawn as for training."""
    return _drawn(evidence, evidence.client.data.test, "leaks-unseen", len(_patches(evidence)))


def _drawn(evidence: Evidence, cases: Sequence[Any], purpose: str, number: int) -> list[Tensor]:
    client: Client = evidence.client
    training = client.member.training
    rng = generator(client.scenario.seed, purpose, evidence.round_index, client.member.client_id)
    drawn = batches(
        [training_case(case) for case in cases],
        (),
        shape=training.patch_shape,
        augmentation=training.augmentation,
        num_steps=-(-number // 2),
        num_labelled=2,
        num_unlabelled=0,
        foreground=training.foreground,
        rng=rng,
    )
    return [patch for batch in drawn for patch in batch.image_BCIJK[:, 0]][:number]


def _prototypes(upload: Payload) -> tuple[Tensor, Tensor] | None:
    """Mean features (L, F) of classes and their shares (L,) of all cells, of the first patch where every patch has its own."""
    counts = next((upload[key] for key in ("prototypes/count", "prototypes/counts") if key in upload), None)
    if counts is None:
        return None
    counts = counts.float().clamp(min=0.0)
    if "prototypes/sums" in upload:
        mean = upload["prototypes/sums"].float() / counts[..., None].clamp(min=1e-12)
    elif "prototypes/mean" in upload:
        mean = upload["prototypes/mean"].float()
    else:
        return None
    mean_LF, count_L = (mean[0], counts[0]) if mean.ndim == 3 else (mean, counts)
    return (mean_LF, count_L / count_L.sum()) if float(count_L.sum()) > 0 else None
