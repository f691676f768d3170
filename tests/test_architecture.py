import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "kusabi"
FILES = sorted(SOURCE.rglob("*.py"))
GRAB_BAGS = re.compile(r"util|helper|common|misc|manager|handler")


@pytest.mark.parametrize("module", ["kusabi.cli", "kusabi.spec", "kusabi.report.written", "kusabi.data.source"])
def test_what_prints_and_reads_starts_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_file_is_one_readable_noun(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300 and not GRAB_BAGS.search(path.name)
    assert not re.search(r"^(from kusabi import|import kusabi$)", text, re.MULTILINE), "nothing imports the root"
    assert "pickle" not in text or "refus" in text
    assert "torchvision" not in re.sub(r'""".*?"""|#.*', "", text, flags=re.DOTALL)
