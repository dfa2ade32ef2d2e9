"""The faults of a node. All of them can be changed while clients are connected."""

from dataclasses import dataclass, field


@dataclass
class Faults:
    """The faults of one node; `Faults()` is none.

    Refusing connections and restarting aren't here: stop and start the node.
    """

    full: bool = False
    """Accept connections and close them at once, like a node at its connection limit."""
    warming_up: int = 0
    """Have no bucket yet: respond with this status to the selection of a bucket or a request for a document.

    After a restart that is 0x01 while the buckets are being created, and 0x86 while their documents are being loaded.
    """
    mute: bool = False
    """Accept connections and requests, and never respond."""
    frozen: bool = False
    """Read nothing, as if the process were stopped; waiting requests are served afterwards."""
    delay: float = 0.0
    """Seconds by which each response to a document operation is late."""
    bytes_per_second: int = 0
    """Send no more than this on each connection, one response after the other, like a slow network; 0 for no limit."""
    statuses: dict[int, int] = field(default_factory=dict)
    """Respond to requests with this opcode with this status, whatever they request."""
    reset_mid_frame: bool = False
    """Send half of the response to a document operation, then reset the connection."""
    overlong: str = ""
    """Respond to document operations with a header whose length of this is more than the body's: "key" or "extras"."""
    truncate: bool = False
    """Send half of the response to a document operation, then close the connection properly."""
