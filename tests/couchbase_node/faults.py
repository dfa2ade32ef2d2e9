"""What a node can be told to do wrong. All of it can be changed while clients are connected."""

from dataclasses import dataclass, field


@dataclass
class Faults:
    """The misbehaviour of one node, `Faults()` being none.

    Refusing connections and restarting aren't here: stop and start the node.
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
    truncate: bool = False
    """Send half of the answer to a document operation, then close the connection properly."""
