"""What every engine checks before it takes a request."""

from __future__ import annotations

from collections.abc import Sequence

from engine.contract import MOST_LOGPROBS, REQUEST_ID_LENGTH, ModelCard, RequestRefused


def check_request(
    card: ModelCard, request_id: str, ids: Sequence[int], max_tokens: int, logprobs: int | None = None
) -> None:
    """Raise RequestRefused, with what was expected and what came, if the request can never run."""
    if len(request_id) != REQUEST_ID_LENGTH:
        raise RequestRefused(f"request id must have {REQUEST_ID_LENGTH} characters, got {len(request_id)}")
    if logprobs is not None and not 0 <= logprobs <= MOST_LOGPROBS:
        raise RequestRefused(f"logprobs must be from 0 to {MOST_LOGPROBS}, got {logprobs}")
    if not ids:
        raise RequestRefused("the prompt is empty")
    window = min(card.context, card.kv_tokens)
    if len(ids) + max(max_tokens, 1) > window:
        raise RequestRefused(
            f"a prompt of {len(ids)} tokens and an answer of up to {max_tokens} exceed "
            f"the window of {window} tokens"
        )
    low, high = min(ids), max(ids)
    if low < 0 or high >= card.vocab_size:
        wrong = low if low < 0 else high
        raise RequestRefused(f"token id {wrong} is outside of the vocabulary of {card.vocab_size}")


def check_release(ids: Sequence[int], keep: int) -> None:
    """Raise RequestRefused if `keep` is no position in `ids`."""
    if not 0 <= keep <= len(ids):
        raise RequestRefused(f"keep must be from 0 to {len(ids)}, the number of ids, got {keep}")
