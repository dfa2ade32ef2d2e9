"""Serves any SDK: `python -m tests.couchbase_node --load users.jsonl` prints a connection string and waits."""

import argparse
import asyncio
import json
import signal
import ssl
from pathlib import Path

from tests.couchbase_node.cluster import Cluster, Document
from tests.couchbase_node.node import Node
from tests.couchbase_node.protocol import Datatype

_JSON_FLAGS = 0x02000006


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.couchbase_node", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="of the first node; 0 takes a free one")
    parser.add_argument("--bucket", default="default")
    parser.add_argument("--collection", action="append", default=[], metavar="SCOPE.COLLECTION")
    parser.add_argument("--username", default="username")
    parser.add_argument("--password", default="password")
    parser.add_argument("--certificate", type=Path, help="PEM file with certificate and key; serves TLS alone")
    parser.add_argument("--load", type=Path, help="JSON lines, each a document with a username")
    asyncio.run(serve(parser.parse_args()))


async def serve(args: argparse.Namespace) -> None:
    cluster = Cluster({args.username: args.password}, [args.bucket])
    bucket = cluster.buckets[args.bucket]
    for path in args.collection:
        bucket.add_collection(*path.split("."))
    for line in args.load.read_bytes().splitlines() if args.load else ():
        key = f"userprofile::{json.loads(line)['username']}".encode()
        bucket.put(bucket.place(key), Document(line, _JSON_FLAGS, cluster.next_cas(), int(Datatype.JSON)))
    tls = None
    if args.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(args.certificate)
    for number in range(args.nodes):
        node = Node(cluster, port=args.port if number == 0 else 0, tls=tls)
        await node.start()
        cluster.add_node(node)
    hosts = ",".join(f"{node.host}:{node.port}" for node in cluster.nodes)
    print(f"couchbase{'s' if tls else ''}://{hosts}/{args.bucket}", flush=True)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()


if __name__ == "__main__":
    main()
