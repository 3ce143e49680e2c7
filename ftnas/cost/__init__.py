"""FLOPs, parameters and weight bits: by table for genotypes, by counting for any model."""

from ftnas.cost.architectures import cheapest_costs, cheapest_flops, cheapest_parameters, genotype_cost
from ftnas.cost.measured import measure
from ftnas.cost.work import Cost, Work, convolution, factorized_reduce, linear, operator_work, strided

__all__ = [
    "Cost",
    "Work",
    "cheapest_costs",
    "cheapest_flops",
    "cheapest_parameters",
    "convolution",
    "factorized_reduce",
    "genotype_cost",
    "linear",
    "measure",
    "operator_work",
    "strided",
]
