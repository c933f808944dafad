"""Attribute images to the generator that made them.

Ask a trained network. Without a path it is the fingerprint network that ships:

    import rmjax

    model = rmjax.load("runs/mine")
    fingerprints = model.embed(["a.png", "b.jpg"])  # float32 [2, 256]
    answers = model.predict(["a.png", "b.jpg"])["source"]

Train and evaluate a run:

    rmjax.train("repmix", "runs/mine", data={"name": "image_folder/mine"})
    results = rmjax.evaluate("runs/mine", suite="full")

Or use the parts. They are Flax modules and pure functions of arrays, and take a random
key where they draw:

    model = rmjax.RepMix("resnet50", num_sources=8)
    out = model.apply(
        variables, images, mix=rmjax.make_mixing("repmix"), rngs={"mix": key}
    )
    loss = rmjax.compound_loss(out, sources, out["mixed"])

    mixed = rmjax.mix(key, h, "cutmix")  # in a network of your own
    foggy = rmjax.corruptions.corrupt(key, images, "fog", severity=3)
    figures = rmjax.attribution_report(sources, probabilities)  # of any classifier

Wrong arguments raise `rmjax.InputError`, a ValueError that says in one line what is wrong
and what would be right. Everything is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmjax import corruptions
    from rmjax.errors import InputError
    from rmjax.evaluation.attribution import attribution_report
    from rmjax.evaluation.evaluate import evaluate
    from rmjax.inference.attributor import load, load_pretrained
    from rmjax.losses import compound_loss
    from rmjax.mixing import make_mixing, mix
    from rmjax.models.repmix import RepMix
    from rmjax.training.train import train

    __version__: str

__all__ = [
    "InputError",
    "RepMix",
    "__version__",
    "attribution_report",
    "compound_loss",
    "corruptions",
    "evaluate",
    "load",
    "load_pretrained",
    "make_mixing",
    "mix",
    "train",
]

# Imported when first asked for: `import rmjax` and `rmjax --help` wait for no jax.
_HOMES = {
    "InputError": "rmjax.errors",
    "RepMix": "rmjax.models.repmix",
    "attribution_report": "rmjax.evaluation.attribution",
    "compound_loss": "rmjax.losses",
    "evaluate": "rmjax.evaluation.evaluate",
    "load": "rmjax.inference.attributor",
    "load_pretrained": "rmjax.inference.attributor",
    "make_mixing": "rmjax.mixing",
    "mix": "rmjax.mixing",
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
