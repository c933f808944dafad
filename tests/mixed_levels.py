"""What holds of a mix at any level of any backbone, for the tests of each."""

import jax
import jax.numpy as jnp
import numpy as np

from rmjax.mixing import Mixed, adjacent, combine, mix_nothing

NAMES = ("stem", "layer1", "layer2", "layer3", "layer4", "embedding")


def check_mix_at_level(model, variables, x, whole, level, expected, least):
    """Check what a mix at `level` of four images sees, and what comes of it.

    `whole` is what the network makes of the images unmixed, `expected` the
    representation at the level, `least` how far a true mixture is from its members.
    """
    weights = jnp.array([[0.3, 0.7], [1.0, 0.0]])

    @jax.jit
    def run(variables, x):
        seen = []

        def look(keys, h):
            seen.append(h)
            return mix_nothing(keys, h)

        def in_pairs(keys, h):
            return Mixed(combine(h, weights), weights, adjacent(weights))

        keys = jax.random.split(jax.random.key(0), len(x))
        cut = model.apply(variables, x, mix=look, level=level, keys=keys)
        mixed = model.apply(variables, x, mix=in_pairs, level=level, keys=keys)
        return seen[0], cut, mixed

    h, cut, mixed = run(variables, x)
    np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-5)
    assert set(cut) == {*whole, "mixed"}
    for name, value in whole.items():
        np.testing.assert_allclose(cut[name], value, rtol=1e-4, atol=1e-5)
    assert mixed["embedding"].shape == (2, 12)
    # The second group is its first member alone, the first a true mixture.
    np.testing.assert_allclose(
        mixed["attribution"][1], whole["attribution"][2], rtol=1e-4, atol=1e-5
    )
    assert abs(mixed["attribution"][0] - whole["attribution"][:2]).max() > least
