"""A student server as the probe and the loader see it: the few calls of the contract, over HTTP.

Works on vLLM and on the in-process server alike; every failure is a ServingError with the server's
own message.
"""

from typing import Any

import httpx

from understudy.errors import ServingError

TIMEOUT_S = 300.0  # the first request after a load may compile


class StudentServer:
    """One server at `url` (without /v1)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def healthy(self) -> bool:
        """Whether the server answers and says that it is well."""
        try:
            return self._http.get("/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def models(self) -> list[str]:
        """The names that are served, base and adapters."""
        return [card["id"] for card in self._call("GET", "/v1/models").json()["data"]]

    def load(self, name: str, folder: str) -> None:
        """Load an adapter under a name."""
        self._call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder})

    def unload(self, name: str) -> None:
        """Unload an adapter."""
        self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def logprobs(self, model: str, prompt: list[int], completion: list[int]) -> list[float]:
        """Teacher-forced natural logs of the completion's tokens after the prompt."""
        body = {
            "model": model,
            "prompt": prompt + completion,
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
        }
        rows = self._call("POST", "/v1/completions", body).json()["choices"][0]["prompt_logprobs"]
        tail = zip(completion, rows[len(prompt) :], strict=True)
        return [float(row[str(token)]["logprob"]) for token, row in tail]

    def finish_reason(self, model: str, prompt: list[int], max_tokens: int) -> str:
        """How a greedy answer to the prompt ends."""
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        answer = self._call("POST", "/v1/completions", body).json()
        return str(answer["choices"][0]["finish_reason"])

    def _call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise ServingError(f"{self.url}{path} does not answer: {error!r}") from error
        if response.status_code != 200:
            raise ServingError(
                f"{self.url}{path} answered {response.status_code}: {_message(response)}"
            )
        return response


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:500]
