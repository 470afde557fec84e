from hypothesis import settings

# No test asserts anything about time: a slow machine fails nothing.
settings.register_profile("nimblepool", deadline=None, print_blob=True)
settings.load_profile("nimblepool")
