"""The learning rate of each step."""

from __future__ import annotations

import math

from rssearch.config.settings import Recipe


def learning_rate(recipe: Recipe, step: int, steps: int, warmup: int) -> float:
    """Learning rate of one step.

    It grows linearly over the first `warmup` steps and reaches recipe.lr at the last of them. Then ``cosine`` falls
    from recipe.lr towards 0, which the step after the last would have; ``step`` is multiplied by gamma at each
    milestone, a share of all steps; ``constant`` stays.

    Args:
        recipe: schedule, lr, milestones and gamma are used.
        step: counted from 0 over all epochs.
        steps: of all epochs.
        warmup: steps of the warm-up.
    """
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    match recipe.schedule:
        case "cosine":
            return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        case "step":
            return recipe.lr * recipe.gamma ** sum(step >= round(share * steps) for share in recipe.milestones)
        case "constant":
            return recipe.lr
