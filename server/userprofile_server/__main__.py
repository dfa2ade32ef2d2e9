"""Entry point of `userprofile-server` and of `python -m userprofile_server`."""

import sys


def main() -> None:
    """Runs the operators' command line, or says what to install when only the client is here."""
    try:
        from userprofile_server.cli import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("userprofile", "userprofile_server"):
            raise  # a broken installation of our own, not a missing extra
        sys.exit(
            f"userprofile-server: the package {error.name!r} is missing; the client alone doesn't need it.\n"
            "Install the server with: pip install 'userprofile[server]'"
        )
    cli(prog_name="userprofile-server")


if __name__ == "__main__":
    main()
