"""Optimiser and learning-rate schedule of the published recipe."""

import jax.numpy as jnp
import optax


def make_schedule(lr: float, decay: float, steps_per_epoch: int) -> optax.Schedule:
    """Return a staircase schedule: `lr * decay ** epoch`.

    Args:
        lr: learning rate of the first epoch.
        decay: factor after each epoch, in (0, 1].
        steps_per_epoch: optimiser steps in one epoch.

    Returns:
        Function of the step (from 0) that gives the learning rate.
    """

    def schedule(step):
        # Whole division: a quotient in float32 would turn the epoch a step early
        # after 2**24 steps.
        epoch = jnp.asarray(step) // steps_per_epoch
        return lr * decay**epoch

    return schedule


def make_optimizer(
    schedule: optax.Schedule | float,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 5e-4,
) -> optax.GradientTransformation:
    """Return Adam with L2 regularisation.

    The decay is added to the gradient before Adam's moments see it, on every
    parameter; that is not AdamW, where it bypasses them.

    Args:
        schedule: learning rate, constant or a function of the step.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: factor of the parameters in the gradient.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.scale_by_learning_rate(schedule),
    )
