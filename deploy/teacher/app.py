"""The stand-in teacher's HTTP app: OpenAI's endpoints over one `Stage`.

Reads requests, asks the stage, renders whole answers or streams. Any model name is answered and no
key is asked for: which requests may pass is the proxy's business, not a stand-in's.
"""

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from deploy.openai_api import (
    EVENT_STREAM,
    ApiError,
    Json,
    Usage,
    chat_envelope,
    json_response,
    model_card,
    read,
    speak_openai,
    text_envelope,
)
from deploy.teacher import chat, embedding, responses
from deploy.teacher.answer import Answer, Question, Teacher, limited, pieces
from deploy.teacher.stage import Conditions, Stage


def make_app(teacher: Teacher, conditions: Conditions) -> FastAPI:
    """The app; all state lives in it, so that tests may run several."""
    app = FastAPI(title="Understudy stand-in teacher", openapi_url=None)
    speak_openai(app)
    stage = Stage(teacher, conditions)

    @app.get("/health")
    async def health() -> Response:
        return json_response({"status": "ok"})

    @app.get("/v1/models")
    async def models() -> Response:
        cards = [model_card(conditions.model or "teacher")]
        return json_response({"object": "list", "data": cards})

    @app.get("/v1/models/{model}")
    async def model(model: str) -> Response:
        return json_response(model_card(stage.model(model)))

    @app.post("/v1/chat/completions")
    async def chat_completions(http: Request) -> Response:
        return await _chat(stage, read(await http.body(), chat.ChatRequest))

    @app.post("/v1/completions")
    async def completions(http: Request) -> Response:
        return await _completions(stage, read(await http.body(), chat.CompletionRequest))

    @app.post("/v1/embeddings")
    async def embeddings(http: Request) -> Response:
        request = read(await http.body(), embedding.EmbeddingRequest)
        await stage.begin()
        return json_response(embedding.embeddings(request, chat.prompts(request.input)))

    @app.post("/v1/responses")
    async def respond(http: Request) -> Response:
        return await _respond(stage, read(await http.body(), responses.ResponsesRequest))

    return app


async def _chat(stage: Stage, request: chat.ChatRequest) -> Response:
    question = Question(
        request.messages, request.tools, request.tool_choice, request.response_format
    )
    if not request.messages:
        raise ApiError(400, "'messages' is empty; give at least one message", param="messages")
    await stage.begin()
    cut = request.max_completion_tokens or request.max_tokens
    answer = limited(stage.teacher.answer(question), chat.stops(request.stop), cut)
    indices = range(_choices(request.n))
    usage = stage.usage(question, answer.tokens() * len(indices))
    envelope = chat_envelope(stage.model(request.model), stage.fingerprint())
    if request.stream:
        deltas = (d for i in indices for d in chat.chat_deltas(i, answer))
        with_usage = bool(request.stream_options and request.stream_options.include_usage)
        return StreamingResponse(
            stage.paced(deltas, envelope, usage, with_usage), headers=EVENT_STREAM
        )
    await stage.token(answer.tokens())
    whole = envelope.whole([chat.chat_choice(i, answer) for i in indices], usage)
    return json_response(whole)


async def _completions(stage: Stage, request: chat.CompletionRequest) -> Response:
    await stage.begin()
    answers: list[Answer] = []
    asked = 0
    for prompt in chat.prompts(request.prompt):
        question = Question([{"role": "user", "content": prompt}])
        asked += len(pieces(prompt))
        answer = limited(
            stage.teacher.answer(question), chat.stops(request.stop), request.max_tokens or 16
        )
        echo = prompt if request.echo else ""
        answers += [answer._replace(content=echo + (answer.content or ""))] * _choices(request.n)
    usage = Usage(asked, sum(answer.tokens() for answer in answers))
    envelope = text_envelope(stage.model(request.model), stage.fingerprint())
    if request.stream:
        deltas = (d for i, a in enumerate(answers) for d in chat.text_deltas(i, a))
        with_usage = bool(request.stream_options and request.stream_options.include_usage)
        return StreamingResponse(
            stage.paced(deltas, envelope, usage, with_usage), headers=EVENT_STREAM
        )
    await stage.token(usage.completion)
    return json_response(
        envelope.whole([chat.text_choice(i, a) for i, a in enumerate(answers)], usage)
    )


async def _respond(stage: Stage, request: responses.ResponsesRequest) -> Response:
    earlier = stage.conversation(request.previous_response_id)
    question = Question(
        responses.messages(request, earlier), responses.tools(request), request.tool_choice
    )
    await stage.begin()
    answer = limited(stage.teacher.answer(question), [], request.max_output_tokens)
    usage = stage.usage(question, answer.tokens())
    whole = responses.response(request, answer, usage) | {"model": stage.model(request.model)}
    if request.store:
        stage.keep(whole["id"], [*_without_system(question.messages), answer.as_message()])
    if request.stream:
        return StreamingResponse(stage.named(responses.events(whole)), headers=EVENT_STREAM)
    await stage.token(answer.tokens())
    return json_response(whole)


def _choices(n: int | None) -> int:
    if n is None or 1 <= n <= 128:
        return n or 1
    raise ApiError(400, f"'n' is {n}; it must be between 1 and 128", param="n")


def _without_system(messages: list[Json]) -> list[Json]:
    return [message for message in messages if message.get("role") != "system"]
