"""Which weights of a model belong to one plain linear layer alone: those that PEFT can adapt exactly."""

from collections import Counter

from torch import nn


def plain_linears(module: nn.Module) -> dict[str, nn.Linear]:
    """Weight name -> its layer, for each plain ``nn.Linear`` that shares its weight with no other module.

    Subclasses are left out: the output projection of ``nn.MultiheadAttention`` is one, whose own forward never runs.
    """
    users = weight_users(module)
    return {
        f"{path}.weight": layer
        for path, layer in module.named_modules()
        if path and type(layer) is nn.Linear and users[id(layer.weight)] == 1
    }


def weight_users(module: nn.Module) -> Counter[int]:
    """Identity of each parameter -> how many layers hold it."""
    return Counter(id(weight) for layer in module.modules() for weight in layer._parameters.values())
