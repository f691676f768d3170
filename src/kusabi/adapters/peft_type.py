"""A name added to PEFT's list of methods, which is closed: ``register_peft_method`` takes only names of its own enum.

This relies on how CPython builds an ``Enum``; it is the only file that does.
"""

from peft.utils.peft_types import PeftType


def add_peft_type(name: str) -> PeftType:
    """The member of ``PeftType`` of that name, made where it is missing.

    It is a real member: found by name and by value, listed, equal to its text, ``copy`` and ``json`` as with the
    others.

    Args:
        name: In capitals, as PEFT's own are.
    """
    if name in PeftType.__members__:
        return PeftType[name]
    member = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    member.__objclass__ = PeftType  # type: ignore[attr-defined]
    member._sort_order_ = len(PeftType._member_names_)  # type: ignore[attr-defined]
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    type.__setattr__(PeftType, name, member)
    return member
