"""Networks for features that another network made of images: none or one hidden layer."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from rmjax.models.norm import widen
from rmjax.models.resnet import NUM_LEVELS, STAGES, linear_kernel_init


class Standardize(nn.Module):
    """Bring each feature to mean 0 and deviation 1.

    `mean` and `deviation` `[size]` (collection `batch_stats`) are not learned: they are
    those of the training rows, see `rmjax.training.start`.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, size)
        deviation = self.variable("batch_stats", "deviation", jnp.ones, size)
        return (x - mean.value) / deviation.value


class Perceptron(nn.Module):
    """Stored features to an embedding, in the stages of `ResNet`, see there for the levels.

    Level 1 are the standardised features, levels 2 to 5 what the hidden layer makes of
    them, if there is one.

    Attributes:
        hidden: units of the hidden layer; 0: none.
        embedding_dim: size of the embedding.
        dtype: type of the hidden layer; the rest is float32 at least.
    """

    hidden: int
    embedding_dim: int = 256
    dtype: Any = jnp.float32

    FEATURES: ClassVar[int] = 5  # see `ResNet`

    def setup(self):
        self.stem = Standardize()
        if self.hidden:
            self.layer1 = _dense(self.hidden, self.dtype)
        self.embedding = _dense(self.embedding_dim, widen(self.dtype))

    def __call__(
        self, x: jax.Array, *, train: bool, start: int = 0, stop: int = 6
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Run the stages from level `start` to level `stop`, as `ResNet` does.

        Args:
            x: representation at level `start`; at 0, features `[batch, size]`.
            train: changes nothing.
            start: level of `x`, 0..6.
            stop: level to return, `start`..6.
        """
        if not 0 <= start <= stop < NUM_LEVELS:
            raise ValueError(f"levels {start}..{stop} are not within 0..6")
        activations = {}
        for level in range(start, stop):
            name = STAGES[level]
            if name in ("stem", "embedding"):
                x = getattr(self, name)(x)
            elif name == "layer1" and self.hidden:
                x = nn.relu(self.layer1(x))
            activations[name] = x
            if name == "layer4":
                activations["pool"] = x
        return x, activations


PERCEPTRONS: dict[str, dict[str, Any]] = {
    "linear": dict(hidden=0),
    "hidden": dict(hidden=512),
}


def _dense(units: int, dtype: Any) -> nn.Dense:
    return nn.Dense(units, dtype=dtype, kernel_init=linear_kernel_init)
