"""What clients of other servers send, from the door to the engine and back."""

from __future__ import annotations

from engine.contract import Sampling
from engine.scripted import ScriptedEngine
from tests.chatserver.transports.test_forms import ask, client_of


async def test_how_tokens_are_chosen_reaches_the_engine(monkeypatch):
    """Every field of it, in both dialects, through the store; the ledger tells it again."""
    seen, generate = [], ScriptedEngine.generate
    monkeypatch.setattr(
        ScriptedEngine, "generate", lambda self, asked: seen.append(asked.sampling) or generate(self, asked)
    )
    plain = {"temperature": 0.5, "top_p": 0.6, "presence_penalty": 0.7, "frequency_penalty": 0.8}
    more = {"top_k": 9, "min_p": 0.1, "repetition_penalty": 1.1, "seed": 7, "logit_bias": {"5": 2.0}}
    async with client_of() as sdk:
        await sdk.chat.completions.create(
            model="scripted", messages=ask("Hi"), max_tokens=3, stop=["x"], **plain, extra_body=more
        )
        response = await sdk.responses.create(
            model="scripted", input="Hi", max_output_tokens=3, extra_body={**plain, **more, "stop": ["x"]}
        )
    assert seen == [Sampling(3, **plain, **more | {"logit_bias": ((5, 2.0),)}, stop=("x",))] * 2
    told = {**plain, **more, "stop": ["x"], "ignore_eos": False}
    assert response.model_extra["context"]["sampling"] == told


async def test_templates_and_summaries():
    """The switch is thrown as `thinking` throws it; reasoning is told whole, and the wish for a summary repeated."""
    async with client_of() as sdk:
        for kwargs, thinks in (({"enable_thinking": True}, True), ({"thinking": False}, False)):
            answer = await sdk.chat.completions.create(
                model="scripted", messages=ask("Hi"), extra_body={"chat_template_kwargs": kwargs}
            )
            assert bool(getattr(answer.choices[0].message, "reasoning_content", None)) is thinks
        wish = {"effort": "low", "summary": "auto"}
        response = await sdk.responses.create(model="scripted", input="Hi", reasoning=wish)
    assert response.reasoning.summary == "auto" and response.reasoning.effort == "low"
    assert response.output[0].content[0].text and response.output[0].summary == []
