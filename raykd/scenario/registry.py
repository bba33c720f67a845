"""Names to classes, by being there: every module of a package and every entry point of a group is discovered.

A class that is asked for by name is found in the module of that name, so that one method does not wait for all to be imported. What
raykd has of its own is used, whatever plug-ins are called and whether or not they can be imported.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterable
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
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
        self._refused: dict[str, str] = {}
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
        """All names that can be used, sorted."""
        self._discover()
        return sorted(self._classes)

    def refused_plugins(self) -> list[str]:
        """A sentence for each plug-in that is installed and cannot be used, with its distribution."""
        if not self._plugins() and not self._refused:
            return []
        self._discover()
        return list(self._refused.values())

    def __contains__(self, name: object) -> bool:
        """Whether a class is registered under `name`."""
        if not isinstance(name, str):
            return False
        if name not in self._classes and not self._is_discovered:
            if name in self._own_modules():
                importlib.import_module(f"{self._package}.{name}")
            if name not in self._classes:
                self._discover()
        return name in self._classes

    def get(self, name: str) -> type[Any]:
        """The class registered under `name`; else `RaykdError` with the nearest known name, or why a plug-in cannot be used."""
        if name not in self:
            why = self._refused.get(name) or did_you_mean(name, self._classes)
            raise RaykdError(f"unknown {self.kind} {name!r}; {why}")
        return self._classes[name]

    def _discover(self) -> None:
        """Imports raykd's own, then every plug-in: one that fails is refused and hides nothing."""
        if self._is_discovered:
            return
        for module in self._own_modules():
            importlib.import_module(f"{self._package}.{module}")
        own = frozenset(self._classes)
        points: dict[str, list[EntryPoint]] = {}
        for point in self._plugins():
            points.setdefault(point.name, []).append(point)
        for name, named in points.items():
            try:
                self._classes[name] = self._plugin(named, own)
            except _Unusable as error:
                self._refused[name] = f"{self.kind} {name!r} of {_holders(named)} cannot be used: {error}"
        # A plug-in may have registered classes in passing, before it failed.
        is_usable = {name: name in own or (name not in self._refused and _has_settings(cls)) for name, cls in self._classes.items()}
        self._classes = {name: cls for name, cls in self._classes.items() if is_usable[name]}
        self._is_discovered = True

    def _plugin(self, named: list[EntryPoint], own: frozenset[str]) -> type[Any]:
        """The class that entry points of one name lead to. Raises `_Unusable`."""
        point = named[0]
        if point.name in own:
            raise _Unusable("raykd has one of that name, which is used; give it another name")
        if len({other.value for other in named}) > 1:
            raise _Unusable("a name must be given by one distribution; remove the others")
        try:
            cls = point.load()
        except (Exception, SystemExit) as error:
            said = str(error).strip().splitlines()
            raise _Unusable(
                f"importing {point.value} failed: {type(error).__name__}: {said[0] if said else 'it says no more'}"
            ) from None
        if not isinstance(cls, type) or not _has_settings(cls):
            raise _Unusable(f"{point.value} must be a class with Settings, a model with the key name; see docs/plugins.md")
        return cls

    def _own_modules(self) -> list[str]:
        return [module.name for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__)]

    def _plugins(self) -> Collection[EntryPoint]:
        try:
            return entry_points(group=self._group)
        except Exception:  # one distribution whose list of entry points cannot be read
            return [point for distribution in distributions() for point in self._points_of(distribution)]

    def _points_of(self, distribution: Distribution) -> Collection[EntryPoint]:
        try:
            return distribution.entry_points.select(group=self._group)
        except Exception as error:
            name = str(distribution.metadata["Name"])
            self._refused[name] = f"{self.kind}s of {name} cannot be used: its entry points cannot be read ({error})"
            return ()


def _has_settings(cls: Any) -> bool:
    """Whether a class has a settings model that a scenario's block with a `name` can be read by."""
    settings = getattr(cls, "Settings", None)
    return isinstance(settings, type) and "name" in getattr(settings, "model_fields", ())


class _Unusable(Exception):
    """Why a plug-in cannot be used."""


def _holders(points: Iterable[EntryPoint]) -> str:
    """The distributions of entry points."""
    names = [f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution" for point in points]
    return " and ".join(sorted(names))


METHODS = Registry("method", "raykd.methods")
NETWORKS = Registry("network", "raykd.models")
SOURCES = Registry("source", "raykd.data.sources")
SHIFTS = Registry("shift", "raykd.data.heterogeneity")
CODECS = Registry("codec", "raykd.codecs")
REGISTRIES = {registry.kind: registry for registry in (METHODS, NETWORKS, SOURCES, SHIFTS, CODECS)}


def refused_plugins() -> list[str]:
    """A sentence for each plug-in, of any kind, that is installed and cannot be used."""
    return [sentence for registry in REGISTRIES.values() for sentence in registry.refused_plugins()]
