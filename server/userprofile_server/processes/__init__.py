"""More than one process on one port: a supervisor, and the servers that it starts.

`supervisor.py` decides. `spawned.py` is the supervisor's handle of a server process, `child.py` the server process
itself, and `channel.py` the protocol between them. Only `child.py` imports gRPC and stores.
"""
