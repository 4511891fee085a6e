"""The in-process student server: transformers and peft behind vLLM's HTTP contract.

The only folder of `deploy/` where torch may be imported, and there only in `model.py`, `cache.py`
and `sampling.py`; for small models on a CPU or one GPU, where vLLM is not installed.
"""
