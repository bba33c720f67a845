"""The words of a scenario for how payloads are written before they cross a link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from raykd.scenario.fields import Strict, plugin_block

if TYPE_CHECKING:
    CodecBlock: TypeAlias = Any
else:
    CodecBlock = plugin_block("codec")

Chain = Annotated[tuple[CodecBlock, ...], Field(max_length=2)]
"""Codecs in the order in which the sender applies them."""


class Codecs(Strict):
    """By kind of payload, the codecs that write it, in order; none: as it is. Tensors with fewer than two axes and whole numbers
    always travel as they are."""

    params: Chain = ()
    """A student's parameters."""
    teacher: Chain = ()
    """A teacher's parameters."""
    logits: Chain = ()
    """Soft labels."""
    features: Chain = ()
    """Feature maps."""
    prototypes: Chain = ()
    """Class means, variances and cosines of features."""
    control: Chain = ()
    """Whatever else a method sends: control variates, generators, heads."""

    @model_validator(mode="after")
    def _chains_hold(self) -> Codecs:
        for kind in type(self).model_fields:
            chain = getattr(self, kind)
            for index, codec in enumerate(chain):
                if codec.is_first and index > 0:
                    _refuse(f"{kind}[{index}].name", f"{codec.name} works on whole tensors and must come first")
                if codec.is_last and index < len(chain) - 1:
                    _refuse(f"{kind}[{index}].name", f"{codec.name} leaves no numbers to go on with and must come last")
        return self

    def of(self, kind: str) -> tuple[Any, ...]:
        """The chain of a kind; empty for one that never travels."""
        chain: tuple[Any, ...] = getattr(self, kind, ())
        return chain


class Uploads(Strict):
    """How what leaves a site is written."""

    up: Codecs = Codecs()
    """From the client to the server. Codecs that code changes write a client's parameters less those that it received; what they
    keep for later is the client's own."""

    @model_validator(mode="after")
    def _changes_are_known(self) -> Uploads:
        for kind, place in _codecs_of_changes(self.up):
            if kind != "params":
                rule = f"{place[1]} codes changes, and of {kind} the receiver holds nothing that changed; choose fp16, bf16 or int8"
                _refuse(f"up.{place[0]}", rule)
        return self


class Traffic(Uploads):
    """How payloads are written before they cross a link."""

    down: Codecs = Codecs()
    """From the server to the clients. Codecs that code changes are refused: a client that missed a round holds another model than
    the others."""

    @model_validator(mode="after")
    def _downloads_are_whole(self) -> Traffic:
        for _, (path, name) in _codecs_of_changes(self.down):
            rule = (
                f"{name} codes changes, and clients that missed a round hold other models than the rest; "
                "choose fp16, bf16 or int8 for what goes down"
            )
            _refuse(f"down.{path}", rule)
        return self


def _codecs_of_changes(codecs: Codecs) -> list[tuple[str, tuple[str, str]]]:
    """Kind, and path and name, of every codec that codes changes."""
    return [
        (kind, (f"{kind}[{index}].name", codec.name))
        for kind in type(codecs).model_fields
        for index, codec in enumerate(codecs.of(kind))
        if codec.codes_changes
    ]


def _refuse(path: str, rule: str) -> None:
    raise PydanticCustomError("codec", rule.replace("{", "{{").replace("}", "}}"), {"at": path})


def own_uploads(federation: Traffic, own: Uploads) -> Uploads:
    """A group's codecs: those that it states, and the federation's for all other kinds."""
    stated = {kind: getattr(own.up, kind) for kind in own.up.model_fields_set}
    return Uploads(up=federation.up.model_copy(update=stated))
