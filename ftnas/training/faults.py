"""The faults that a net is trained under, whose rates may change over the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from ftnas.errors import FaultError
from ftnas.faults import Fault, parse_fault, with_rate
from ftnas.training.schedules import Schedule


@dataclass(frozen=True, slots=True)
class ScheduledFault:
    """A fault model at a rate that is a schedule; ``fault`` has the highest rate of it."""

    fault: Fault
    rate: Schedule

    def at(self, time: float) -> Fault:
        """Return the fault after the share ``time`` of the training."""
        return with_rate(self.fault, self.rate.at(time))

    def to_plain(self) -> Any:
        """Return plain data that ``read_fault`` takes."""
        if len(self.rate.points) == 1:
            return str(self.fault)
        name, _, rest = str(self.fault).partition(":")
        _, _, options = rest.partition(":")
        return {f"{name}:{options}" if options else name: self.rate.to_plain()}


AnyFault = Fault | ScheduledFault


def faults_at(faults: Sequence[AnyFault], time: float) -> list[Fault]:
    """Return ``faults`` as they are after the share ``time`` of the training."""
    return [fault.at(time) if isinstance(fault, ScheduledFault) else fault for fault in faults]


def read_fault(given: Any) -> ScheduledFault:
    """Read ``weights.bit_flip:0.01`` or ``{weights.bit_flip: RATE}``, where the rate may be a schedule.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(given, ScheduledFault):
        return given
    try:
        if isinstance(given, str):
            fault = parse_fault(given)
            return ScheduledFault(fault, Schedule.read(fault.rate))
        if isinstance(given, Mapping) and len(given) == 1:
            return _scheduled(*next(iter(given.items())))
    except FaultError as error:
        raise ValueError(str(error)) from None
    raise ValueError(f"a fault is weights.bit_flip:0.01 or {{weights.bit_flip: RATE}}, got {given!r}")


def _scheduled(text: Any, rate: Any) -> ScheduledFault:
    schedule = Schedule.read(rate)
    name, colon, options = str(text).partition(":")
    for value in (schedule.lowest, schedule.highest):
        fault = parse_fault(f"{name}:{value!r}{colon}{options}")
    return ScheduledFault(fault, schedule)


TrainingFault = Annotated[ScheduledFault, PlainValidator(read_fault), PlainSerializer(ScheduledFault.to_plain)]
