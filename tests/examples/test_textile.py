import re
import tomllib
from pathlib import Path

from kusabi.spec_file import build, read_spec

TEXTILE = Path(__file__).parents[2] / "examples" / "textile.toml"


def test_the_example_looks_at_the_pictures_as_the_demo_does():
    from kusabi.recipes.demo import FIELDS

    example, demo = read_spec(TEXTILE), build(FIELDS)
    brief = {"views": demo.data.views}  # the demo makes do with fewer
    data = example.data.model_copy(update=brief)
    assert (example.backbone, data, example.adapter) == (demo.backbone, demo.data, demo.adapter)


def test_every_option_of_the_example_can_be_switched_on():
    text = TEXTILE.read_text(encoding="utf-8")
    options = re.findall(r"^#(\w+) = ", text, re.MULTILINE)
    spec = build(tomllib.loads(re.sub(r"^#(?=\w)", "", text, flags=re.MULTILINE)))
    changed = [
        key
        for part in (spec.backbone, spec.data, spec.adapter, spec.training)
        for key in options
        if key in type(part).model_fields and getattr(part, key) != getattr(type(part)(), key)
    ]
    assert sorted(changed) == sorted(options)
