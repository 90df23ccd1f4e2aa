"""The composition root: the only place that names a concrete engine, a concrete store, a concrete server.

store    the embedded Valkey, in place of this process
web      store ── Hub, Chat ── Starlette on uvicorn
engine   store ── Worker ── SglangEngine | ScriptedEngine
serve    all three as children of a supervisor (see `chatserver.service.supervision.supervisor`)
replay   sends an answer's ids again
operator keys and usage

One module a command, each with `run`; a process imports only its own.
"""
