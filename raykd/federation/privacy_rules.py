"""What privacy cannot be had for, said before anything starts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from torch import nn

from raykd.federation.accountant import HOW_TO_INSTALL, is_installed
from raykd.methods._base import Method
from raykd.models._base import build_network
from raykd.scenario.privacy import ClientPrivacy


def privacy_problems(method: Method) -> Iterator[tuple[str, str]]:
    """Key path and rule of all that the method's scenario asks of privacy and cannot have."""
    privacy = method.scenario.privacy
    if privacy is None:
        return
    if not is_installed():
        yield "privacy", HOW_TO_INSTALL
    if names := _with_batch_norm(method):
        yield (
            "privacy",
            "needs networks without batch normalisation, whose running statistics mix patches and may turn negative under noise; "
            f"give network {', '.join(names)} norm: group or norm: instance",
        )
    if privacy.client:
        yield from _client_problems(method, privacy.client)
    if privacy.records and not method.learns_by_gradients_alone:
        yield (
            "privacy.records",
            f"method {method.settings.name} uses a site's cases otherwise than by gradients of labelled patches, and noise on "
            "gradients does not protect that; use privacy.client, or a method such as fedavg",
        )


def _client_problems(method: Method, words: ClientPrivacy) -> Iterator[tuple[str, str]]:
    name, path = method.settings.name, "privacy.client"
    if method.pools_data or not method.kinds:
        yield path, f"method {name} uploads nothing that could be protected; leave privacy.client out"
    elif words.delta >= 1 / (num_sites := len(method.scenario.members())):
        yield (
            f"{path}.delta",
            f"must be below 1 / {num_sites}, one over the number of sites, got {words.delta:g}: at that delta publishing the "
            "update of one site at random would count as private",
        )
    elif method.noise == "none":
        yield (
            path,
            f"method {name} uploads counts, weights, classes or parts whose number depends on data, and noise on them breaks it; "
            "use a method such as fedavg or dual_kd",
        )
    elif words.where == "server" and method.noise != "sum":
        yield (
            f"{path}.where",
            f"method {name} takes more from uploads than their plain mean, so that noise on the sum does not protect them; "
            "use where: client",
        )
    elif words.where == "server" and getattr(method.settings, "weighting", "uniform") != "uniform":
        yield (
            f"{path}.where",
            "needs equal weights, since one client's share in a weighted mean has no bound that is known beforehand; "
            "set method.weighting: uniform, or use where: client",
        )


def _with_batch_norm(method: Method) -> list[str]:
    scenario = method.scenario
    own = [member.group.student.network for member in scenario.members() if member.group.student]
    networks = dict.fromkeys([method.student_network(), *own])
    return sorted({network.name for network in networks if _has_batch_norm(network, len(scenario.classes) + 1)})


@functools.cache
def _has_batch_norm(network: Any, num_classes: int) -> bool:
    batched = nn.modules.batchnorm._BatchNorm
    return any(isinstance(module, batched) for module in build_network(network, num_classes, 0).modules())
