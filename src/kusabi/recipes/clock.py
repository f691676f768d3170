"""A clock that waits for the device: a GPU answers before it has computed."""

import time

import torch


def now(device: torch.device) -> float:
    """Seconds of ``time.perf_counter``, once all that the device was asked is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
