"""The baselines that `fit.name` chooses from, by one table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import flax.linen as nn

from rmjax.baselines import solve
from rmjax.baselines.networks import (
    Correlations,
    Fitted,
    LinearScores,
    Neighbours,
    PrincipalScores,
)
from rmjax.models.backbones import flattens
from rmjax.models.repmix import check_num_sources
from rmjax.utils.choose import choose


@dataclass(frozen=True)
class Method:
    """A baseline that is fitted in closed form.

    Attributes:
        head: `(num_sources, components, images) -> module`, see
            `rmjax.baselines.networks`.
        solve: `(samples, grid) -> parameters of the head` for each value of the grid,
            see `rmjax.baselines.solve`.
        frozen_backbone: whether features come from `model.arch`, or are pixels.
        tuned: what its hyperparameter is called; empty where it has none.
        grid: values of it that are tried on the validation images.
        inputs: the `model.input` it makes sense with; empty: any.
        streams: whether images go through one by one, and need not fit into memory.
    """

    head: Callable[[int, int, int], nn.Module]
    solve: Callable[..., Iterator[solve.Params]]
    frozen_backbone: bool
    tuned: str = ""
    grid: Sequence[float] = (0.0,)
    inputs: tuple[str, ...] = ()
    streams: bool = False


METHODS: dict[str, Method] = {
    "ridge": Method(
        head=lambda sources, components, images: LinearScores(sources, True),
        solve=solve.ridge,
        frozen_backbone=False,
        tuned="penalty",
        grid=(10.0, 100.0, 1e3, 1e4, 1e5),
    ),
    "prnu": Method(
        head=lambda sources, components, images: Correlations(sources),
        solve=solve.prnu,
        frozen_backbone=False,
        inputs=("wiener", "highpass"),
        streams=True,
    ),
    "eigenfaces": Method(
        head=lambda sources, components, images: PrincipalScores(sources, components),
        solve=solve.eigenfaces,
        frozen_backbone=False,
        tuned="C",
        grid=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
    ),
    "probe": Method(
        head=lambda sources, components, images: LinearScores(sources, False),
        solve=solve.probe,
        frozen_backbone=True,
        tuned="C",
        grid=(1e-4, 1e-3, 1e-2, 0.1, 1.0),
    ),
    "knn": Method(
        head=lambda sources, components, images: Neighbours(sources, images),
        solve=solve.knn,
        frozen_backbone=True,
        tuned="k",
        grid=(1, 3, 5, 11, 25),
    ),
}


def get_method(name: str) -> Method:
    """Return the method `name`.

    Raises:
        InputError: there is none of that name; the message lists the choices.
    """
    return choose("fit.name", name, METHODS)


def make_fitted(
    name: str,
    num_sources: int,
    *,
    tile: int | None,
    components: int,
    images: int,
    backbone: nn.Module,
) -> Fitted:
    """Return the network of a method, its arguments checked.

    Args:
        name: key of `METHODS`.
        num_sources: sources to tell apart.
        tile: side of the network's input in training; None where that are features.
        components: principal components, where any are sought.
        images: training images that it is fitted to.
        backbone: for the methods that need one.

    Raises:
        InputError: no such method, or sources that can't be told apart.
    """
    method = get_method(name)
    check_num_sources(num_sources)
    head = method.head(num_sources, components, images)
    frozen = backbone if method.frozen_backbone else None
    return Fitted(head, num_sources, tile, frozen)


def works_in_tiles(name: str, arch: str) -> bool:
    """Tell whether a network takes larger images than in training tile by tile.

    Args:
        name: key of `METHODS`; empty for one that is trained by gradient.
        arch: its backbone, if it has one.
    """
    if name in METHODS and not METHODS[name].frozen_backbone:
        return True
    return flattens(arch)
