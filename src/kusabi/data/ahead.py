"""Pictures decoded while the model is busy with those before them."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

WORKERS = min(4, os.cpu_count() or 1)  # Pillow lets other threads run while it decodes and resizes


def made_ahead(make: Callable[[Item], Made], blocks: Sequence[Sequence[Item]]) -> Iterator[list[Made]]:
    """What is made of every item, block by block and in order; the next block is made while one is used.

    Two blocks at most are alive, however many there are. Whatever ``make`` raises is raised here, when its block is
    due; blocks after it are not begun.

    Args:
        make: Called by other threads, for several items at once.
        blocks: Of items.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        coming = [pool.submit(make, item) for item in blocks[0]] if blocks else []
        try:
            for following in (*blocks[1:], ())[: len(blocks)]:
                made = [future.result() for future in coming]
                coming = [pool.submit(make, item) for item in following]
                yield made
        finally:
            for future in coming:
                future.cancel()
