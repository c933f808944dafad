"""XLA's compilers for machines that are not here: their wheels, and their devices.

A TPU's compiler is libtpu, which needs a name and a layout; a GPU's is in jax's CUDA
plugin, which needs a description. Neither looks for the hardware.
"""

import os
from importlib.metadata import PackageNotFoundError, requires, version

import jax
from jax.experimental import topologies
from packaging.requirements import Requirement

from rmjax.bench.machines import Machine
from rmjax.errors import InputError
from rmjax.experiment.parallel import Devices

# What XLA asks of an H100 SXM: NVIDIA's figures, in the text form of its protocol buffer
# `GpuTargetConfigProto`.
_H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
runtime_version { major: 12 minor: 9 }
dnn_version_info { major: 9 minor: 10 }
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  clock_rate_ghz: 1.98
  core_count: 132
  fpus_per_core: 128
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  threads_per_warp: 32
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  shared_memory_per_core: 233472
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  l2_cache_size: 52428800
  device_memory_size: 84929347584
  memory_bandwidth: 3352320000000
}
"""
# By platform: jax's extra, and what in it holds the compiler.
_COMPILERS = {"tpu": ("tpu", "libtpu"), "gpu": ("cuda12", "jax-cuda12-plugin")}


def platform_of(machine: Machine) -> str:
    """Return JAX's name, "gpu" or "tpu", for a machine's processors."""
    return "tpu" if machine.ghz else "gpu"


def check_compiler(platform: str) -> None:
    """Check that a platform's compiler is installed, as the installed jax wants it.

    Raises:
        InputError: it is missing, or of another version; the message names the wheel.
    """
    extra, package = _COMPILERS[platform]
    wanted = next(
        needed
        for needed in map(Requirement, requires("jax") or ())
        if needed.name == package
        and needed.marker
        and needed.marker.evaluate({"extra": extra})
    )
    jax_version = version("jax")
    remedy = f"pip install 'jax[{extra}]=={jax_version}'"
    try:
        found = version(package)
    except PackageNotFoundError as error:
        raise InputError(
            f"the compiler for {platform.upper()}s is not installed: it is in the wheel "
            f"{package}{wanted.specifier}, which goes with jax {jax_version}: {remedy}"
        ) from error
    if not wanted.specifier.contains(found, prereleases=True):
        raise InputError(
            f"{package} {found} does not go with jax {jax_version}, which wants "
            f"{package}{wanted.specifier}: {remedy}"
        )


def compile_only() -> None:
    """Have JAX leave the accelerators of this machine alone: it will only compile.

    For a process of its own, before JAX computes. On a TPU VM, another process may be
    training on the chips.
    """
    jax.config.update("jax_platforms", "cpu")
    # libtpu would ask Google's servers which TPU it is on, and wait where there is none.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    # It would end the process where another one holds its lock, which guards chips.
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"


def describe_devices(machine: Machine) -> Devices:
    """Return devices that programs can be compiled for, but not run on.

    Raises:
        InputError: as `check_compiler`, or the compiler knows no such machine.
    """
    platform = platform_of(machine)
    check_compiler(platform)
    try:
        if platform == "gpu":
            layout = f"1x1x{machine.chips}"
            return topologies.get_topology_desc(
                layout, "cuda", target_config=_H100, topology=layout
            ).devices
        # A host has 2 x 2 chips, but for the smallest.
        host = [1, 1, 1] if machine.chips == 1 else [2, 2, 1]
        return topologies.get_topology_desc(
            f"{machine.chip}:{machine.layout}", "tpu", chips_per_host_bounds=host
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f"the compiler takes no {machine.chip}:{machine.layout}: "
            f"{str(error).splitlines()[0]}"
        ) from error
