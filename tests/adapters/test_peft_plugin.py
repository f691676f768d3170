import importlib
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from kusabi.adapters import peft_format, peft_plugin
from kusabi.errors import AdapterError


def no_package(name):
    raise PackageNotFoundError(name)


def refuse(name):
    pytest.fail(f"{name} was imported")  # no Exception: those are caught


def test_without_peft_nothing_is_imported_and_whoever_asks_is_told(monkeypatch):
    monkeypatch.setattr(peft_plugin, "version", no_package)
    monkeypatch.setattr(peft_plugin, "import_module", refuse)
    peft_plugin.plug_in()
    importlib.reload(peft_format)
    with pytest.raises(AdapterError, match=r"PEFT is not installed; pip install 'peft>=0\.21'"):
        _ = peft_format.KusabiConfig
    with pytest.raises(AttributeError, match="LoraConfig"):
        _ = peft_format.LoraConfig


@pytest.mark.parametrize("old", ["0.18.1", "0.20.0", "0.9", "unknown"])
def test_a_peft_that_moves_the_entries_is_not_used(monkeypatch, old):
    monkeypatch.setattr(peft_plugin, "version", lambda name: old)
    monkeypatch.setattr(peft_plugin, "import_module", refuse)
    peft_plugin.plug_in()
    with pytest.raises(AdapterError, match=f"PEFT {old} is too old"):
        peft_plugin.kusabi_config()


@pytest.mark.parametrize("new", ["0.21.0", "0.21.2", "0.22.1.dev0", "1.0"])
def test_a_newer_one_is(monkeypatch, new):
    imported = []
    monkeypatch.setattr(peft_plugin, "version", lambda name: new)
    monkeypatch.setattr(peft_plugin, "import_module", imported.append)
    peft_plugin.plug_in()
    assert imported == ["kusabi.adapters.peft_tuner"]


@pytest.mark.parametrize("error", [ImportError, AttributeError, RuntimeError, TypeError])
def test_a_peft_that_cannot_be_imported_stops_no_export(monkeypatch, error):
    def broken(name):
        raise error("HybridCache")

    monkeypatch.setattr(peft_plugin, "version", lambda name: "0.21.2")
    monkeypatch.setattr(peft_plugin, "import_module", broken)
    peft_plugin.plug_in()
    with pytest.raises(error, match="HybridCache"):
        peft_plugin.kusabi_config()


def test_a_peft_of_no_version_stops_no_export(monkeypatch):
    monkeypatch.setattr(peft_plugin, "version", lambda name: None)
    monkeypatch.setattr(peft_plugin, "import_module", refuse)
    peft_plugin.plug_in()


def test_one_import_makes_peft_know_it():
    pytest.importorskip("peft", reason="peft is not installed")
    code = (
        "import kusabi.adapters.peft_format as f, peft; c = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING['KUSABI']; "
        "assert c is f.KusabiConfig and c.__name__ == 'KusabiConfig'"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
