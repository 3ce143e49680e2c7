"""Measuring nets under faults. Knows nothing of which net it measures.

result = run(net, (images, labels), "weights.bit_flip:1e-3", margin=0.005)
result.rates[0].accuracy.interval
"""

from ftnas.campaign.allocation import neyman, pilot_deviations, proportional
from ftnas.campaign.attack import ChipResult, RateResult
from ftnas.campaign.chips import run
from ftnas.campaign.engine import RECORDS, Shard
from ftnas.campaign.estimates import Estimate
from ftnas.campaign.fault_intervals import fault_interval, stratified_interval, stratified_mean
from ftnas.campaign.intervals import (
    Interval,
    bootstrap_t,
    clopper_pearson,
    cluster_interval,
    two_way_interval,
    wilson,
)
from ftnas.campaign.levels import at_rate
from ftnas.campaign.measurement import Measurement, accuracy, chip_accuracies
from ftnas.campaign.outcomes import DENOMINATORS, MEANINGS, Outcomes, critical
from ftnas.campaign.population import Population, Stratum
from ftnas.campaign.records import Records, read_records
from ftnas.campaign.sample_size import (
    CONFIDENCE,
    relative_sample_size,
    sample_size,
    stratified_sample_size,
    units_needed,
    zero_event_bound,
)
from ftnas.campaign.single import BATCH_SIZE as SINGLE_BATCH_SIZE
from ftnas.campaign.single import population_of, run_single
from ftnas.campaign.stopping import Looks, growing_schedule
from ftnas.campaign.strata import SingleResult, StratumResult
from ftnas.campaign.subject import BATCH_SIZE
from ftnas.campaign.tables import Row, document, faulty_state_dict, layer_bit_rows, layer_rows, rows, to_csv

__all__ = [
    "BATCH_SIZE",
    "CONFIDENCE",
    "DENOMINATORS",
    "MEANINGS",
    "RECORDS",
    "SINGLE_BATCH_SIZE",
    "ChipResult",
    "Estimate",
    "Interval",
    "Looks",
    "Measurement",
    "Outcomes",
    "Population",
    "RateResult",
    "Records",
    "Row",
    "Shard",
    "SingleResult",
    "Stratum",
    "StratumResult",
    "accuracy",
    "at_rate",
    "bootstrap_t",
    "chip_accuracies",
    "clopper_pearson",
    "cluster_interval",
    "critical",
    "document",
    "fault_interval",
    "faulty_state_dict",
    "growing_schedule",
    "layer_bit_rows",
    "layer_rows",
    "neyman",
    "pilot_deviations",
    "population_of",
    "proportional",
    "read_records",
    "relative_sample_size",
    "rows",
    "run",
    "run_single",
    "sample_size",
    "stratified_interval",
    "stratified_mean",
    "stratified_sample_size",
    "to_csv",
    "two_way_interval",
    "units_needed",
    "wilson",
    "zero_event_bound",
]
