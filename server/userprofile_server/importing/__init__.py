"""Imports users: reads JSON in many layouts, and writes documents to a store. `importer.py` is the entry point."""

from userprofile_server.importing.importer import Importer
from userprofile_server.importing.other_systems import FORMATS

__all__ = ["FORMATS", "Importer"]
