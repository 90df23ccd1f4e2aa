"""Where the server listens, and what it says when it cannot."""

import os
import re
import socket

import pytest

from chatserver.errors import StartupError
from chatserver.service.supervision.listening import listen, reachable, url
from chatserver.settings import Settings

KEYS = (("tenant", "a-long-secret"),)


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


no_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 on this machine")


def test_any_free_port():
    """PORT=0 takes one that is free, and the address says which."""
    with listen(Settings(port=0)) as listener:
        assert url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}/"


def test_port_in_use_names_the_way_out():
    """The most common failure of a first start."""
    with listen(Settings(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            StartupError, match=rf"127\.0\.0\.1:{port} is in use .* choose another port with PORT="
        ):
            listen(Settings(port=port))


@no_ipv6
def test_ipv6_address_is_bracketed():
    """Browsers need it so."""
    with listen(Settings(host="::1", port=0)) as listener:
        assert re.fullmatch(r"http://\[::1\]:\d+/", url(listener))


def test_every_address_is_reachable_on_loopback():
    """The wildcard is no address to open."""
    with listen(Settings(host="0.0.0.0", port=0, api_keys=KEYS)) as listener:
        assert reachable(listener)[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", pytest.param("::", marks=no_ipv6)])
def test_reachable_from_outside_needs_keys(host):
    """Without keys everybody would be the same tenant."""
    with pytest.raises(StartupError, match="keys are needed: set CHATSERVER_API_KEYS=tenant:key"):
        listen(Settings(host=host, port=0))
    listen(Settings(host=host, port=0), stored_keys=True).close()


def test_foreign_address():
    """An address of another machine (of a range for documents) is named as such."""
    with pytest.raises(StartupError, match=r"HOST=192\.0\.2\.1 is not an address of this machine"):
        listen(Settings(host="192.0.2.1", port=0, api_keys=KEYS))


def test_unknown_name():
    """A host that is no name."""
    with pytest.raises(StartupError, match="HOST=no such host is neither an address nor a known name"):
        listen(Settings(host="no such host", port=0))


def test_inherited_descriptor():
    """Web takes the supervisor's socket."""
    with listen(Settings(port=0)) as listener, listen(Settings(listen_fd=os.dup(listener.fileno()))) as same:
        assert same.getsockname() == listener.getsockname()


def test_inherited_descriptor_that_is_no_socket():
    """Named by its variable."""
    with socket.socket() as probe:
        closed = probe.fileno()
    with pytest.raises(StartupError, match="CHATSERVER_LISTEN_FD"):
        listen(Settings(listen_fd=closed))
