"""Layered spiking nets as plain data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ftnas.configuration import Section
from ftnas.quantization import Quantization, Range
from ftnas.spiking.dense.surrogates import SurrogateName

Size = Annotated[int, Field(ge=1, le=4096)]


class SpikingSpec(Section):
    """A net of leaky integrate-and-fire neurons in layers.

    ``channels``: of 3x3 convolutions of stride 2, one layer each. ``widths``: neurons of the fully connected layers
    behind them, without the output layer, which has one neuron a class. ``steps``: time steps that an image is shown
    for, as a constant current. ``leak``: the share of the membrane that a step keeps. ``threshold``: where a neuron
    fires; ``learn_threshold``: training moves it, one number for each layer. ``reset``: what a spike does to the
    membrane: ``zero`` empties it, ``subtract`` takes the threshold off. ``refractory``: steps after a spike in which a
    neuron takes no input. ``initial``: the membrane before the first step, as a share of the threshold. ``surrogate``
    and ``slope``: the gradient of a spike. ``weight_bits``, ``weight_range``: the numbers of weights.
    ``membrane_bits``, ``membrane_limit``: the membrane is a signed code that saturates at plus and minus the limit.

    Two defences of SoftSNN (Putra et al., DAC 2022). ``bounding``: what is read instead of a weight beyond the largest
    magnitude that the clean weights have: 0 (``zero``), or that magnitude (``clip``). ``bound_of``: one such magnitude
    for a whole ``layer``, or for the synapses of each ``neuron``. ``reset_guard``: a neuron whose membrane was at the
    threshold or above after so many resets running no longer fires; SoftSNN takes 2 and resets to zero.
    """

    family: Literal["snn-dense"] = "snn-dense"
    channels: tuple[Size, ...] = ()
    widths: tuple[Size, ...] = (64,)
    steps: int = Field(8, ge=1, le=256)
    leak: float = Field(0.9, gt=0, le=1)
    threshold: float = Field(1.0, gt=0)
    learn_threshold: bool = True
    reset: Literal["zero", "subtract"] = "subtract"
    refractory: int = Field(0, ge=0, le=16)
    initial: float = Field(0.0, ge=0, lt=1)
    surrogate: SurrogateName = "fast_sigmoid"
    slope: float = Field(2.0, gt=0)
    weight_bits: int = Field(8, ge=2, le=16)
    weight_range: str = "power_of_two"
    membrane_bits: int = Field(8, ge=2, le=16)
    membrane_limit: float = Field(4.0, gt=0)
    bounding: Literal["none", "zero", "clip"] = "none"
    bound_of: Literal["layer", "neuron"] = "layer"
    reset_guard: int | None = Field(None, ge=1)

    @field_validator("weight_range")
    @classmethod
    def _range_exists(cls, text: str) -> str:
        Range.parse(text)
        return text

    @model_validator(mode="after")
    def _can_fire(self) -> Self:
        if self.threshold >= self.membrane_limit:
            raise ValueError(
                f"membrane_limit: more than the threshold ({self.threshold:g}), or nothing fires; "
                f"got {self.membrane_limit:g}"
            )
        return self

    @property
    def synapse_numbers(self) -> Quantization:
        """The numbers of weights."""
        return Quantization(weight_bits=self.weight_bits, weight_range=Range.parse(self.weight_range))

    @property
    def membrane_step(self) -> float:
        """What one step of a membrane's code is worth."""
        return float(self.membrane_limit / 2 ** (self.membrane_bits - 1))

    @property
    def membrane_numbers(self) -> Quantization:
        """The numbers of membranes."""
        return Quantization(feature_bits=self.membrane_bits, feature_range=Range("fixed", self.membrane_limit))
