"""Tests. Servers within their process are to do what the program does; gRPC reads this when it is imported."""

import os

from userprofile_server.__main__ import GRPC_EXPERIMENTS

os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)
