"""Names to classes, by being there: every module of a package and every entry point of a group is discovered."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, TypeVar

from raykd.scenario.errors import RaykdError, did_you_mean

T = TypeVar("T", bound=type[Any])


class Registry:
    """The registered classes of one kind. A class carries `Settings`, a pydantic model of its scenario block.

    Args:
        kind: the word users see: method, network, source, shift or codec.
        package: the package whose modules register themselves when imported, one file a thing.
    """

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self._package = package
        self._group = f"raykd.{kind}s"
        self._classes: dict[str, type[Any]] = {}
        self._is_discovered = False

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator that files a class under `name`. A name taken by another class raises `ValueError`."""

        def add(cls: T) -> T:
            if name in self._classes and self._classes[name] is not cls:
                raise ValueError(f"{self.kind} {name!r} is already registered by {self._classes[name].__module__}")
            self._classes[name] = cls
            return cls

        return add

    def names(self) -> list[str]:
        """All known names, sorted."""
        self._discover()
        return sorted(self._classes)

    def get(self, name: str) -> type[Any]:
        """The class registered under `name`; `RaykdError` with the nearest known name otherwise."""
        self._discover()
        if name not in self._classes:
            raise RaykdError(f"unknown {self.kind} {name!r}; {did_you_mean(name, self._classes)}")
        return self._classes[name]

    def _discover(self) -> None:
        if self._is_discovered:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        for point in entry_points(group=self._group):
            self.register(point.name)(point.load())
        self._is_discovered = True


METHODS = Registry("method", "raykd.methods")
NETWORKS = Registry("network", "raykd.models")
SOURCES = Registry("source", "raykd.data.sources")
SHIFTS = Registry("shift", "raykd.data.heterogeneity")
CODECS = Registry("codec", "raykd.codecs")
REGISTRIES = {registry.kind: registry for registry in (METHODS, NETWORKS, SOURCES, SHIFTS, CODECS)}
