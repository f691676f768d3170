import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kusabi.backbones.licence import Licence, read_licence
from kusabi.backbones.model_folder import MINI

APACHE = (
    "        Apache License\n   Version 2.0, January 2004\nhttp://www.apache.org/licenses/\n\n   TERMS AND CONDITIONS\n"
)
ANYWHERE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def folder(path, card=None, config=None, **files):
    for old in path.iterdir():
        old.unlink()
    for name, text in {"README.md": card, "config.json": config, **files}.items():
        if text is not None:
            (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("files", "name", "where"),
    [
        ({"card": "---\nlicense: apache-2.0\n---\n"}, "apache-2.0", "README.md"),
        ({"card": "---\nlicense: other\nlicense_name: house-rules\n---\n"}, "house-rules", "README.md"),
        ({"card": "---\nlicense: mit\nlicense_name: house-rules\n---\n"}, "mit", "README.md"),
        ({"card": "---\nlicense: [mit, cc-by-4.0]\n---\n"}, "mit, cc-by-4.0", "README.md"),
        ({"card": "# no front matter", "config": '{"license": "bsd-3-clause"}'}, "bsd-3-clause", "config.json"),
        ({"card": "---\nlicense: other\n---\n", "COPYING": "MIT License\n"}, "MIT License", "COPYING"),
        ({"LICENSE": APACHE}, "Apache License Version 2.0, January 2004", "LICENSE"),
        ({"LICENSE.txt": "// SPDX-License-Identifier: MIT OR Apache-2.0 */\n"}, "MIT OR Apache-2.0", "LICENSE.txt"),
        ({"LICENCE": "MIT License\n\nCopyright (c) 2026 somebody\n"}, "MIT License", "LICENCE"),
    ],
)  # fmt: skip
def test_the_licence_is_what_the_folder_says_and_where(tmp_path, files, name, where):
    assert read_licence(folder(tmp_path, **files)) == Licence(name, where, None)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "no licence file"),
        ({"card": "---\nlicense: other\n---\n"}, "README.md says 'other' and names none"),
        ({"card": "---\nlicense: unknown\n---\n"}, "README.md says 'unknown' and names none"),
        ({"card": "---\nlicense: 2.0\n---\n"}, "no licence file"),
        ({"card": "---\nlicense: [\n---\n"}, "no licence file"),
        ({"card": "---\n- a\n---\n"}, "no licence file"),
        ({"config": "[1]"}, "no licence file"),
        ({"LICENSE": "Copyright (c) 2026 somebody\n\nPermission is granted\n"}, "LICENSE is there"),
        ({"LICENSE": "This is not licensed to anybody.\n"}, "LICENSE is there"),
        ({"LICENSE": b"\xff\xfe\x00"}, "LICENSE is there"),
    ],
)
def test_what_names_no_licence_is_unknown_and_says_why(tmp_path, files, told):
    found = read_licence(folder(tmp_path, **files))
    assert found.name is None and found.where is None and told in found.note


def test_a_card_and_a_configuration_that_contradict_each_other_are_both_told(tmp_path):
    found = read_licence(folder(tmp_path, "---\nlicense: mit\n---\n", '{"license": "gpl-3.0"}'))
    assert found == Licence("mit", "README.md", "config.json says 'gpl-3.0'")
    agreeing = read_licence(folder(tmp_path, "---\nlicense: mit\n---\n", '{"license": "MIT"}', LICENSE=APACHE))
    assert agreeing.note is None


def test_the_embedded_model_and_a_folder_that_is_not_there():
    assert read_licence(MINI) == Licence("apache-2.0", "README.md")
    assert read_licence(MINI / "nowhere").name is None


@ANYWHERE
@given(name=st.from_regex(r"[a-z][a-z0-9.+-]{0,30}", fullmatch=True), config=st.booleans())
def test_any_identifier_comes_back_as_it_was_written(tmp_path, name, config):
    written = {"config": json.dumps({"license": name})} if config else {"card": f"---\nlicense: '{name}'\n---\n# x\n"}
    found = read_licence(folder(tmp_path, **written))
    assert found.name == (None if name in ("unknown", "other", "none") else name)


@ANYWHERE
@given(
    card=st.text(max_size=200), front=st.text(max_size=80), config=st.binary(max_size=80), text=st.text(max_size=200)
)
def test_whatever_lies_there_nothing_is_raised_and_nothing_is_made_up(tmp_path, card, front, config, text):
    written = f"---\nlicense: {front}\n---\n{card}"
    found = read_licence(folder(tmp_path, written, config, LICENSE=text.encode("utf-8", "replace")))
    if found.name is None:
        assert found.note
    elif found.where == "LICENSE":
        assert set(found.name.split()) <= set(text.replace("\x00", " ").split())
    else:
        assert found.where in ("README.md", "config.json") and found.name == " ".join(found.name.split())
