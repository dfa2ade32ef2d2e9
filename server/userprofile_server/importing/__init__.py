"""Importing users: JSON of many shapes in, documents of a store out. `importer.py` is where a run begins."""

from userprofile_server.importing.importer import Importer
from userprofile_server.importing.other_systems import FORMATS

__all__ = ["FORMATS", "Importer"]
