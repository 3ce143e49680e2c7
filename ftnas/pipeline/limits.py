"""What a search may cost, checked against its space before anything is trained."""

from __future__ import annotations

from ftnas.cost import cheapest_costs
from ftnas.data import Dataset
from ftnas.errors import SpaceError
from ftnas.search.settings import ControllerSettings
from ftnas.space import SearchSpace


def check_limits(space: SearchSpace, settings: ControllerSettings, data: Dataset) -> None:
    """Refuse limits that no architecture of ``space`` keeps, alone or together.

    Raises:
        SpaceError: even the cheapest architecture is over ``search.max_flops``, the smallest over
            ``search.max_parameters``, or none keeps both.
    """
    costs = cheapest_costs(space, space.final, image_shape=data.image_shape, classes=data.classes)
    flops, parameters = settings.max_flops, settings.max_parameters
    if flops is not None and flops < costs[0][0]:
        raise SpaceError(
            f"search.max_flops: {flops} is below the cheapest architecture of space {space.name}, "
            f"which has {costs[0][0]} FLOPs"
        )
    if parameters is not None and parameters < costs[-1][1]:
        raise SpaceError(
            f"search.max_parameters: {parameters} is below the smallest architecture of space {space.name}, "
            f"which has {costs[-1][1]} parameters"
        )
    if flops is not None and parameters is not None:
        _check_both(space, flops, parameters, costs)


def _check_both(space: SearchSpace, flops: int, parameters: int, costs: list[tuple[int, int]]) -> None:
    smallest = [size for cost, size in costs if cost <= flops][-1]
    if smallest > parameters:
        raise SpaceError(
            f"search.max_parameters: {parameters} is below the smallest architecture of space {space.name} "
            f"within search.max_flops: {flops}, which has {smallest} parameters"
        )
