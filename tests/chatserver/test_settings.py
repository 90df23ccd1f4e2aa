"""One reader for every setting: loud about what it does not know, exact about what it does."""

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.errors import StartupError
from chatserver.settings import Settings, environment, options, read


def test_defaults():
    """An empty environment gives the defaults, with the data folder made absolute."""
    assert read({}) == Settings(data_dir=Path(".data").absolute())


def test_command_line_wins():
    """Options are meant for this once, the environment for always."""
    assert (
        read({"CHATSERVER_PORT": "1234", "CHATSERVER_MODEL": "scripted"}, port="4321", model=None).port
        == 4321
    )


def test_empty_variables_are_unset():
    """Compose files and shells pass on variables that nobody has set."""
    assert read({"CHATSERVER_CONTEXT": "", "CHATSERVER_REDIS_URL": ""}) == read({})


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CHATSERVER_PORT", "http", "CHATSERVER_PORT: expected a port from 0 to 65535, got 'http'"),
        ("CHATSERVER_PORT", "65536", "expected a port"),
        ("CHATSERVER_CONTEXT", "12", "at least 256"),
        ("CHATSERVER_LEASE", "nan", "seconds from 0.5"),
        ("CHATSERVER_REDIS_URL", "localhost:6379", "redis://"),
        ("CHATSERVER_API_KEYS", "team", "tenant:key pairs"),
        ("CHATSERVER_API_KEYS", "team:short", "at least 8 characters"),
        ("CHATSERVER_LOG_LEVEL", "loud", "debug, info, warning or error"),
        ("CHATSERVER_PROT", "8000", "unknown setting; did you mean CHATSERVER_PORT"),
        ("REDIS_URL", "localhost", "REDIS_URL: expected redis://"),
    ],
)
def test_wrong_value_names_its_variable(variable, value, message):
    """One line: which variable, what was expected, what was got; the exit code of a usage error."""
    with pytest.raises(StartupError) as error:
        read({variable: value})
    assert message in error.value.message
    assert error.value.exit_code == 2


def test_wrong_option_names_its_flag():
    """Whoever typed --data-dir is not told of a variable."""
    with pytest.raises(StartupError, match="--max-running: expected a count from 1 to 10000, got '0'"):
        read({}, max_running="0")


def test_redis_url_of_a_platform():
    """The name that platforms give it is read, ours wins."""
    assert read({"REDIS_URL": "redis://a"}).redis_url == "redis://a"
    assert read({"REDIS_URL": "redis://a", "CHATSERVER_REDIS_URL": "redis://b"}).redis_url == "redis://b"
    assert read({"REDIS_URL": "redis://a"}, redis_url="redis://c").redis_url == "redis://c"


def test_every_setting_is_an_option():
    """None is forgotten on the command line, and each shows a default that it reads itself."""
    assert [option.name for option in options()] == [field.name for field in fields(Settings)]
    shown = {option.name: option.default for option in options() if option.default}
    assert read({}, **shown) == read({})


@given(
    port=st.integers(0, 65535),
    context=st.none() | st.integers(256, 200_000),
    keys=st.lists(
        st.tuples(
            st.from_regex("[a-z]{1,8}", fullmatch=True), st.from_regex("[a-z0-9]{8,20}", fullmatch=True)
        )
    ),
    lease=st.floats(0.5, 600),
)
def test_children_read_the_same(port, context, keys, lease):
    """What a process hands to its children in the environment is what it read itself."""
    settings = read(
        {}, port=port, context=context, api_keys=tuple(keys), lease=lease, data_dir=Path("/srv/chat")
    )
    assert read(environment(settings)) == settings
