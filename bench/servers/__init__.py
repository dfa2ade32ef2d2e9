"""The servers that userprofile is measured beside. Each prints `listening on HOST:PORT` and runs until it is ended."""
