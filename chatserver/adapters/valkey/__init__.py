"""The store on the Redis protocol: Valkey, Redis, or a Redis Cluster.

    store.ValkeyStore ── conversations, turns, tapes, signals, caches, registry, secrets      one port each
            └── client.Client        which server, once or again, errors
                    └── connect.Link         one server: who asks on which connection
                            ├── pipe.Pipe                    a connection that many ask on at once
                            └── subscription.Subscription    a connection that announcements come on

`keys` names things, `codec` and `frames` write them as bytes, `lua/` holds every step that must be atomic.
"""

from chatserver.adapters.valkey.store import ValkeyStore

__all__ = ["ValkeyStore"]
