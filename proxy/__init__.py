"""The data plane: relays OpenAI traffic byte for byte, decides who answers, and logs every attempt.

`downstream` (the client's connection) -> `exchange` (sans-IO state machine of one request) ->
`upstream` (pool, or LiteLLM) -> `capture` (frames to the spool); `relay` drives them. Imports no
other part and no heavy library.
"""
