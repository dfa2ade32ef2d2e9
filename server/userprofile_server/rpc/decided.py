"""The methods that a policy covers."""

from userprofile_server.rpc import reflection, service

METHODS = (*(f"/{service.SERVICE.full_name}/{method.name}" for method in service.SERVICE.methods), *reflection.PATHS)
"""The paths of all methods except health checks, which are always allowed."""
