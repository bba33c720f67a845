"""The words of a scenario for differential privacy: of whole sites, and of the patients within one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from raykd.scenario.fields import NonNegativeFloat, PositiveFloat, Strict

Delta = Annotated[float, Field(gt=0.0, lt=1.0)]


class ClientPrivacy(Strict):
    """Every upload is clipped, as a whole, around what the client had received, and Gaussian noise is added (DP-FedAvg)."""

    clip_norm: PositiveFloat
    """Largest Euclidean norm of an update, over all that is uploaded together [S, C]."""
    noise_multiplier: NonNegativeFloat
    """Standard deviation of the noise in units of `clip_norm` [z]: of the noise on each upload, or on their sum."""
    delta: Delta = 1.0e-5
    """The epsilon that is told holds with this delta; refused where it is not below one over the number of sites."""
    where: Literal["client", "server"] = "client"
    """Who adds noise: each `client`, before its upload leaves it, so that it is protected from the server too; or the `server`,
    which sees uploads as they are, to their sum: a mean of m uploads has sqrt(m) times less noise."""


class RecordPrivacy(Strict):
    """Every local step clips the gradient of each patient and adds Gaussian noise (DP-SGD)."""

    max_grad_norm: PositiveFloat
    """Largest Euclidean norm of one patient's gradient [C]."""
    noise_multiplier: NonNegativeFloat
    """Standard deviation of the noise on their sum in units of `max_grad_norm` [sigma]."""
    delta: Delta = 1.0e-5
    """The epsilon that is told holds with this delta; refused where it is not below one over a site's labelled patients."""


class Privacy(Strict):
    """What is done so that uploads tell little of any one site, or of any one patient of a site."""

    client: ClientPrivacy | None = None
    """Protects whole sites: noise on updates."""
    records: RecordPrivacy | None = None
    """Protects patients: noise on the gradients of local steps."""

    @model_validator(mode="after")
    def _protects_somebody(self) -> Privacy:
        if self.client is None and self.records is None:
            raise PydanticCustomError("privacy", "must have `client`, `records` or both; leave the block out for neither")
        return self
