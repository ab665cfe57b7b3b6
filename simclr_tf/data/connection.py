"""Whether the servers that a data set is downloaded from can be reached.

tensorflow-datasets tries a download for minutes before it reports that there is no network.
"""

from __future__ import annotations

from collections.abc import Iterable
import queue
import socket
import threading
import urllib.parse
import urllib.request

_MOST_SERVERS = 16
# Seconds. Long enough for three attempts to connect, which a system makes 0, 1 and 3 s after the
# start.
_TIMEOUT = 6.0
_PORTS = {"http": 80, "https": 443, "ftp": 21, "socks4": 1080, "socks5": 1080, "socks5h": 1080}


def why_unreachable(urls: Iterable[str]) -> str | None:
    """Tries to connect to the servers of some URLs, or to the proxies that are set for them.

    Args:
        urls: addresses of files. Those that are neither http, https nor ftp are ignored.

    Returns:
        A clause that names a server and says why it cannot be reached, if none of them can be;
        None if one can be, or if there are no servers.
    """
    servers = sorted({server for server in map(_server, urls) if server is not None})
    servers = servers[:_MOST_SERVERS]
    results: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
    for server in servers:
        # Looking up a name cannot be interrupted, so the program must not wait for the thread.
        threading.Thread(target=_connect, args=(*server, results), daemon=True).start()
    reasons = []
    try:
        for _ in servers:
            host, reason = results.get(timeout=_TIMEOUT)
            if reason is None:
                return None
            reasons.append(f"{host} cannot be reached ({reason})")
    except queue.Empty:
        return f"{servers[0][0]} does not answer within {_TIMEOUT:.0f} s"
    return min(reasons) if reasons else None


def _connect(host: str, port: int, results: queue.SimpleQueue) -> None:
    """Connects to a server, and puts (host, why it failed or None) into `results`."""
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT).close()
    except OSError as error:
        results.put((host, error.strerror or str(error)))
    else:
        results.put((host, None))


def _server(url: str) -> tuple[str, int] | None:
    """Returns the host and port that a download of a URL connects to; None for other schemes."""
    address = urllib.parse.urlsplit(url)
    if address.scheme not in ("http", "https", "ftp") or not address.hostname:
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(address.hostname):
        address = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if not address.hostname:
        return None
    return address.hostname, address.port or _PORTS.get(address.scheme, 80)
