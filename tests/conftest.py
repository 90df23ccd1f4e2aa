"""For all tests: an example of hypothesis may take as long as a busy machine needs."""

from hypothesis import HealthCheck, settings

settings.register_profile("busy machines", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machines")
