"""Many files: what is done with each, in one place for all who do it, and workers that go through them."""
