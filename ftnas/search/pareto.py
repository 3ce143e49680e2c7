"""Fronts of accuracy against cost: high accuracy is good, low cost is good."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Key = Callable[[Item], float]


def front(items: Iterable[Item], *, accuracy: Key[Item], cost: Key[Item]) -> list[Item]:
    """Return those that no other beats in one and equals or beats in the other, cheapest first.

    Items of equal accuracy and cost stand or fall together.
    """
    best: list[Item] = []
    for item in sorted(items, key=lambda item: (cost(item), -accuracy(item))):
        last = best[-1] if best else item
        equal = accuracy(item) == accuracy(last) and cost(item) == cost(last)
        if equal or accuracy(item) > accuracy(last):
            best.append(item)
    return best


def knee(items: Iterable[Item], *, accuracy: Key[Item], cost: Key[Item]) -> Item:
    """Return the point of the front that lies farthest above the line between the front's ends.

    Beyond it, accuracy costs more than it does in the mean along the front. A front of one or two points bends
    nowhere: its most accurate point is returned.

    Raises:
        ValueError: there are no items.
    """
    points = front(items, accuracy=accuracy, cost=cost)
    if not points:
        raise ValueError("a knee needs at least one candidate")
    start, end = points[0], points[-1]
    width, height = cost(end) - cost(start), accuracy(end) - accuracy(start)
    if width == 0 or len(points) < 3:
        return end

    def above(item: Item) -> float:
        return (accuracy(item) - accuracy(start)) / height - (cost(item) - cost(start)) / width

    return max(points, key=above)


def hypervolume_2d(points: Sequence[tuple[float, float]], *, reference: tuple[float, float]) -> float:
    """Return the area that ``points``, each (accuracy, cost), dominate within ``reference``.

    Args:
        reference: (accuracy, cost) of the worst that counts; points beyond it add nothing.
    """
    floor, ceiling = reference
    inside = [point for point in points if point[0] > floor and point[1] < ceiling]
    steps = front(inside, accuracy=lambda point: point[0], cost=lambda point: point[1])
    area, height = 0.0, floor
    for accuracy, cost in steps:
        area += (accuracy - height) * (ceiling - cost)
        height = accuracy
    return area


def leaders(items: Sequence[Item], count: int, *, accuracy: Key[Item], cost: Key[Item]) -> list[Item]:
    """Return the ``count`` most accurate items on the front or near it, most accurate first.

    Fronts are peeled off one after another until they hold ``count`` items. So an item is passed over for a less
    accurate one only if a cheaper item is at least as accurate.
    """
    rest = list(items)
    pool: list[Item] = []
    while rest and len(pool) < count:
        layer = front(rest, accuracy=accuracy, cost=cost)
        pool.extend(layer)
        taken = {id(item) for item in layer}
        rest = [item for item in rest if id(item) not in taken]
    return sorted(pool, key=lambda item: (-accuracy(item), cost(item)))[:count]
