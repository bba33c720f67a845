"""What a teacher says of a site's cases: computed once for each case and version of the teacher, kept in memory and on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from raykd.data.cache import cached, content_key
from raykd.data.patches import Knowledge, TrainingCase
from raykd.federation.inference import predict_features, soft_label
from raykd.methods._context import KnowledgeRequest
from raykd.models._base import SegmentationNetwork
from raykd.numerics.known_classes import merge_probs
from raykd.numerics.response_losses import entropy
from raykd.numerics.rng import generator


def payload_hash(payload: Mapping[str, Tensor]) -> str:
    """SHA-256 (32 hex digits) of the tensors and their names: the version of a model."""
    digest = hashlib.sha256()
    for key in sorted(payload):
        digest.update(key.encode())
        digest.update(payload[key].detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


INFERENCE = 2
"""Raised when networks come to be run over volumes in another way, so that what was cached before is not read again."""


def image_hash(image_IJK: Tensor) -> str:
    """SHA-256 (32 hex digits) of a volume."""
    return hashlib.sha256(image_IJK.contiguous().numpy().tobytes()).hexdigest()[:32]


def compute_knowledge(
    network: SegmentationNetwork,
    case: TrainingCase,
    *,
    request: KnowledgeRequest,
    seed: int,
    version: str,
    window: tuple[int, int, int] | None = None,
) -> Knowledge:
    """The mean soft label of the stochastic passes, its entropy, and the feature maps of a clean pass.

    A network that normalises over its input, and that a site adapted on patches, says something else of a whole volume than of
    patches: the students, who learn patches, are told what it says of these.

    The reference takes its target from one more noisy pass and draws all passes anew at every step; drawn once, the mean of
    the passes is both target and uncertainty, and nine teacher passes a step become none.
    """
    rng = generator(seed, "knowledge", case.case_id, version)
    probs = soft_label(
        network, case.image_IJK, num_passes=request.num_passes, input_noise=request.input_noise, rng=rng, window=window
    )
    probs = merge_probs(probs[None], request.known)[0]
    features = predict_features(network, case.image_IJK, request.layers, window) if request.layers else {}
    return Knowledge(
        soft_label_LIJK=probs.half(),
        entropy_IJK=entropy(probs.half().float()[None])[0].half(),
        features={layer: value.half() for layer, value in features.items()},
        strides={layer: network.layers[layer] for layer in features},
    )


def cached_knowledge(
    network: SegmentationNetwork,
    case: TrainingCase,
    *,
    request: KnowledgeRequest,
    seed: int,
    version: str,
    window: tuple[int, int, int] | None = None,
) -> Knowledge:
    """`compute_knowledge`, read from the cache on disk where this case met this version of the teacher before."""

    def compute() -> tuple[dict[str, Tensor], dict[str, Any]]:
        fresh = compute_knowledge(network, case, request=request, seed=seed, version=version, window=window)
        tensors = {"soft_label": fresh.soft_label_LIJK, **{f"feature/{layer}": value for layer, value in fresh.features.items()}}
        return tensors, {"strides": {layer: list(stride) for layer, stride in fresh.strides.items()}}

    key = content_key(
        case=case.case_id,
        image=image_hash(case.image_IJK),
        teacher=version,
        passes=request.num_passes,
        noise=request.input_noise,
        layers=request.layers,
        known=request.known,
        seed=seed,
        threads=torch.get_num_threads(),
        device=next(network.parameters()).device.type,
        window=window,
        inference=INFERENCE,
    )
    tensors, values = cached("knowledge", key, compute)
    return Knowledge(
        soft_label_LIJK=tensors["soft_label"],
        entropy_IJK=entropy(tensors["soft_label"].float()[None])[0].half(),
        features={name.removeprefix("feature/"): value for name, value in tensors.items() if name.startswith("feature/")},
        strides={layer: (i, j, k) for layer, (i, j, k) in values["strides"].items()},
    )
