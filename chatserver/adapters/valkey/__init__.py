"""The store on the Redis protocol: Valkey, Redis, or a Redis Cluster.

    store.ValkeyStore ── conversations, turns, tapes, signals, caches, registry, secrets      one port each
            └── client.Client        which server, once or again, errors
                    └── connect.Link         one server: connections, pipelines, subscriptions

`keys` names things, `codec` and `frames` write them as bytes, `lua/` holds every step that must be atomic.
"""

from chatserver.adapters.valkey.store import ValkeyStore

__all__ = ["ValkeyStore"]
