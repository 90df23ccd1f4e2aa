"""The arguments of `chatserver keys` and `chatserver usage`; `operators` takes them from there."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from chatserver.domain.access import Scope
from chatserver.ports.access import MAX_LOG

KEYS_HELP = "make, list, limit and revoke API keys, and show what was done with them"
USAGE_HELP = "show what keys used and what it cost, by key, model and day"


def add(
    parser: argparse.ArgumentParser, command: str, add_settings: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add what a command takes, and the settings that say where the store is."""
    if command == "keys":
        _add_key_actions(parser, add_settings)
    else:
        _add_usage_arguments(parser)
        add_settings(parser)


def _add_key_actions(
    parser: argparse.ArgumentParser, add_settings: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add `create`, `list`, `limit`, `revoke` and `log`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(parser))
    create = actions.add_parser("create", help="make a key and show it, once", allow_abbrev=False)
    create.add_argument(
        "--tenant", required=True, help="whose key it is: tenants never see each other's data"
    )
    create.add_argument("--name", default="", help="what it is for")
    create.add_argument(
        "--scopes", default=",".join(Scope), help=f"of {', '.join(Scope)}, separated by commas (default: all)"
    )
    _add_limits(create, "default: no limit, as for the others")
    create.add_argument("--expires", metavar="TIME", help="as in 90d or 12h (default: never)")
    listing = actions.add_parser("list", help="show all keys", allow_abbrev=False)
    limit = actions.add_parser(
        "limit", help="change a key's limits, from its next request on", allow_abbrev=False
    )
    limit.add_argument("key_id", help="id of the key, key_…")
    _add_limits(limit, "none: no limit; what is not given stays")
    revoke = actions.add_parser("revoke", help="make a key invalid at once", allow_abbrev=False)
    revoke.add_argument("key_id", help="id of the key, key_…")
    logged = actions.add_parser("log", help="show what was done, newest first", allow_abbrev=False)
    logged.add_argument("--limit", default="100", help=f"how many entries, at most {MAX_LOG}")
    for action in (create, listing, limit, revoke, logged):
        action.add_argument("--json", action="store_true", help="print JSON")
        add_settings(action)


def _add_limits(parser: argparse.ArgumentParser, unlimited: str) -> None:
    parser.add_argument("--requests-per-minute", metavar="N", help=unlimited)
    parser.add_argument("--tokens-per-minute", metavar="N", help="prompt and answer")
    parser.add_argument("--concurrent", metavar="N", help="answers in progress at once")
    parser.add_argument("--monthly-spend", metavar="AMOUNT", help="in the currency of the table of prices")


def _add_usage_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `chatserver usage` takes."""
    parser.add_argument("--tenant", help="only this tenant's")
    parser.add_argument("--start-date", metavar="DAY", help="first day (UTC), as in 2026-11-01")
    parser.add_argument("--end-date", metavar="DAY", help="last day, included (default: today)")
    parser.add_argument("--group-by", metavar="LIST", help="of key, model and day (default: all three)")
    parser.add_argument("--json", action="store_true", help="print JSON")
