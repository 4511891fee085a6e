"""The stand-in teacher: an OpenAI-compatible server for demos and tests, without a model."""
