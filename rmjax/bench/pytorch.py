"""The published recipe in PyTorch, for benchmarks: what ours runs beside.

Only the step is here: torchvision's network, mixed after its pool, gated heads, the
compound loss and Adam, on images that are in memory already; on the GPU where JAX
computes on one too and PyTorch finds it. bfloat16 is PyTorch's autocast.

References:
    Bui, Yu, Collomosse, RepMix, ECCV 2022, https://arxiv.org/abs/2207.02063
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from rmjax.bench.common import installed
from rmjax.models.vit import TRANSFORMERS

NETWORKS = ("resnet18", "resnet50")  # what has the same name in torchvision
EMBEDDING = 256

# torch, torchvision and transformers are imported where they are used: they need not be
# installed.


def packages_for(arch: str) -> tuple[str, ...]:
    """Return the packages that have a network, none where none of them has."""
    if arch in TRANSFORMERS:
        return ("torch", "transformers")
    return ("torch", "torchvision") if arch in NETWORKS else ()


def inference_calls(
    arch: str, *, backend: str = "cpu", dtype: str = "float32", calls: int = 1
) -> dict[str, Callable]:
    """Return, by memory format, what makes a call of uint8 images `[N, H, W, 3]`.

    A call runs torchvision's network, or that of transformers with scaled dot-product
    attention, in inference mode, eager. Nothing is returned without PyTorch, or for a
    network or a backend that it does not have.

    Args:
        arch: as for `packages_for`.
        backend: JAX's name of it, `cpu` or `gpu`.
        dtype: `float32` or `bfloat16`.
        calls: forward passes that are started before the last is waited for.
    """

    def prepare(model: Any, x: Any, _: np.ndarray) -> Callable:
        import torch

        model.eval()

        def call() -> None:
            with torch.inference_mode(), _autocast(x, dtype):
                for _ in range(calls):
                    y = model(x)
            float(y[0, 0])  # waits

        return call

    return _by_format(arch, backend, prepare)


def training_calls(
    arch: str,
    num_sources: int,
    members: int,
    *,
    backend: str = "cpu",
    dtype: str = "float32",
    steps: int = 1,
    compiled: bool = False,
) -> dict[str, Callable]:
    """Return, by memory format, what makes training steps on images and sources.

    Groups of `members` adjacent images are mixed after the pool (level 5) with fresh
    Dirichlet weights. As above, nothing where it can't run; a call takes `steps` steps.
    With `compiled`, network and loss go through `torch.compile`, at the first call.
    """

    if arch not in NETWORKS:
        return {}

    def prepare(model: Any, x: Any, sources: np.ndarray) -> Callable:
        import torch
        from torch.nn import functional

        x = x * 2 - 1
        labels = torch.from_numpy(sources).long().reshape(-1, members).to(x.device)
        channels = model.fc.in_features
        model.fc = torch.nn.Identity()  # the pooled representation comes out
        model.train()
        embed = torch.nn.Linear(channels, EMBEDDING, device=x.device)
        attribute = torch.nn.Linear(EMBEDDING, num_sources, device=x.device)
        detect = torch.nn.Linear(EMBEDDING, 2, device=x.device)
        modules = torch.nn.ModuleList([model, embed, attribute, detect])
        # Fused: one kernel for all parameters, where there are kernels.
        optimizer = torch.optim.Adam(
            modules.parameters(), lr=1e-4, weight_decay=5e-4, fused=x.is_cuda or None
        )
        concentration = torch.full((members,), 0.4, device=x.device)
        dirichlet = torch.distributions.Dirichlet(concentration)

        def loss(weights: Any) -> Any:
            with _autocast(x, dtype):
                pooled = model(x)
            pooled = pooled.float().reshape(-1, members, channels)
            embedding = embed((pooled * weights[..., None]).sum(1))
            detection = detect(embedding)
            real, synthetic = detection.softmax(-1).split(1, -1)
            gates = [real] + [synthetic] * (num_sources - 1)
            attribution = attribute(embedding) * torch.cat(gates, -1)
            fakes = (labels > 0).long()
            classes = torch.where(fakes > 0, 1 / (num_sources - 1), 1.0)
            total = 0.0
            for j in range(members):
                for logits, truth, weight in (
                    (attribution, labels[:, j], weights[:, j]),
                    (detection, fakes[:, j], weights[:, j] * classes[:, j]),
                ):
                    each = functional.cross_entropy(logits, truth, reduction="none")
                    total = total + (weight * each).mean()
            return total

        if compiled:
            loss = torch.compile(loss, dynamic=False)  # for this batch size alone

        def call() -> float:
            for _ in range(steps):
                optimizer.zero_grad(set_to_none=True)
                value = loss(dirichlet.sample((len(labels),)))
                value.backward()
                optimizer.step()
            return float(value.detach())

        return call

    return _by_format(arch, backend, prepare)


def _by_format(
    arch: str, backend: str, prepare: Callable[[Any, Any, np.ndarray], Callable]
) -> dict[str, Callable]:
    """Return, by memory format, what makes a call of uint8 images and of sources.

    `prepare` makes it of a network, of images float32 `[N, 3, H, W]` in [0, 1] in that
    format, both on the device, and of the sources.
    """
    needed = packages_for(arch)
    if not needed or not installed(*needed):
        return {}
    import torch

    device = {"cpu": "cpu", "gpu": "cuda"}.get(backend)
    if device is None or (device == "cuda" and not torch.cuda.is_available()):
        return {}
    torch.backends.cudnn.benchmark = True  # finds its fastest kernels, as XLA does

    def make(memory_format: Any, images: np.ndarray, sources: np.ndarray) -> Callable:
        model = _make_network(arch, images.shape[1])
        model = model.to(device, memory_format=memory_format)
        x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
        return prepare(model, x.contiguous(memory_format=memory_format), sources)

    formats: dict[str, Callable] = {
        "contiguous": partial(make, torch.contiguous_format)
    }
    if arch not in TRANSFORMERS:  # whose maps are matrices of tokens
        formats["channels_last"] = partial(make, torch.channels_last)
    return formats


def _make_network(arch: str, size: int) -> Any:
    """Return a module from images `[N, 3, size, size]` to `[N, channels]`."""
    import torch

    if arch not in TRANSFORMERS:
        import torchvision

        return torchvision.models.get_model(arch, weights=None)
    import transformers

    structure = TRANSFORMERS[arch]
    config = transformers.CLIPVisionConfig(
        hidden_size=structure["width"],
        num_hidden_layers=structure["depth"],
        num_attention_heads=structure["heads"],
        intermediate_size=structure["mlp"],
        patch_size=structure["patch"],
        image_size=size,
        projection_dim=EMBEDDING,
        hidden_act=structure["activation"],
        attn_implementation="sdpa",
    )
    inner = transformers.CLIPVisionModelWithProjection(config)

    class Embeds(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            return self.inner(pixel_values=x).image_embeds

    return Embeds()


def _autocast(x: Any, dtype: str) -> Any:
    import torch

    return torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == "bfloat16")
