"""Entry point of the server processes that a supervisor starts."""

from userprofile_server.processes.child import main

main()
