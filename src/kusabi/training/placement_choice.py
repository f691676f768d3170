"""Where the labelled pictures pull at the frozen model: a placement from one backward, before anything is trained.

The energy of a weight is the mean square of its entries' gradients, so that large weights are not preferred. It is the
first term of what training there can win for small steps of equal size (as in SPT, arXiv 2303.08566, for single
entries), and says nothing of what comes after the first step: on clothes the lower layers pull most, and training
there serves least (``benchmarks/ablations.py``). So the energies only say which tower is meant, and whether its upper
half is enough (``benchmarks/depth.py``).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kusabi.adapters.placement import write_placement
from kusabi.adapters.targets import Plan, everything
from kusabi.errors import AdapterError
from kusabi.training.learn import Setting, prototypes_of, starting
from kusabi.training.support_choice import support_gradients
from kusabi.training.views import Views

SHARE = 0.25
"""Of the energy per weight: below it the upper half of a tower is not enough."""
RULE = (
    f"of towers with {SHARE} of the gradient energy per weight or more, the upper half, or all layers where that holds "
    f"less than {SHARE} of its tower's; none without gradient unless the budget needs it"
)


@dataclass(frozen=True)
class Pull:
    """Gradient energy of one weight: the mean square over its entries."""

    tower: str
    layer: int
    projection: str
    size: int
    energy: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def pulls(setting: Setting, views: Views) -> tuple[Pull, ...]:
    """The energy of every weight of both towers that an adapter could sit on.

    Args:
        setting: The model, the prompts and how the classifier starts; its plan is not looked at.
        views: The support set, entering vision layer 0. Only the pictures themselves are differentiated.

    Raises:
        AdapterError: If gradients are not finite, or zero everywhere.
    """
    assert views.layer == 0, "all vision layers are looked at"
    backbone = setting.backbone
    return pulls_on(setting, views, everything(backbone.module, backbone.blocks))


def pulls_on(setting: Setting, views: Views, whole: Plan) -> tuple[Pull, ...]:
    """As ``pulls``, of the targets of a plan alone."""
    start = starting(setting, views)
    classifier = start.against or prototypes_of(setting, start.head)
    gradients = support_gradients(setting.backbone, views, classifier, setting.prompts, whole, setting.precision)
    squares = {name: gradient.double().square().mean().item() for name, gradient in gradients.items()}
    found = tuple(Pull(t.tower, t.layer, t.projection, t.size, squares.get(t.tensor, 0.0)) for t in whole.targets)
    total = sum(pull.energy for pull in found)
    if not 0 < total < float("inf"):
        raise AdapterError(
            f"placement: the labelled pictures' gradients are {'not finite' if total else 'zero everywhere'}; "
            "name one, such as --placement vision:6-7"
        )
    return found


def layer_energies(found: Sequence[Pull]) -> dict[tuple[str, int], float]:
    """Tower and layer -> energy per weight."""
    sizes = layer_sizes(found)
    sums = dict.fromkeys(sizes, 0.0)
    for pull in found:
        sums[pull.tower, pull.layer] += pull.energy * pull.size
    return {place: sums[place] / sizes[place] for place in sums}


def layer_sizes(found: Sequence[Pull]) -> dict[tuple[str, int], int]:
    """Tower and layer -> entries of its weights."""
    sizes: dict[tuple[str, int], int] = {}
    for pull in found:
        sizes[pull.tower, pull.layer] = sizes.get((pull.tower, pull.layer), 0) + pull.size
    return sizes


def choose_placement(found: Sequence[Pull], budget: int) -> str:
    """The text of the placement that ``RULE`` chooses; what the budget lacks is added strongest first."""
    energies, sizes = layer_energies(found), layer_sizes(found)
    taken = set[tuple[str, int]]()
    for tower in {place[0] for place in energies}:
        own = sorted(place for place in energies if place[0] == tower)
        upper = own[len(own) // 2 :]
        held, above = (sum(energies[place] for place in places) for places in (own, upper))
        if held >= SHARE * sum(energies.values()):
            taken |= {place for place in (upper if above >= SHARE * held else own) if energies[place] > 0}
    for place in sorted(energies, key=lambda place: -energies[place]):
        if sum(sizes[one] for one in taken) < budget:
            taken.add(place)
    return write_placement([pull for pull in found if (pull.tower, pull.layer) in taken], found)
