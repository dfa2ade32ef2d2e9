"""Tests. Servers within their process are to do what the program does; gRPC reads this when it is imported."""

import os

from tests.environment import forget_the_shell

forget_the_shell()

from userprofile_server.__main__ import GRPC_EXPERIMENTS  # noqa: E402, nothing is imported before the shell is forgotten

os.environ["GRPC_EXPERIMENTS"] = GRPC_EXPERIMENTS
