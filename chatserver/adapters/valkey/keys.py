"""Names of keys and channels, in one place.

Every key starts with the tag of its shard, `chat:{s03}:`, so all keys of a shard lie in one slot of a
Redis Cluster and every script touches one slot only. Where one server holds all shards a claim
looks at all queues, and `awake` is the registry's.

    chat:{sNN}:c:<conversation>            hash   its fields; `rev` counts changes of its tree
    chat:{sNN}:c:<conversation>:items      hash   item id → item
    chat:{sNN}:c:<conversation>:ids        hash   item id → template hash and packed token ids
    chat:{sNN}:c:<conversation>:up         hash   item id → «depth parent», depth from 1
    chat:{sNN}:c:<conversation>:running    set    ids of responses that have not ended
    chat:{sNN}:c:<conversation>:responses  set    ids of all its responses, for deletion
    chat:{sNN}:t:<tenant>                  zset   conversation id by updated_at
    chat:{sNN}:r:<response>                hash   its fields; `watch` lists the web processes to tell
    chat:{sNN}:r:<response>:tape           stream entry «last + 1»-0, because 0-0 is no legal entry id
    chat:{sNN}:pens                        hash   writer → where it left its pen; see `pens`
    chat:{sNN}:jobs                        zset   waiting response id by queue number
    chat:{sNN}:jobs:next                   int    the last queue number given out
    chat:{sNN}:awake                       string that the only engine looks at the queues again in a moment; expires
    chat:{sNN}:leases                      zset   claimed response id by deadline, server milliseconds
    chat:{sNN}:idem:<digest>               string response id and fingerprint of an idempotency key
    chat:{sNN}:look:<question>             hash   engine id → what its cache holds; expires
    chat:{sNN}:due                         hash   response id → its bill, until it is settled
    chat:{sNN}:settled:<response>          string that its bill was settled; expires
    chat:{sNN}:k:<key>                     hash   an API key; this and what follows lies in its tenant's shard
    chat:{sNN}:k:<key>:buckets             hash   `r`, `t`: units left for requests and tokens; `…_at`: as of when
    chat:{sNN}:k:<key>:held                hash   id of a running response → «tokens picos» reserved for it
    chat:{sNN}:k:<key>:spent:<month>       int    picos spent and reserved
    chat:{sNN}:k:<key>:usage:<month>       hash   «day|what|model» → a sum
    chat:{sNN}:holds                       zset   «key response» by when to look at it, server milliseconds
    chat:{sNN}:payers:<tenant>             set    ids of keys with usage
    chat:{sNN}:tenants                     set    tenants with usage
    chat:{s00}:keys, :deeds                hash   key id → tenant; stream of what operators did
    chat:{s00}:engines, :engine:<id>, :experts:<id>, :models     the registry
    chat:{s00}:cache-salt                  string 32 random bytes; see `Secrets`

A job that is put back keeps its queue number, and every claimed job is older than every waiting one:
«by number» is «put back at the front».
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import blake2b

from chatserver.domain.ids import shard_of
from chatserver.errors import NotFound

REGISTRY_SHARD = 0
ENGINES_CHANNEL = "chat:engines"
"""Wake-ups for all engines; the payload is the shard."""
CHANGES_CHANNEL = "chat:changes"
"""Ids of conversations that have changed, for all web processes; the scripts name it, too."""
CACHES_CHANNEL = "chat:caches"
"""Questions to all engines about the KV cache."""
WEB_CHANNELS = "chat:web:"
"""Prefix of the channel that carries one web process's bundles."""
ENGINE_CHANNELS = "chat:engine:"
"""Prefix of the channel that tells one engine which response to stop."""

CONVERSATION_KINDS = ("conv",)
RESPONSE_KINDS = ("resp", "chatcmpl")


def tag(shard: int) -> str:
    """Return what every key of a shard starts with."""
    return f"chat:{{s{shard:02d}}}:"


@dataclass(frozen=True, slots=True)
class ConversationKeys:
    """The keys of one conversation."""

    shard: int
    fields: str
    items: str
    ids: str
    up: str
    running: str
    responses: str


@dataclass(frozen=True, slots=True)
class ResponseKeys:
    """The keys of one response."""

    shard: int
    fields: str
    tape: str


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of one shard's job queue. `responses`: prefix of its responses' keys."""

    jobs: str
    next: str
    leases: str
    responses: str
    awake: str


@dataclass(frozen=True, slots=True)
class PayerKeys:
    """The keys of one API key, in the shard of its tenant. `spent` and `usage` are prefixes of months."""

    shard: int
    fields: str
    buckets: str
    held: str
    holds: str
    spent: str
    usage: str


@lru_cache(maxsize=512)
def payer(key_id: str, shard: int) -> PayerKeys:
    """Return the keys of an API key that belongs to a tenant of `shard`."""
    root = f"{tag(shard)}k:{key_id}"
    return PayerKeys(
        shard,
        root,
        f"{root}:buckets",
        f"{root}:held",
        f"{tag(shard)}holds",
        f"{root}:spent:",
        f"{root}:usage:",
    )


@lru_cache(maxsize=512)
def conversation(conversation_id: str) -> ConversationKeys:
    """Return a conversation's keys. Raises NotFound if no conversation can have this id."""
    shard = shard_of(conversation_id, *CONVERSATION_KINDS)
    if shard is None:
        raise no_conversation(conversation_id)
    root = f"{tag(shard)}c:{conversation_id}"
    return ConversationKeys(
        shard, root, f"{root}:items", f"{root}:ids", f"{root}:up", f"{root}:running", f"{root}:responses"
    )


@lru_cache(maxsize=2048)
def response(response_id: str) -> ResponseKeys:
    """Return a response's keys. Raises NotFound if no response can have this id."""
    shard = shard_of(response_id, *RESPONSE_KINDS)
    if shard is None:
        raise no_response(response_id)
    root = f"{tag(shard)}r:{response_id}"
    return ResponseKeys(shard, root, f"{root}:tape")


@cache
def pens(shard: int) -> str:
    """Return the key of a shard's pens."""
    return f"{tag(shard)}pens"


@lru_cache(maxsize=64)
def queue(shard: int) -> QueueKeys:
    """Return the keys of a shard's queue."""
    root = tag(shard)
    return QueueKeys(f"{root}jobs", f"{root}jobs:next", f"{root}leases", f"{root}r:", f"{root}awake")


def index(shard: int, tenant: str) -> str:
    """Return the key of a tenant's conversations in a shard."""
    return f"{tag(shard)}t:{tenant}"


def idempotency(shard: int, tenant: str, key: str) -> str:
    """Return the key that remembers an idempotency key; clients choose its text, so only a digest is kept."""
    digest = blake2b(f"{len(tenant)}:{tenant}{key}".encode(), digest_size=16).hexdigest()
    return f"{tag(shard)}idem:{digest}"


def due(shard: int) -> str:
    """Return the key of a shard's bills."""
    return f"{tag(shard)}due"


def settled(shard: int, response_id: str) -> str:
    """Return the key of the mark that a bill was settled."""
    return f"{tag(shard)}settled:{response_id}"


def payers(shard: int, tenant: str) -> str:
    """Return the key of the ids of a tenant's keys that have usage."""
    return f"{tag(shard)}payers:{tenant}"


def tenants(shard: int) -> str:
    """Return the key of a shard's tenants that have usage."""
    return f"{tag(shard)}tenants"


def api_keys() -> str:
    """Return the key of the list of all API keys."""
    return f"{tag(REGISTRY_SHARD)}keys"


def deeds() -> str:
    """Return the key of the log of what operators did."""
    return f"{tag(REGISTRY_SHARD)}deeds"


def look(shard: int, ask: str) -> str:
    """Return the key of the answers to a question about the KV cache."""
    return f"{tag(shard)}look:{ask}"


def engines() -> str:
    """Return the key of the set of engine ids."""
    return f"{tag(REGISTRY_SHARD)}engines"


def engine(engine_id: str) -> str:
    """Return the key of one engine's report."""
    return f"{tag(REGISTRY_SHARD)}engine:{engine_id}"


def experts(engine_id: str) -> str:
    """Return the key of what one engine's experts did."""
    return f"{tag(REGISTRY_SHARD)}experts:{engine_id}"


def models() -> str:
    """Return the key of the models that were ever announced."""
    return f"{tag(REGISTRY_SHARD)}models"


def cache_salt() -> str:
    """Return the key of the secret that KV-cache salts are made with."""
    return f"{tag(REGISTRY_SHARD)}cache-salt"


def no_conversation(conversation_id: str) -> NotFound:
    """Return the error for an unknown or foreign conversation."""
    return NotFound(f"No conversation with id {conversation_id[:80]!r}.", param="conversation_id")


def no_response(response_id: str) -> NotFound:
    """Return the error for an unknown or foreign response."""
    return NotFound(f"No response with id {response_id[:80]!r}.", param="response_id")
