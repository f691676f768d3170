import pytest
import torch

from kusabi.training.precision import autocast, fast_bf16, resolve


def test_auto_follows_the_processor():
    assert resolve("auto", "cpu") == ("bfloat16" if fast_bf16("cpu") else "float32")
    assert resolve("float32", "cpu") == "float32" and resolve("bfloat16", "cpu") == "bfloat16"


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_the_context_does_what_it_says(precision, dtype):
    with autocast(precision, "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
