"""`ae_config.toml` becomes one frozen, validated record: this module is the only reader of the file.

Paths in the file are relative to the file's own folder, so that the example runs wherever it is copied to.
Descriptions of the fields are written as the cure that a person needs when the value is wrong.
"""

from dicomnode.config.analysis import AnalysisTable, SelectionTable, WeightsTable
from dicomnode.config.destination import OBJECTS, Destination, ObjectName, TransferSyntaxName
from dicomnode.config.loading import load, parse
from dicomnode.config.node import Caller, Logging, Node, Settle, Storage, Worker
from dicomnode.config.notify import Notify
from dicomnode.config.priors import Priors
from dicomnode.config.registry import RegistryTable, RetrainingTable
from dicomnode.config.routing import Profile, Route, Routing
from dicomnode.config.settings import Config
from dicomnode.config.steps import Mpps, Ups
from dicomnode.config.worklist import Worklist

__all__ = [
    "OBJECTS",
    "AnalysisTable",
    "Caller",
    "Config",
    "Destination",
    "Logging",
    "Mpps",
    "Node",
    "Notify",
    "ObjectName",
    "Priors",
    "Profile",
    "RegistryTable",
    "RetrainingTable",
    "Route",
    "Routing",
    "SelectionTable",
    "Settle",
    "Storage",
    "TransferSyntaxName",
    "Ups",
    "WeightsTable",
    "Worker",
    "Worklist",
    "load",
    "parse",
]
