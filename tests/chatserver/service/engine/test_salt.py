"""Tenants' KV-cache salts."""

from chatserver.service.engine.salt import salts


def test_a_salt_depends_on_tenant_and_secret():
    """The same in every process of one store, another for every tenant, and not to be had without the secret."""
    one, again, other = salts(b"a" * 32), salts(b"a" * 32), salts(b"b" * 32)
    assert one("t") == again("t") != other("t")
    assert len({one(f"t{n}") for n in range(1000)} | {one("")}) == 1001
    assert len(one("t")) == 32
