"""Grammars that go on in the middle: an answer that a crash cut is continued where its grammar was.

SGLang begins the grammar of every request at its root, with the request's first new token. A continued answer's first
tokens are at the end of its prompt: how many travels in `custom_params`, and the grammar accepts them before it rules.
"""

from __future__ import annotations

from typing import Any

from sglang.srt.plugins.hook_registry import HookRegistry, HookType

EMITTED = "emitted"
"""Name of the custom parameter: tokens at the end of the prompt that are the answer's own."""
_READY = "sglang.srt.constrained.grammar_manager.GrammarManager._apply_request_reasoning_config"


def install() -> None:
    """Have the scheduler of this process put grammars where their answers are. Before it is made."""
    HookRegistry.register(_READY, _go_on, HookType.AFTER)


def _go_on(result: None, manager: Any, request: Any) -> None:
    """Feed the answer's tokens to its grammar. Modifies `request.grammar`."""
    custom = request.sampling_params.custom_params
    emitted = custom.get(EMITTED, 0) if isinstance(custom, dict) else 0
    grammar = request.grammar
    if not emitted or grammar is None or not hasattr(grammar, "accept_token") or request.finished():
        return
    from sglang.srt.constrained.base_grammar_backend import InvalidGrammarObject  # noqa: PLC0415 — scheduler only

    if isinstance(grammar, InvalidGrammarObject):
        return
    try:
        for token in request.origin_input_ids[-emitted:]:
            grammar.accept_token(token)
    except ValueError as error:
        request.set_finish_with_abort(f"The answer so far does not keep to its grammar: {error}")
