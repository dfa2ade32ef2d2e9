"""The servers that userprofile is compared with. Each prints `listening on HOST:PORT` and runs until it is killed."""
