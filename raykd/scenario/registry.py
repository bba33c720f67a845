"""Names to classes, by being there: every module of a package and every entry point of a group is discovered.

A class that is asked for by name is found in the module of that name, so that one method does not wait for all to be imported.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import EntryPoints, entry_points
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

    def __contains__(self, name: object) -> bool:
        """Whether a class is registered under `name`."""
        if not isinstance(name, str):
            return False
        if name not in self._classes and not self._is_discovered:
            if name in self._own_modules() and all(point.name != name for point in self._plugins()):
                importlib.import_module(f"{self._package}.{name}")
            if name not in self._classes:
                self._discover()
        return name in self._classes

    def get(self, name: str) -> type[Any]:
        """The class registered under `name`; `RaykdError` with the nearest known name otherwise."""
        if name not in self:
            raise RaykdError(f"unknown {self.kind} {name!r}; {did_you_mean(name, self._classes)}")
        return self._classes[name]

    def _discover(self) -> None:
        if self._is_discovered:
            return
        for module in self._own_modules():
            importlib.import_module(f"{self._package}.{module}")
        for point in self._plugins():
            self.register(point.name)(point.load())
        self._is_discovered = True

    def _own_modules(self) -> list[str]:
        return [module.name for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__)]

    def _plugins(self) -> EntryPoints:
        return entry_points(group=self._group)


METHODS = Registry("method", "raykd.methods")
NETWORKS = Registry("network", "raykd.models")
SOURCES = Registry("source", "raykd.data.sources")
SHIFTS = Registry("shift", "raykd.data.heterogeneity")
CODECS = Registry("codec", "raykd.codecs")
REGISTRIES = {registry.kind: registry for registry in (METHODS, NETWORKS, SOURCES, SHIFTS, CODECS)}
