"""Whether a worker's device can train, before it takes a job: a GPU that cannot is refused, never left for the CPU."""

from __future__ import annotations

import os

from engine.base.amounts import format_bytes
from engine.base.errors import MachineError

FREE = 1 << 30  # bytes of a GPU that must be free
SIDE = 256  # of the matrices that are multiplied
OFF = 0.05  # by which a bf16 product may differ from that of the CPU, of its largest entry


def check_device() -> None:
    """Multiply matrices on this worker's GPU. Raises: MachineError where that fails, or gives something else."""
    name = os.environ.get("DJSB_DEVICE", "")
    if not name.startswith("gpu"):
        return
    import torch

    from engine.tasks.shared.procedure import the_device

    device = the_device()
    kind = torch.cuda.get_device_name(device)
    free, memory = torch.cuda.mem_get_info(device)
    if free < FREE:
        raise MachineError(
            f"{name} ({kind}) has {format_bytes(free)} of {format_bytes(memory)} free; end what runs there "
            "(nvidia-smi), or leave it out by CUDA_VISIBLE_DEVICES"
        )
    made = torch.Generator().manual_seed(0)
    a, b = (torch.randn(SIDE, SIDE, generator=made) for _ in range(2))
    expected = a @ b
    try:
        for kind_of in (torch.float32, torch.bfloat16):
            found = (a.to(device, kind_of) @ b.to(device, kind_of)).float().cpu()
            if not (found - expected).abs().max() <= OFF * expected.abs().max():
                raise MachineError(f"{name} ({kind}) multiplies matrices wrongly; leave it out by CUDA_VISIBLE_DEVICES")
    except RuntimeError as error:  # of the driver, or of a torch that has no code for this GPU
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        raise MachineError(
            f"{name} ({kind}, capability {capability}) cannot multiply matrices with torch {torch.__version__}: "
            f"{first}; install a torch that knows it, or leave it out by CUDA_VISIBLE_DEVICES"
        ) from error
