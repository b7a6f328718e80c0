"""The filters in torch, for a GPU and for TorchScript files: what `preprocessing.filtered` gives, at any length."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgbatch.models.preprocessing import BANDPASS, NOTCH


class Filters(nn.Module):
    """The band-pass, then the notch, each forwards and backwards, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.both_ways = both_ways  # a file has it compiled
        for name, each in (("bandpass", BANDPASS), ("notch", NOTCH)):
            self.register_buffer(name, torch.tensor(each.by_block))
            self.register_buffer(f"{name}_at_rest", torch.tensor(each.at_rest))

    def forward(self, signals: Tensor) -> Tensor:
        """(B, T, leads) in mV at 100 Hz -> the same shape, float64."""
        by_time = signals.double().transpose(0, 1)
        x = by_time.flatten(1)  # (T, B * leads)
        x = self.both_ways(x, self.get_buffer("bandpass"), self.get_buffer("bandpass_at_rest"), BANDPASS.padding)
        x = self.both_ways(x, self.get_buffer("notch"), self.get_buffer("notch_at_rest"), NOTCH.padding)
        return x.view_as(by_time).transpose(0, 1)


def both_ways(x: Tensor, by_block: Tensor, at_rest: Tensor, padding: int) -> Tensor:
    """(T, n) forwards and backwards, the ends padded with the signal turned around its first and its last sample."""
    before, after = x[1 : padding + 1].flip(0), x[-padding - 1 : -1].flip(0)
    x = torch.cat([2 * x[:1] - before, x, 2 * x[-1:] - after])
    block = by_block.shape[0] - at_rest.shape[0]
    steps = x.shape[0]
    for _ in range(2):
        state = torch.outer(at_rest, x[0])
        filtered: list[Tensor] = []
        for part in F.pad(x, [0, 0, 0, (block - steps % block) % block]).split(block):
            after = by_block @ torch.cat([part, state])
            filtered.append(after[:block])
            state = after[block:]
        x = torch.cat(filtered)[:steps].flip(0)
    return x[padding:-padding]
