"""rmjax: attribute images to the generator that made them.

import rmjax

model = rmjax.load("runs/quickstart")
fingerprints = model.embed(["a.png", "b.jpg"])
"""

from typing import Any


def __getattr__(name: str) -> Any:
    # Late, so that `rmjax --help` need not wait for jax.
    if name in ("load", "load_pretrained"):
        from rmjax.inference import attributor as inference

        return getattr(inference, name)
    raise AttributeError(f"module 'rmjax' has no attribute '{name}'")
