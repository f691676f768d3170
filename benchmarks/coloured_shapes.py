"""Pictures of one coloured shape each, from the package ``easy-vqa``; class = colour and shape, told by its answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.pool import Pool

COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")


def coloured_shapes(cache: Path) -> tuple[Pool, Pool]:
    """Pictures to learn from (the package's training part) and pictures that judge (its test part)."""
    import easy_vqa

    return (
        named(easy_vqa.get_train_image_paths(), easy_vqa.get_train_questions()),
        named(easy_vqa.get_test_image_paths(), easy_vqa.get_test_questions()),
    )


def named(paths: Mapping[int, str], questions: Sequence[Sequence]) -> Pool:
    """Pictures whose questions were answered with a colour and with a shape, by class, in the order of their index.

    Args:
        paths: Index -> picture file.
        questions: Questions, answers and picture indices, equally long.
    """
    colours: dict[int, str] = {}
    shapes: dict[int, str] = {}
    for _, answer, index in zip(*questions, strict=True):
        if answer in COLOURS:
            colours[index] = answer
        elif answer in SHAPES:
            shapes[index] = answer
    pool: dict[str, list[Path]] = {f"{colour} {shape}": [] for colour in COLOURS for shape in SHAPES}
    for index in sorted(colours.keys() & shapes.keys()):
        pool[f"{colours[index]} {shapes[index]}"].append(Path(paths[index]))
    return pool
