"""The in-process student server's HTTP app: the same contract as vLLM's (docs/contracts.md).

Models are the base and the adapters loaded by `/v1/load_lora_adapter`. One process, one worker
thread; many requests share its batches.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from deploy.openai_api import (
    EVENT_STREAM,
    ApiError,
    json_response,
    model_card,
    read,
    speak_openai,
    sse,
)
from deploy.serving.inprocess import chat, completion
from deploy.serving.inprocess.protocol import ChatRequest, CompletionRequest
from deploy.serving.inprocess.students import Students
from understudy.errors import ServingError


class _Load(msgspec.Struct):
    lora_name: str
    lora_path: str
    load_inplace: bool = False


class _Unload(msgspec.Struct):
    lora_name: str


def make_app(students: Students) -> FastAPI:
    """The app over a loaded model; closing the app stops the worker."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(students.worker.close)

    app = FastAPI(title="Understudy student server", openapi_url=None, lifespan=lifespan)
    speak_openai(app)
    _add_generation(app, students)
    _add_adapters(app, students)
    return app


def _add_generation(app: FastAPI, students: Students) -> None:
    @app.post("/v1/chat/completions")
    async def chat_completions(http: Request) -> Response:
        request = read(await http.body(), ChatRequest)
        answer = chat.Chat(students, request)
        if request.stream:
            return StreamingResponse(_in_band(answer.stream()), headers=EVENT_STREAM)
        return json_response(await answer.whole(http))

    @app.post("/v1/completions")
    async def completions(http: Request) -> Response:
        request = read(await http.body(), CompletionRequest)
        answer = completion.Completion(students, request)
        if request.stream:
            return StreamingResponse(_in_band(answer.stream()), headers=EVENT_STREAM)
        return json_response(await answer.whole(http))


def _add_adapters(app: FastAPI, students: Students) -> None:
    @app.get("/health")
    async def health() -> Response:
        return Response(status_code=200 if students.worker.alive() else 503)

    @app.get("/v1/models")
    async def models() -> Response:
        base = model_card(
            students.base, root=students.base, parent=None, max_model_len=students.model.max_length
        )
        adapters = [
            model_card(name, root=str(path), parent=students.base)
            for name, path in students.folders.items()
        ]
        return json_response({"object": "list", "data": [base, *adapters]})

    @app.post("/v1/load_lora_adapter")
    async def load(http: Request) -> Response:
        request = read(await http.body(), _Load)
        try:
            await students.load(
                request.lora_name, Path(request.lora_path), in_place=request.load_inplace
            )
        except ServingError as error:
            raise error if isinstance(error, ApiError) else ApiError(500, str(error)) from error
        return Response(f"Success: LoRA adapter '{request.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(http: Request) -> Response:
        request = read(await http.body(), _Unload)
        await students.unload(request.lora_name)
        return Response(f"Success: LoRA adapter '{request.lora_name}' removed successfully.")


async def _in_band(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events; a failure after the status has gone out is the stream's last event."""
    try:
        async for event in events:
            yield event
    except ApiError as error:
        yield sse(error.body())
