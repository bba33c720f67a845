"""A procedural knee: a population of subjects, their labelled anatomy, and its MR images under named protocols."""

from raykd.data.phantom.knee.anatomy import LABELS, STRUCTURES, Anatomy, build_anatomy
from raykd.data.phantom.knee.population import Side, Subject, draw_subject
from raykd.data.phantom.knee.render import render
from raykd.data.phantom.knee.sequences import PROTOCOLS, Protocol

__all__ = ["LABELS", "PROTOCOLS", "STRUCTURES", "Anatomy", "Protocol", "Side", "Subject", "build_anatomy", "draw_subject", "render"]
