"""Checks of random keys."""

import jax

from rmjax.errors import InputError


def check_key(key: jax.Array) -> None:
    """Check that a value is one random key, as `jax.random.key` makes it.

    Raises:
        InputError: it is something else, or several keys.
    """
    try:
        jax.eval_shape(jax.random.fold_in, key, 0)
    except (TypeError, ValueError) as error:
        raise InputError(
            "key: give one random key, such as jax.random.key(0)"
        ) from error
