"""A test node that speaks Couchbase's key-value protocol on real sockets, and misbehaves on command.

It knows nothing of the code that it tests: `python -m tests.couchbase_node` serves any SDK. In tests,
`TestCluster` runs one or several nodes on a thread of its own.
"""

from tests.couchbase_node.cluster import Cluster, Document, Rights
from tests.couchbase_node.faults import Faults
from tests.couchbase_node.node import Node
from tests.couchbase_node.threaded import TestCluster

__all__ = ["Cluster", "Document", "Faults", "Node", "Rights", "TestCluster"]
