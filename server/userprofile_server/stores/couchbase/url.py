"""The URL of a Couchbase store: `couchbase://host1,host2:11210,[::1]/bucket?scope=…&collection=…&network=…`.

It has its own parser, because Python's `urlsplit` supports only one host: newer versions refuse a list with IPv6
addresses, and all versions silently drop line ends and tabs.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

from userprofile_server.errors import StoreMisconfiguredError

DEFAULT_PORTS = {"couchbase": 11210, "couchbases": 11207}
"""Where nodes listen for the key-value service, by scheme."""

_FORM = "a Couchbase store's URL is couchbase://host1,host2/bucket?scope=…&collection=…&network=…"
_OPTIONS = ("scope", "collection", "network")
_NETWORKS = ("auto", "default", "external")
_WEB_PORTS = {8091, 18091}

_HOST = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[^:]*))?")
_NAME = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})\.)*[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\.?")
_PORT = re.compile("[0-9]{1,5}")
# https://docs.couchbase.com/server/current/learn/buckets-memory-and-storage/buckets.html
_BUCKET = re.compile("[A-Za-z0-9_.%-]{1,100}")
# https://docs.couchbase.com/server/current/learn/data/scopes-and-collections.html
_SCOPE = re.compile("_default|_system|[A-Za-z0-9-][A-Za-z0-9_%-]{0,250}")


class Host(NamedTuple):
    """One of the hosts of a URL."""

    name: str
    """A DNS name, or an IPv4 or IPv6 address without brackets."""
    port: int | None
    """None for the scheme's default."""

    @classmethod
    def parse(cls, text: str) -> "Host":
        """Raises StoreMisconfiguredError if `text` isn't a host."""
        parts = _HOST.fullmatch(text)
        if parts is None:
            hint = "an IPv6 address stands in brackets" if text.count(":") > 1 else "HOST, HOST:PORT or [IPV6]:PORT"
            raise _mistake(f"the URL's host {text!r} can't be one: {hint}")
        name, port = parts["name"], parts["port"]
        if name is None:
            name = parts["ipv6"]
            if "%" in name:
                raise _mistake(f"the URL's host {text!r} has a zone, which the SDK can't use; give the node a DNS name")
            try:
                ipaddress.IPv6Address(name)
            except ValueError:
                raise _mistake(f"the URL's host {text!r} isn't an IPv6 address") from None
        elif not _NAME.fullmatch(name):
            raise _mistake(f"the URL's host {text!r} can't be one: names have ASCII letters, digits, hyphens and dots")
        if port is None:
            return cls(name, None)
        if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
            raise _mistake(f"the URL's port {port!r} can't be one: ports are 1 to 65535")
        if int(port) in _WEB_PORTS:
            raise _mistake(
                f"port {port} is the one of Couchbase's web console and REST API; leave it out of the URL, or give the"
                " one of the key-value service, by default 11210, or 11207 with couchbases://"
            )
        return cls(name, int(port))

    @property
    def is_address(self) -> bool:
        """Whether it is an IP address, which needs no DNS."""
        try:
            ipaddress.ip_address(self.name)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        """Returns the form used in a URL."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class CouchbaseURL:
    """The parts of a URL."""

    scheme: str
    hosts: tuple[Host, ...]
    bucket: str
    scope: str = "_default"
    collection: str = "_default"
    network: str = "auto"
    """Which advertised addresses of nodes to use: `default`, `external`, or `auto` for those that match the URL."""

    @classmethod
    def parse(cls, url: str) -> "CouchbaseURL":
        """Raises StoreMisconfiguredError, which says what is wrong with `url` without repeating credentials."""
        scheme, _, rest = url.partition("://")
        rest, _, query = rest.partition("?")
        netloc, _, bucket = rest.partition("/")
        if "@" in url:  # anywhere: a password may hold a slash
            raise _mistake(
                "credentials don't belong in the URL; see USERPROFILE_SERVER_COUCHBASE_USERNAME and …_PASSWORD"
            )
        hosts = netloc.split(",")
        if scheme not in DEFAULT_PORTS or not all(hosts) or not bucket or "/" in bucket or "#" in url:
            raise _mistake(_FORM)
        if not _BUCKET.fullmatch(bucket):
            raise _mistake("the URL's bucket can't be one: names have up to 100 ASCII letters, digits and _ - . %")
        return cls(scheme, tuple(map(Host.parse, hosts)), bucket, **_options(query))

    @property
    def default_port(self) -> int:
        """The port of a host without one."""
        return DEFAULT_PORTS[self.scheme]

    @property
    def may_be_service(self) -> bool:
        """Whether the URL may name a DNS SRV record: a single host name without a port."""
        (first, *others) = self.hosts
        return not others and first.port is None and not first.is_address

    @property
    def connection(self) -> str:
        """The connection string for the SDK: `couchbase://host1,host2`.

        The SDK uses `urlsplit`, which accepts a bracket only at the beginning, with a port after it.
        """
        bracketed = [host._replace(port=host.port or self.default_port) for host in self.hosts if ":" in host.name]
        return f"{self.scheme}://" + ",".join(map(str, [*bracketed, *(h for h in self.hosts if ":" not in h.name)]))


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for option in filter(None, query.split("&")):
        name, _, value = option.partition("=")
        name, value = unquote(name), unquote(value)
        if name not in _OPTIONS:
            raise _mistake(f"the URL's options are scope, collection and network, not {name!r}")
        if name in options:
            raise _mistake(f"the URL gives {name} twice")
        if name == "network":
            if value not in _NETWORKS:
                raise _mistake("the URL's network is auto, default or external")
        elif not _SCOPE.fullmatch(value):
            raise _mistake(
                f"the URL's {name} can't be one: names have 1 to 251 ASCII letters, digits and _ - %, and begin with"
                " neither _ nor %"
            )
        options[name] = value
    return options


def _mistake(message: str) -> StoreMisconfiguredError:
    return StoreMisconfiguredError(message, permanent=True)
