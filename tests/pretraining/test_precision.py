import torch
from pretraining.precision import attention, autocast, fast_bf16


def test_half_precision_only_where_it_is_fast():
    with autocast("cpu"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if fast_bf16("cpu") else torch.float32)
    assert attention("cpu") == ("eager" if fast_bf16("cpu") else "sdpa")
    assert attention("cuda") == "sdpa"
