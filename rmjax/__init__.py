"""rmjax: attribute images to the generator that made them.

Ask a trained network:

    import rmjax

    model = rmjax.load("runs/quickstart")
    fingerprints = model.embed(["a.png", "b.jpg"])

Or train one in a loop of your own (examples/own_loop.py has all of it):

    model = rmjax.RepMix("resnet50", num_sources=8)
    mixing = rmjax.make_mixing("repmix")
    out, updates = model.apply(
        variables, images, train=True, mix=mixing, rngs={"mix": key},
        mutable=["batch_stats"],
    )
    loss = rmjax.compound_loss(out, sources, out["mixed"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmjax import corruptions
    from rmjax.evaluation.evaluate import evaluate
    from rmjax.inference.attributor import load, load_pretrained
    from rmjax.losses import compound_loss
    from rmjax.mixing import make_mixing
    from rmjax.models.repmix import RepMix
    from rmjax.training.train import train

    __version__: str

__all__ = [
    "RepMix",
    "__version__",
    "compound_loss",
    "corruptions",
    "evaluate",
    "load",
    "load_pretrained",
    "make_mixing",
    "train",
]

# Imported when first asked for: `import rmjax` and `rmjax --help` wait for no jax.
_HOMES = {
    "RepMix": "rmjax.models.repmix",
    "compound_loss": "rmjax.losses",
    "evaluate": "rmjax.evaluation.evaluate",
    "load": "rmjax.inference.attributor",
    "load_pretrained": "rmjax.inference.attributor",
    "make_mixing": "rmjax.mixing",
    "train": "rmjax.training.train",
}


def __getattr__(name: str) -> Any:
    if name == "corruptions":
        return import_module("rmjax.corruptions")
    if name == "__version__":
        from rmjax.utils.versions import own_version

        return own_version()
    if name not in _HOMES:
        raise AttributeError(f"module 'rmjax' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
