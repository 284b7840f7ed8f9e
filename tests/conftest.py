"""What holds for all tests: examples of hypothesis have no deadline, since test processes share the cores."""

from hypothesis import settings

settings.register_profile("shared-cores", deadline=None)
settings.load_profile("shared-cores")
