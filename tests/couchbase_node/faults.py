"""What a node can be told to do wrong. All of it can be changed while clients are connected."""

from dataclasses import dataclass, field


@dataclass
class Faults:
    """The misbehaviour of one node, `Faults()` being none.

    Refusing connections and restarting aren't here: stop and start the node.
    """

    full: bool = False
    """Accept connections and close them at once, as a node does that has as many as it may have."""
    warming_up: int = 0
    """Have no bucket yet: answer whoever selects one or asks for a document by this status.

    After a restart that is 0x01 while the buckets are being made, and 0x86 while their documents are being loaded.
    """
    mute: bool = False
    """Accept connections and requests, and throw all of them away."""
    frozen: bool = False
    """Read nothing, as if the process were stopped; what waits is answered once that is over."""
    delay: float = 0.0
    """Seconds by which each answer to a document operation is late."""
    statuses: dict[int, int] = field(default_factory=dict)
    """Answer requests with this opcode by this status, whatever they ask."""
    reset_mid_frame: bool = False
    """Send half of the answer to a document operation, then reset the connection."""
    overlong: str = ""
    """Answer document operations by a header that says more of this than the body has: "key" or "extras"."""
    truncate: bool = False
    """Send half of the answer to a document operation, then close the connection properly."""
