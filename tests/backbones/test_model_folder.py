import json
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import errors

from kusabi.backbones import model_folder
from kusabi.backbones.dual_encoder import load_backbone
from kusabi.backbones.model_folder import locate
from kusabi.errors import BackboneError

COMMIT = "a" * 40


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub of one repository in the cache layout; records what was asked for."""
    asked = []
    snapshot = tmp_path / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)

    def one_file(repo, name, revision=None):
        asked.append((name, revision))
        return str(snapshot / name)

    def all_files(repo, revision, allow_patterns, ignore_patterns):
        asked.append(("all", revision))
        assert not any("bin" in pattern or pattern == "*" for pattern in allow_patterns)
        return str(snapshot)

    monkeypatch.setattr(model_folder, "hf_hub_download", one_file)
    monkeypatch.setattr(model_folder, "snapshot_download", all_files)
    return snapshot, asked


def failing(monkeypatch, error):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(model_folder, "hf_hub_download", fail)


def test_mini_is_the_embedded_folder():
    found = locate("mini")
    assert (found.source, found.revision, found.path.name) == ("mini", None, "mini")
    assert found.path.parent == Path(model_folder.__file__).parent


def test_a_folder_is_recorded_by_its_name_alone(copied, monkeypatch):
    folder = copied()
    assert locate(folder).source == locate(str(folder)).source == "model"
    monkeypatch.chdir(folder)
    assert locate(".").source == "model"


@pytest.mark.parametrize("source", ["/nowhere/at/all", "missing", "./missing", "~/missing-model", "a/b/c", "a b/c"])
def test_a_missing_folder_is_named(source, monkeypatch):
    failing(monkeypatch, AssertionError("the Hub was asked"))
    with pytest.raises(BackboneError) as raised:
        locate(source)
    assert str(raised.value).startswith(f"{source}: no such model folder; give a folder")


@pytest.mark.parametrize(
    ("source", "told"),
    [("~nobody-of-that-name/x", "no such user's home; give the whole path"), ("x" * 300, "File name too long; give")],
)
def test_a_folder_that_cannot_even_be_looked_up_is_named(source, told, monkeypatch):
    failing(monkeypatch, AssertionError("the Hub was asked"))
    with pytest.raises(BackboneError) as raised:
        locate(source)
    assert str(raised.value).startswith(f"{source}: ") and told in str(raised.value)


def test_a_path_is_never_taken_for_a_hub_id(monkeypatch):
    failing(monkeypatch, AssertionError("the Hub was asked"))
    with pytest.raises(BackboneError, match="owner/model: no such model folder"):
        locate(Path("owner/model"))


def test_a_hub_id_is_fetched_at_the_commit_its_revision_stands_for(hub, tiny):
    snapshot, asked = hub
    for file in tiny("clip").iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    backbone = load_backbone("owner/some-model", revision="main")
    assert (backbone.source, backbone.revision) == ("owner/some-model", COMMIT)
    assert asked == [("config.json", "main"), ("all", COMMIT)]


def test_an_unsupported_hub_model_is_refused_before_its_weights_are_fetched(hub):
    snapshot, asked = hub
    (snapshot / "config.json").write_text(json.dumps({"model_type": "llava", "auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(BackboneError, match="owner/some-model: model type 'llava' is not supported; choose"):
        locate("owner/some-model")
    assert asked == [("config.json", None)]


def test_a_folder_wins_over_a_hub_id_of_the_same_text(tiny, tmp_path, monkeypatch):
    failing(monkeypatch, AssertionError("the Hub was asked"))
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "model").symlink_to(tiny("clip"))
    monkeypatch.chdir(tmp_path)
    assert locate("owner/model").revision is None


def response(status):
    return httpx2.Response(status, request=httpx2.Request("GET", "https://hub"))


@pytest.mark.parametrize(
    "error, told",
    [
        (errors.GatedRepoError("403", response=response(403)), "gated; accept its terms"),
        (errors.RepositoryNotFoundError("404", response=response(404)), "neither a folder here nor a model on the Hub"),
        (errors.RevisionNotFoundError("404", response=response(404)), "no revision 'v9'"),
        (errors.RemoteEntryNotFoundError("404", response=response(404)), "no config.json"),
        (errors.LocalEntryNotFoundError("not in the cache"), "the Hub cannot be reached"),
        (errors.OfflineModeIsEnabled("offline"), "the Hub cannot be reached"),
        (OSError("no route to host"), "the Hub cannot be reached"),
        (httpx2.ConnectError("refused"), "the Hub cannot be reached"),
    ],
)
def test_every_way_to_miss_a_hub_model_is_a_plain_line_with_a_remedy(monkeypatch, error, told):
    failing(monkeypatch, error)
    with pytest.raises(BackboneError) as raised:
        locate("owner/some-model", "v9")
    assert str(raised.value).startswith("owner/some-model: ") and told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_a_network_the_hub_client_itself_ends_in_a_plain_line(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneError, match="owner/some-model: no such folder here, and the Hub cannot be reached"):
        locate("owner/some-model")


@pytest.mark.parametrize(
    "content, told",
    [
        (None, "no config.json in this folder"),
        ("{", "not valid JSON"),
        ("[]", "a JSON object was expected"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
    ids=["none", "cut off", "a list", "a long number", "nested deeply"],
)
def test_a_folder_that_is_no_model_is_refused_naming_it(tmp_path, content, told):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(BackboneError) as raised:
        locate(tmp_path)
    assert str(raised.value).startswith(str(tmp_path)) and told in str(raised.value)
