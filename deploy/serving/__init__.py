"""Serving students: engines (vLLM as a process, or transformers in-process), checks, probe."""
