"""What teachers say, corrected by what they hardly see: how far each lead goes up and down, with age and sex.

A small network learns the labels from the teachers' answers and those numbers. For each fold there are two that have
not seen it, so that nothing that is said of a record was learned by heart. (Wolpert 1992, *Stacked generalization*.)
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgbatch.models.network import extremes
from ecgbatch.models.training.examples import Examples
from ecgbatch.models.training.recipe import TRAINING_FOLDS, VALIDATION_FOLD

HIDDEN, DROPOUT = 64, 0.3
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 25, 64, 2e-3, 0.1
SEEDS = 2
AT_ONCE = 500  # records whose extremes are taken, for the sake of memory
LEAST = 1e-4
"""A probability that stands for those below it, whose logits would outweigh all others."""


def corrected(said: Tensor, examples: Examples, window: int) -> Tensor:
    """What teachers say of each record (R, K + S) -> the same, with other answers about the K classes.

    `window` is of how many samples the extremes are taken, see `NetworkConfig`. Records of fold 9 get the mean of what
    all the small networks say.
    """
    classes = examples.labels.shape[1]
    inputs = _inputs(said, examples, window)
    answers = said.clone()
    chosen = examples.of_fold(VALIDATION_FOLD).to(said.device)
    answers[chosen, :classes] = 0
    for fold in TRAINING_FOLDS:
        unseen = examples.of_fold(fold).to(said.device)
        answers[unseen, :classes] = 0
        for seed in range(SEEDS):
            fitted = _fitted(inputs, examples, fold, 10 * fold + seed)
            with torch.inference_mode():
                answers[unseen, :classes] += torch.sigmoid(fitted(inputs[unseen])) / SEEDS
                answers[chosen, :classes] += torch.sigmoid(fitted(inputs[chosen])) / (SEEDS * len(TRAINING_FOLDS))
    return answers


def _inputs(said: Tensor, examples: Examples, window: int) -> Tensor:
    """(R, K + S + 26): logits, age, sex and extremes, each scaled by its mean and deviation in folds 1 to 8."""
    reached = [torch.cat(extremes(some, window), dim=1) for some in examples.signals.split(AT_ONCE)]
    inputs = torch.cat([torch.logit(said, LEAST), examples.metadata, torch.cat(reached)], dim=1)
    known = inputs[examples.folds != VALIDATION_FOLD]
    return (inputs - known.mean(0)) / (known.std(0) + 1e-6)


def _fitted(inputs: Tensor, examples: Examples, held_out: int, seed: int) -> nn.Module:
    taken = (examples.folds != VALIDATION_FOLD) & (examples.folds != held_out)
    records = taken.nonzero().squeeze(1)
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(inputs.shape[1], HIDDEN),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(HIDDEN, examples.labels.shape[1]),
    ).to(inputs.device)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    batch = min(BATCH, len(records))
    steps = len(records) // batch * EPOCHS
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(len(records))).to(inputs.device)
        for chosen in records[order].split(batch)[: len(records) // batch]:
            loss = F.binary_cross_entropy_with_logits(network(inputs[chosen]), examples.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return network.eval()
