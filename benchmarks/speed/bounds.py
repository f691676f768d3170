"""What every measure must reach and should reach: the one place where these numbers stand.

They were written down before anything was measured.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """``unit``: ``times faster`` (peer / ours, larger is better), ``share`` (ours / peer) or ``s`` (smaller is)."""

    title: str
    must: float
    goal: float
    unit: str

    def reached(self, value: float) -> str:
        """``goal``, ``must`` or ``missed``."""
        for name, bound in (("goal", self.goal), ("must", self.must)):
            if (value >= bound) if self.unit == "times faster" else (value <= bound):
                return name
        return "missed"


FASTER, SHARE, SECONDS = "times faster", "share", "s"

BOUNDS = {
    "adaptation_same_layers": Bound("whole adaptation, upper quarter, against PEFT LoRA there", 1.9, 2.5, FASTER),
    "adaptation_clip_lora_10": Bound("whole adaptation against CLIP-LoRA's setting, 10 classes", 4.5, 6.0, FASTER),
    "adaptation_clip_lora_100": Bound("whole adaptation against CLIP-LoRA's setting, 100 classes", 6.5, 10.0, FASTER),
    "adaptation_automatic": Bound(
        "whole adaptation in our automatic precision against PEFT in fp32, CLIP-LoRA's setting, 10 classes", 12.0, 20.0,
        FASTER,
    ),
    "step_entries": Bound("step without prefix cache, single entries, against PEFT LoRA there", 1.10, 1.00, SHARE),
    "step_rows": Bound("step without prefix cache, rows, against PEFT LoRA there", 0.95, 0.85, SHARE),
    "step_columns": Bound("step without prefix cache, columns, against PEFT LoRA there", 0.95, 0.85, SHARE),
    "memory_lora": Bound("peak extra memory, all linears, against PEFT LoRA", 1.0, 0.9, SHARE),
    "memory_shira": Bound("peak extra memory, all linears, against PEFT SHiRA", 0.7, 0.6, SHARE),
    "memory_upper": Bound("peak extra memory, upper quarter and cache, against PEFT LoRA on all", 0.3, 0.25, SHARE),
    "swap": Bound("swap at 0.1 % density against PEFT LoRA's merge and unmerge", 20.0, 50.0, FASTER),
    "loading_lora": Bound("load, verify and attach against PeftModel.from_pretrained of LoRA", 5.0, 10.0, FASTER),
    "loading_shira": Bound("load, verify and attach against PeftModel.from_pretrained of SHiRA", 100.0, 250.0, FASTER),
    "stored": Bound("bytes for a trained entry against PEFT SHiRA", 0.3, 0.27, SHARE),
    "embedded_in_process": Bound("embedded backbone, 200 steps, after load", 10.0, 4.0, SECONDS),
    "embedded_shell": Bound("embedded backbone, 200 steps, from the shell", 20.0, 10.0, SECONDS),
}  # fmt: skip
