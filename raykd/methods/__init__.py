"""Federated algorithms, one file each, and what one is written with, here or in a package of somebody else."""

from raykd.methods._base import LocalUpdate, Method, MethodSettings, ServerStart, Upload, average, labelled_loss, supervised_loss
from raykd.methods._context import KnowledgeRequest, LocalContext
from raykd.methods._layout import parameter_keys

__all__ = [
    "KnowledgeRequest",
    "LocalContext",
    "LocalUpdate",
    "Method",
    "MethodSettings",
    "ServerStart",
    "Upload",
    "average",
    "labelled_loss",
    "parameter_keys",
    "supervised_loss",
]
