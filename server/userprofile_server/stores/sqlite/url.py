"""URLs of SQLite stores."""

from pathlib import Path

from userprofile_server.errors import StoreMisconfiguredError


def path_of(url: str) -> Path:
    """Returns the file's path in `sqlite:///relative.db` or `sqlite:////absolute/path.db`.

    Raises:
        StoreMisconfiguredError: the URL has another form.
    """
    path = url.removeprefix("sqlite://")
    if url.startswith("sqlite://") and ("?" in path or "#" in path):
        raise StoreMisconfiguredError(
            "a SQLite store's URL takes no options, and the file's name can't have ? or # in it", permanent=True
        )
    if not path.startswith("/") or len(path) < 2:
        raise StoreMisconfiguredError(
            "a SQLite store's URL is sqlite:///relative/path.db or sqlite:////absolute/path.db, nothing behind it",
            permanent=True,
        )
    return Path(path[1:])
