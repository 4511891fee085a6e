"""Embeddings of a stand-in teacher: hashed words on the unit sphere, float or base64.

Texts that share words are near each other, which is all that a demo needs. The SDK asks for base64
(little-endian float32) unless told otherwise. Deterministic.
"""

import base64
import hashlib
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from deploy.openai_api import ApiError, Json
from deploy.teacher.answer import pieces

DIMENSIONS = 256


class EmbeddingRequest(msgspec.Struct):
    """The body of `POST /v1/embeddings`."""

    model: str
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


def embeddings(request: EmbeddingRequest, texts: list[str]) -> Json:
    """The list of vectors, in the order of the input, with usage."""
    if not texts:
        raise ApiError(400, "'input' is empty; give at least one text", param="input")
    vectors = [_vector(text, request.dimensions or DIMENSIONS) for text in texts]
    used = sum(len(pieces(text)) for text in texts)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": _encoded(v, request.encoding_format)}
            for i, v in enumerate(vectors)
        ],
        "model": request.model,
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }


def _vector(text: str, dimensions: int) -> NDArray[np.float32]:
    vector = np.zeros(dimensions, np.float32)
    for piece in pieces(text.casefold()) or [""]:
        digest = int.from_bytes(hashlib.blake2b(piece.strip().encode(), digest_size=8).digest())
        vector[digest % dimensions] += 1.0 if digest >> 63 else -1.0
    norm = float(np.linalg.norm(vector))
    return vector / np.float32(norm) if norm else vector


def _encoded(vector: NDArray[np.float32], encoding: str) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(value) for value in vector]
