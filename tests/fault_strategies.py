"""Every fault model with any options."""

from __future__ import annotations

from hypothesis import strategies as st

from ftnas.faults import (
    BitBias,
    BitFlip,
    BitwiseStuckCell,
    DirectedFlip,
    Fault,
    Gaussian,
    LogNormal,
    MacBitBias,
    OutputPattern,
    RandomValue,
    StuckBit,
    StuckCell,
)
from ftnas.faults.models import CHOICES

RATES = st.floats(0, 1)


def one_of(option: str) -> st.SearchStrategy[str]:
    return st.sampled_from(CHOICES[option])


ANY = {"scope": one_of("scope")}
LASTING = {"duration": st.none() | one_of("duration"), "activity": RATES} | ANY
BOTH = {"target": one_of("target")} | LASTING
CELLS = {"stuck_at_one": RATES} | ANY
PATTERN = {"shape": one_of("shape"), "value": one_of("value"), "size": st.integers(1, 64)}


def models(rates: st.SearchStrategy[float], sigmas: st.SearchStrategy[float], *, bits: int) -> st.SearchStrategy[Fault]:
    """Return fault models at any of these rates or sigmas, with upsets of up to ``bits`` adjacent bits."""
    return st.one_of(
        st.builds(BitFlip, rates, adjacent=st.integers(1, bits), **BOTH),
        st.builds(StuckBit, rates, stuck_at_one=RATES, **BOTH),
        st.builds(DirectedFlip, rates, to_one=RATES, to_zero=RATES, **BOTH),
        st.builds(RandomValue, rates, **BOTH),
        st.builds(BitBias, rates, **LASTING),
        st.builds(MacBitBias, rates, rounding=one_of("rounding"), bias=one_of("bias"), **LASTING),
        st.builds(OutputPattern, rates, **PATTERN, **LASTING),
        st.builds(StuckCell, rates, reach=one_of("reach"), **CELLS),
        st.builds(BitwiseStuckCell, rates, **CELLS),
        st.builds(LogNormal, sigmas, **ANY),
        st.builds(Gaussian, sigmas, target=one_of("target"), **ANY),
    )
