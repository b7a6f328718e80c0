"""What is done to the signals of a batch before the network sees them in training."""

from functools import cache

import torch
from torch import Tensor

from ecgbatch.models.training.recipe import TrainingSettings
from ecgbatch.records.leads import LEAD_SETS, LEADS


def augmented(signals: Tensor, chosen: Tensor, settings: TrainingSettings) -> Tensor:
    """Records (R, 1000, 12), of which those at `chosen` (B,) -> (B, crop, 12).

    Cut at random, louder or softer, noisier, with silent leads: on the signals' device, by torch's random numbers.
    """
    batch, (_, samples, leads) = len(chosen), signals.shape
    device = signals.device
    first = torch.rand(batch, 1, device=device).mul(samples - settings.crop + 1).long()
    cut = signals[chosen.unsqueeze(1), first + torch.arange(settings.crop, device=device)]
    cut = cut * (1 + settings.amplitude * (2 * torch.rand(batch, 1, 1, device=device) - 1))
    cut = cut + settings.noise * torch.randn_like(cut)
    heard = torch.rand(batch, 1, leads, device=device) >= settings.lead_dropout
    if settings.lead_sets:
        heard = heard & _one_set(batch, settings.lead_sets, device).unsqueeze(1)
    return cut * heard


def _one_set(batch: int, chance: float, device: torch.device) -> Tensor:
    """(B, 12): the leads of one of LEAD_SETS, all of them alike, by the chance given; else every lead."""
    sets = _lead_sets(device)
    which = torch.rand(batch, device=device).mul(len(sets)).long()
    return sets[which] | (torch.rand(batch, 1, device=device) >= chance)


@cache
def _lead_sets(device: torch.device) -> Tensor:
    """Which leads are in which of LEAD_SETS: (sets, 12)."""
    return torch.tensor([[lead in kept for lead in LEADS] for kept in LEAD_SETS.values()]).to(device)
