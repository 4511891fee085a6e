"""What the in-process server serves: the model, its worker, and the adapters by their names."""

import asyncio
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from deploy.openai_api import ApiError, Json
from deploy.serving.inprocess.model import Model
from deploy.serving.inprocess.template import writes_tool_calls
from deploy.serving.inprocess.worker import Worker


@dataclass
class Students:
    """The base under its served name, and each adapter's folder under its own."""

    base: str
    model: Model
    template_kwargs: Json
    worker: Worker = field(init=False)
    folders: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.worker = Worker(self.model)
        self.tokenizer: Tokenizer = self.model.tokenizer.backend_tokenizer
        self.end_ids = self.model.end_ids()
        self.tool_calls = writes_tool_calls(self.model.tokenizer)
        self.decode = lru_cache(maxsize=65536)(self._decode)

    def adapter(self, model: str) -> str | None:
        """The adapter that a request's model names, None for the base; 404 if there is none."""
        if model == self.base:
            return None
        if model not in self.folders:
            raise ApiError(
                404, f"The model '{model}' does not exist.", code="model_not_found", param="model"
            )
        return model

    async def load(self, name: str, folder: Path, *, in_place: bool) -> None:
        """Load an adapter; a name in use is refused unless it is to be replaced."""
        if name == self.base or (name in self.folders and not in_place):
            raise ApiError(
                400,
                f"The lora adapter '{name}' has already been loaded; unload it "
                "first, or set 'load_inplace'",
                param="lora_name",
            )
        if not (folder / "adapter_config.json").is_file():
            raise ApiError(404, f"{folder} holds no adapter", param="lora_path")
        await asyncio.wrap_future(self.worker.call(lambda: self.model.load(name, folder)))
        self.folders[name] = folder

    async def unload(self, name: str) -> None:
        """Forget an adapter; requests that are running on it fail, new ones are a 404."""
        if self.folders.pop(name, None) is None:
            raise ApiError(404, f"The lora adapter '{name}' cannot be found.", param="lora_name")
        await asyncio.wrap_future(self.worker.call(lambda: self.model.unload(name)))

    def _decode(self, token: int) -> str:
        return str(self.tokenizer.decode([token], skip_special_tokens=False))
