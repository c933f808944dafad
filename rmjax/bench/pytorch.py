"""The published recipe in PyTorch, for benchmarks: what ours runs beside.

Only the step is here: torchvision's network, mixed after its pool, gated heads, the
compound loss and Adam, on images that are in memory already; on the GPU where JAX
computes on one too and PyTorch finds it. There, bfloat16 is PyTorch's autocast.

References:
    Bui, Yu, Collomosse, RepMix, ECCV 2022, https://arxiv.org/abs/2207.02063
"""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

NETWORKS = ("resnet18", "resnet50")  # what has the same name in torchvision
EMBEDDING = 256


def has_torch() -> bool:
    """Tell whether torch and torchvision are installed."""
    return find_spec("torch") is not None and find_spec("torchvision") is not None


def inference_calls(
    arch: str, *, backend: str = "cpu", dtype: str = "float32", calls: int = 1
) -> dict[str, Callable]:
    """Return, by memory format, what makes a call of uint8 images `[N, H, W, 3]`.

    A call runs torchvision's network in inference mode, eager. Nothing is returned
    without PyTorch, or for a network or a backend that it has not.

    Args:
        arch: one of `NETWORKS`.
        backend: JAX's name of it, `cpu` or `gpu`.
        dtype: `float32` or `bfloat16`.
        calls: forward passes that are started before the last is waited for.
    """
    place = _device(backend)
    if not place or arch not in NETWORKS:
        return {}
    import torch
    import torchvision

    def network(memory_format: torch.memory_format) -> Callable:
        model = torchvision.models.get_model(arch, weights=None).eval()
        model = model.to(place, memory_format=memory_format)

        def make(images: np.ndarray) -> Callable:
            x = _to_tensor(images, memory_format, place)

            def call() -> None:
                with torch.inference_mode(), _autocast(place, dtype):
                    for _ in range(calls):
                        y = model(x)
                float(y[0, 0])  # waits

            return call

        return make

    return _by_format(network)


def training_calls(
    arch: str,
    num_sources: int,
    members: int,
    *,
    backend: str = "cpu",
    dtype: str = "float32",
    steps: int = 1,
) -> dict[str, Callable]:
    """Return, by memory format, what makes training steps on images and sources.

    Groups of `members` adjacent images are mixed after the pool (level 5) with fresh
    Dirichlet weights. As above, nothing where it can't run; a call takes `steps` steps.
    """
    place = _device(backend)
    if not place or arch not in NETWORKS:
        return {}
    import torch
    import torchvision
    from torch.nn import functional

    def network(memory_format: torch.memory_format) -> Callable:
        model = torchvision.models.get_model(arch, weights=None)
        channels = model.fc.in_features
        model.fc = torch.nn.Identity()  # the pooled representation comes out
        model = model.to(place, memory_format=memory_format).train()
        embed = torch.nn.Linear(channels, EMBEDDING, device=place)
        attribute = torch.nn.Linear(EMBEDDING, num_sources, device=place)
        detect = torch.nn.Linear(EMBEDDING, 2, device=place)
        parts = torch.nn.ModuleList([model, embed, attribute, detect])
        optimizer = torch.optim.Adam(parts.parameters(), lr=1e-4, weight_decay=5e-4)
        concentration = torch.full((members,), 0.4, device=place)
        dirichlet = torch.distributions.Dirichlet(concentration)

        def loss(x: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
            with _autocast(place, dtype):
                pooled = model(x)
            pooled = pooled.float().reshape(-1, members, channels)
            weights = dirichlet.sample((len(pooled),))
            embedding = embed((pooled * weights[..., None]).sum(1))
            detection = detect(embedding)
            real, synthetic = detection.softmax(-1).split(1, -1)
            gates = [real] + [synthetic] * (num_sources - 1)
            attribution = attribute(embedding) * torch.cat(gates, -1)
            fakes = (sources > 0).long()
            classes = torch.where(fakes > 0, 1 / (num_sources - 1), 1.0)
            total = 0.0
            for j in range(members):
                for logits, labels, weight in (
                    (attribution, sources[:, j], weights[:, j]),
                    (detection, fakes[:, j], weights[:, j] * classes[:, j]),
                ):
                    each = functional.cross_entropy(logits, labels, reduction="none")
                    total = total + (weight * each).mean()
            return total

        def make(images: np.ndarray, sources: np.ndarray) -> Callable:
            x = _to_tensor(images, memory_format, place) * 2 - 1
            labels = torch.from_numpy(sources).long().reshape(-1, members).to(place)

            def call() -> float:
                for _ in range(steps):
                    optimizer.zero_grad(set_to_none=True)
                    value = loss(x, labels)
                    value.backward()
                    optimizer.step()
                return float(value.detach())

            return call

        return make

    return _by_format(network)


def _device(backend: str) -> str:
    """Return PyTorch's name of the device that JAX's backend has; empty for none."""
    if not has_torch() or backend not in ("cpu", "gpu"):
        return ""
    if backend == "cpu":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else ""


def _autocast(place: str, dtype: str):
    import torch

    return torch.autocast(place, torch.bfloat16, enabled=dtype == "bfloat16")


def _to_tensor(images: np.ndarray, memory_format, place: str):
    import torch

    x = torch.from_numpy(images).to(place).permute(0, 3, 1, 2).float() / 255
    return x.contiguous(memory_format=memory_format)


def _by_format(network: Callable) -> dict[str, Callable]:
    import torch

    return {
        "contiguous": network(torch.contiguous_format),
        "channels_last": network(torch.channels_last),
    }
