"""The web role that the client talks to is the one of the transports' tests."""

from tests.chatserver.transports.conftest import web  # noqa: F401 - a fixture
