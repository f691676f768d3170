"""The whole recipe in one command: ``python -m pretraining --cache DIR``; stages that are done are not done again."""

import argparse
import json
import os
import platform
from dataclasses import replace
from pathlib import Path

from pretraining.gather import SENTENCES, Sources, drawn_captions, gather, read_sources
from pretraining.train import Schedule, train

TEXT_STEPS = 2000


def main() -> None:
    """Fetch, render, train both towers, export, measure."""
    parser = argparse.ArgumentParser(prog="python -m pretraining", description=__doc__)
    parser.add_argument("stage", nargs="?", default="all", choices=["all", "vision", "text", "export", "report"])
    parser.add_argument("--cache", type=Path, required=True, help="packages, rendered pictures, teacher embeddings")
    parser.add_argument("--run", type=Path, help="checkpoints and logs; default: CACHE/run")
    parser.add_argument("--out", type=Path, default=Path("src/kusabi/backbones/mini"), help="the exported folder")
    parser.add_argument("--steps", type=int, default=Schedule.steps, help="of the vision tower")
    parser.add_argument("--text-steps", type=int, default=TEXT_STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--note", default="", help="what else the card should say about how this run was made")
    asked = parser.parse_args()
    run = asked.run or asked.cache / "run"
    run.mkdir(parents=True, exist_ok=True)
    sources = read_sources(asked.cache)
    if asked.stage in ("all", "vision"):
        schedule = replace(Schedule(), steps=asked.steps, seed=asked.seed)
        train(gather(sources, asked.cache), sources.folders["onnx"], run, schedule)
    if asked.stage in ("all", "text"):
        _text(sources, asked.cache, run, asked.text_steps, asked.seed)
    if asked.stage in ("all", "export"):
        _export(sources, run, asked.out)
    if asked.stage in ("all", "report"):
        _report(sources, asked.cache, run, asked.out, asked.note)


def _text(sources: Sources, cache: Path, run: Path, steps: int, seed: int) -> None:
    from pretraining.corpus import build_corpus
    from pretraining.text import train_text

    captions = {icon.caption for icon in sources.icons} | drawn_captions()
    corpus = build_corpus(sorted(captions), sources.folders["emoji"], cache, SENTENCES, seed)
    train_text(corpus, cache, run, steps, seed=seed)


def _export(sources: Sources, run: Path, out: Path) -> None:
    from transformers import AutoTokenizer

    from pretraining.export import build_dual, export
    from pretraining.report import calibrated_scale
    from pretraining.text import load_text
    from pretraining.train import finished_student

    vision, text = finished_student(run / "checkpoint.safetensors"), load_text(run)
    tokenizer = AutoTokenizer.from_pretrained(run)
    towers = (vision.tower, vision.head, text.tower, text.head)
    export(build_dual(*towers, vision.log_scale.item()), tokenizer, run / "uncalibrated", "")
    scale = calibrated_scale(run / "uncalibrated", sources)
    export(build_dual(*towers, scale), tokenizer, out, "The figures of this card are being measured.\n")


def _report(sources: Sources, cache: Path, run: Path, out: Path, note: str) -> None:
    from pretraining.card import write_card
    from pretraining.gather import SHAPE_PICTURES, TEXTURE_PICTURES
    from pretraining.report import describe_model, measure, training_data
    from pretraining.sources import VALIDATION

    data = training_data(sources)
    kept = [icon for icon in sources.icons if icon.caption in sources.shared]
    results = {
        "model": describe_model(out),
        **measure(out, sources, cache),
        "training": {
            **_spent(run),
            "note": f" {note}" if note else "",
            "machine": f"{os.cpu_count()} CPU cores ({platform.machine()})",
            "colour": sum(icon.colour for icon in kept),
            "mono": sum(not icon.colour for icon in kept),
            "captions": len(sources.shared),
            "shapes": SHAPE_PICTURES,
            "textures": TEXTURE_PICTURES,
            "validation": f"icon sets kept aside for that ({', '.join(VALIDATION)}) and drawings of other seeds",
        },
        "training_data": data,
    }
    (out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (out / "README.md").write_text(write_card(results))


def _spent(run: Path) -> dict:
    vision = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    text = json.loads((run / "text-log.jsonl").read_text().splitlines()[-1])
    return {
        "vision_steps": vision["step"],
        "vision_minutes": round(vision["seconds"] / 60, 1),
        "vision_pictures": vision["pictures"],
        "text_steps": text["step"],
        "text_minutes": round(text["seconds"] / 60, 1),
        "texts": text["texts"],
    }


if __name__ == "__main__":
    main()
