"""Local steps with clipped and noised gradients of patients: DP-SGD (Abadi et al., CCS 2016, https://arxiv.org/abs/1607.00133).

One backward pass a patient gives the gradients, whatever the network's layers and the loss are; Opacus clips, adds noise and
scales. The unit is a patient: every step draws which of the site's patients take part, each on its own with the same probability
(Poisson sampling, as the accountant assumes), and all patches of one make up one gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raykd.data.patches import TrainingCase, collate, draw_patch
from raykd.numerics.local_sgd import Batch, Gradients, Loss
from raykd.scenario.privacy import RecordPrivacy
from raykd.scenario.training import Augmentation


def sampling(num_patients: int, batch_size: int) -> tuple[float, int]:
    """With which probability each patient takes part in a step, and with how many patches, so that about `batch_size` are drawn."""
    return min(1.0, batch_size / num_patients), max(1, batch_size // num_patients)


def patients(cases: Sequence[Any]) -> list[list[int]]:
    """The positions of cases by patient, in the order in which patients are first met."""
    groups: dict[str, list[int]] = {}
    for index, case in enumerate(cases):
        groups.setdefault(case.patient_id, []).append(index)
    return list(groups.values())


def poisson_batches(
    cases: Sequence[Sequence[TrainingCase]],
    *,
    batch_size: int,
    shape: tuple[int, int, int],
    augmentation: Augmentation,
    num_steps: int,
    foreground: float,
    rng: torch.Generator,
) -> Iterator[Batch]:
    """One batch a step: `sampling` says how many patches each patient that takes part gives, one after the other. It may be empty.

    Args:
        cases: labelled, by patient.
        batch_size: patches expected in a step.
        shape, augmentation, foreground: as for `draw_patch`.
        num_steps: how many batches.
        rng: source of every draw.
    """
    if not cases:
        return
    rate, num_patches = sampling(len(cases), batch_size)
    for _ in range(num_steps):
        takes_part = torch.rand(len(cases), generator=rng) < rate
        drawn = [
            own[int(torch.randint(len(own), (), generator=rng))]
            for own, is_in in zip(cases, takes_part.tolist(), strict=True)
            if is_in
            for _ in range(num_patches)
        ]
        patches = [draw_patch(case, shape, augmentation, rng, foreground=foreground) for case in drawn]
        empty = Batch(torch.zeros(0, 1, *shape), torch.zeros(0, *shape, dtype=torch.long), 0)
        yield collate(patches, len(patches)) if patches else empty


def private_gradients(
    optimiser: torch.optim.Optimizer, words: RecordPrivacy, num_patients: int, batch_size: int, rng: torch.Generator
) -> Gradients:
    """What `local_sgd` is to do in the place of a backward pass over the batch.

    Args:
        optimiser: over the parameters that are trained.
        words: how much is clipped and how much noise is added.
        num_patients, batch_size: as for `poisson_batches`; the sum is divided by the expected number of patients in a step.
        rng: source of the noise.
    """
    from opacus.optimizers import DPOptimizer

    rate, num_patches = sampling(num_patients, batch_size)
    moving = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    device = moving[0].device
    private = DPOptimizer(
        optimiser,
        noise_multiplier=words.noise_multiplier,
        max_grad_norm=words.max_grad_norm,
        expected_batch_size=rate * num_patients,  # it divides by it, and a mean need not be whole
        generator=rng if device.type == "cpu" else _on(device, rng),
    )

    def gradients(model: nn.Module, batch: Batch, loss: Loss) -> dict[str, Tensor]:
        parts = [batch.part(start, start + num_patches) for start in range(0, batch.num_labelled, num_patches)]
        found, told = [], []
        for part in parts:
            private.zero_grad(set_to_none=True)
            terms = loss(model, part)
            torch.stack(list(terms.values())).sum().backward()
            found.append([torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in moving])
            told.append({name: value.detach() for name, value in terms.items()})
        private.zero_grad(set_to_none=True)
        for index, parameter in enumerate(moving):
            own = [gradient[index] for gradient in found]
            parameter.grad_sample = torch.stack(own) if own else parameter.new_zeros(0, *parameter.shape)
        private.pre_step()
        for parameter in moving:
            parameter.grad_sample = parameter.summed_grad = None
        return {name: torch.stack([terms[name] for terms in told]).mean() for name in (told[0] if told else ())}

    return gradients


def _on(device: torch.device, rng: torch.Generator) -> torch.Generator:
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))
