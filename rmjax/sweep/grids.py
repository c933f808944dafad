"""Grids with a name: the ablations of the paper, each as a tuple of alternatives.

An alternative may change several keys of a config at once. A new grid is one entry of
`GRIDS`; its labels become names of folders, and are to differ.
"""

from dataclasses import dataclass

from ml_collections import ConfigDict

from rmjax.corruptions import SEEN


@dataclass(frozen=True)
class Alternative:
    """One choice on an axis of a grid.

    Attributes:
        label: what it is called, as `KEY=VALUE`.
        changes: values of the config's keys; in `GRIDS` also functions of the config
            that give them.
    """

    label: str
    changes: dict[str, object]

    def resolve(self, config: ConfigDict) -> "Alternative":
        """Return it with the values that its functions give for a config."""
        return Alternative(
            self.label,
            {k: v(config) if callable(v) else v for k, v in self.changes.items()},
        )


def _values(key: str, *values: object) -> tuple[Alternative, ...]:
    return tuple(Alternative(f"{key}={value}", {key: value}) for value in values)


def _members(count: int) -> Alternative:
    # A batch that groups of 1 to 4 all divide, so that steps are of as many images; a
    # step has fewer samples where they have more members, and an epoch more steps.
    return Alternative(f"members={count}", {"mix.members": count, "batch_size": 48})


def _corruptions(kinds: int) -> Alternative:
    names = {"corrupt.rate": 0.95, "corrupt.names": SEEN[:kinds]}
    return Alternative(
        f"corruptions={kinds}", names if kinds else {"corrupt.rate": 0.0}
    )


def _mixing(label: str, name: str, **settings: object) -> Alternative:
    changes = {"name": name, "partners": "any"} | settings
    changes = {f"mix.{key}": value for key, value in changes.items()}
    return Alternative(f"mixing={label}", changes)


# Each with the distribution of weights that it was published with, where that is not
# the config's. Equal numbers of images a step; give steps_per_epoch for as many steps.
_MIXINGS = (
    _mixing("none", "none"),
    _mixing("repmix", "repmix"),
    _mixing("same_source", "repmix", partners="same_source"),
    _mixing("same_semantic", "repmix", partners="same_semantic"),
    _mixing("factorial", "factorial"),
    _mixing("pairs", "pairs"),
    _mixing("mixup", "mixup"),
    _mixing("manifold", "manifold"),
    _mixing("cutmix", "cutmix", beta=1.0),
    _mixing("tokens", "tokens", level=4),
    _mixing("channels", "channels"),
    _mixing("mixstyle", "mixstyle", beta=0.1),
    _mixing("amplitude", "amplitude", beta=1.0),
    _mixing("phase", "phase", beta=1.0),
)


def _method(label: str, **changes: object) -> Alternative:
    """Return a method; `model_arch` stands for `model.arch`, and so on."""
    return Alternative(
        f"method={label}",
        {key.replace("_", ".", 1): value for key, value in changes.items()},
    )


def _tested_resize(config: ConfigDict) -> int:
    return config.data.eval_resize


def _tested_size(config: ConfigDict) -> int:
    return config.data.eval_size


# What earlier work does, each in its published form but for the config's schedule
# (docs/baselines.md). `plain` and `blur_jpeg` have the config's network and learning rate;
# those of other networks were chosen by validation loss on `scenes256_unseen`.
_ALONE: dict[str, object] = {"mix_name": "none", "loss": "attribution"}
_SPECTRUM = {"model_input": "logdct"}
_METHODS = (
    _method("repmix", mix_name="repmix", loss="compound"),
    _method("plain", **_ALONE),
    _method("blur_jpeg", **_ALONE, corrupt_recipe="blur_jpeg", corrupt_rate=0.5),
    _method("frank_cnn", **_ALONE, model_arch="frank_cnn", **_SPECTRUM, optim_lr=1e-3),
    _method("frank_ridge", fit_name="ridge", **_SPECTRUM),
    _method("yu_net", **_ALONE, model_arch="yu_net", model_input="rgb", optim_lr=3e-4),
    _method(
        "patch_cnn",
        mix_name="none",
        loss="contrastive",
        model_arch="patch_cnn",
        model_input="rgb",
        optim_lr=1e-3,
    ),
    # The mean residual needs pixels at the same places, in testing as well.
    _method(
        "prnu",
        fit_name="prnu",
        model_input="wiener",
        data_flip=False,
        data_resize=_tested_resize,
        data_size=_tested_size,
        data_crop=_tested_size,
    ),
    _method("eigenfaces", fit_name="eigenfaces", model_input="rgb"),
    _method("probe", fit_name="probe"),
    _method("knn", fit_name="knn"),
)

# References:
#   Bui, Yu, Collomosse, RepMix, ECCV 2022, https://arxiv.org/abs/2207.02063
GRIDS: dict[str, tuple[Alternative, ...]] = {
    "level": _values("mix.level", *range(7)),
    "members": tuple(_members(count) for count in (1, 2, 3, 4)),
    # 1 is the uniform distribution of weights; 0 would be the same once more.
    "beta": _values("mix.beta", 0.1, 0.4, 1.0),
    "loss": _values("loss", "compound", "ungated", "attribution"),
    "method": _METHODS,
    "mixing": _MIXINGS,
    "embedding": _values("model.embedding_dim", 64, 128, 256, 512),
    "input": _values("model.input", "rgb", "residual", "logdct"),
    # The first kinds of the 15 that are trained with, and none.
    "corruptions": tuple(_corruptions(kinds) for kinds in (0, 1, 3, 7, 15)),
}
