"""`ae_config.toml` becomes one frozen, validated record: this module is the only reader of the file.

Paths in the file are relative to the file's own folder, so that the example runs wherever it is copied to.
Descriptions of the fields are written as the cure that a person needs when the value is wrong.
"""

from dicomnode.config.alerts import AlertsTable
from dicomnode.config.analysis import AnalysisTable, SelectionTable, WeightsTable
from dicomnode.config.audit import AuditTable
from dicomnode.config.console import ConsoleTable, OidcTable
from dicomnode.config.destination import (
    OBJECTS,
    SYNTAXES,
    USUAL_OBJECTS,
    DestinationTable,
    DicomDestinationTable,
    FhirDestinationTable,
    Hl7DestinationTable,
    ObjectName,
    PartName,
    ReportDestinationTable,
    StowDestinationTable,
    TransferSyntaxName,
)
from dicomnode.config.loading import load, parse
from dicomnode.config.node import CallerTable, LoggingTable, NodeTable, SettleTable, StorageTable, WorkerTable
from dicomnode.config.notify import NotifyTable
from dicomnode.config.priors import PriorsTable
from dicomnode.config.registry import RegistryTable, RetrainingTable
from dicomnode.config.remote import RemoteTable
from dicomnode.config.results import ResultsTable
from dicomnode.config.routing import ProfileTable, RouteTable, RoutingTable
from dicomnode.config.settings import Config
from dicomnode.config.steps import MppsTable, UpsTable
from dicomnode.config.tls import TlsTable
from dicomnode.config.worklist import WorklistTable

__all__ = [
    "OBJECTS",
    "SYNTAXES",
    "USUAL_OBJECTS",
    "AlertsTable",
    "AnalysisTable",
    "AuditTable",
    "CallerTable",
    "Config",
    "ConsoleTable",
    "DestinationTable",
    "DicomDestinationTable",
    "FhirDestinationTable",
    "Hl7DestinationTable",
    "LoggingTable",
    "MppsTable",
    "NodeTable",
    "NotifyTable",
    "ObjectName",
    "OidcTable",
    "PartName",
    "PriorsTable",
    "ProfileTable",
    "RegistryTable",
    "RemoteTable",
    "ReportDestinationTable",
    "ResultsTable",
    "RetrainingTable",
    "RouteTable",
    "RoutingTable",
    "SelectionTable",
    "SettleTable",
    "StorageTable",
    "StowDestinationTable",
    "TlsTable",
    "TransferSyntaxName",
    "UpsTable",
    "WeightsTable",
    "WorkerTable",
    "WorklistTable",
    "load",
    "parse",
]
