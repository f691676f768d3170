import copy
import json

import pytest

peft_types = pytest.importorskip("peft.utils.peft_types", reason="peft is not installed")
PeftType = peft_types.PeftType


@pytest.fixture(scope="module")
def member():
    from kusabi.adapters.peft_type import add_peft_type

    return add_peft_type("KUSABI")


def test_it_is_a_member_like_any_other(member):
    lora = PeftType.LORA
    assert type(member) is type(lora) is PeftType and isinstance(member, str)
    assert PeftType("KUSABI") is PeftType["KUSABI"] is PeftType.KUSABI is member
    assert member in list(PeftType) and list(PeftType).count("KUSABI") == 1 and "KUSABI" in PeftType.__members__
    assert (member.name, member.value, member == "KUSABI") == ("KUSABI", "KUSABI", True)
    assert f"{member!r}/{member}" == f"{lora!r}/{lora}".replace("LORA", "KUSABI")
    assert copy.copy(member) is copy.deepcopy(member) is member
    assert json.dumps({"peft_type": member}) == '{"peft_type": "KUSABI"}'
    assert {member: 1}["KUSABI"] == 1 and member != lora


def test_adding_it_again_changes_nothing_and_the_others_stay(member):
    from kusabi.adapters.peft_type import add_peft_type

    before = list(PeftType)
    assert add_peft_type("KUSABI") is member and add_peft_type("LORA") is PeftType.LORA
    assert list(PeftType) == before and len({kind.value for kind in before}) == len(before)
    assert all(PeftType(kind.value) is kind for kind in before)
    with pytest.raises(ValueError, match="KUSABIX"):
        PeftType("KUSABIX")
