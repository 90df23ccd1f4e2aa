"""How a model is told of tools, and shown calls and what they gave, where its chat template has no words for it.

The words are those of the Hermes models, which Qwen's use, too, and which most small models have seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

PARSER = "qwen25"
"""SGLang's name of the parser that reads these calls."""
_HEAD = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def with_tools(instructions: str | None, tools: str) -> str:
    """Return system text that tells of `tools`, a JSON list, behind the instructions."""
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in json.loads(tools))
    return "\n\n".join(filter(None, (instructions, _HEAD.format(tools=listed))))


def with_calls(text: str, calls: Sequence[tuple[str, str]]) -> str:
    """Return an answer's text with its calls: (name, arguments), which are JSON as the model wrote it."""
    shown = [
        f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments or "{}"}}}\n</tool_call>'
        for name, arguments in calls
    ]
    return "\n".join(filter(None, (text, *shown)))


def output(text: str) -> str:
    """Return what a call gave, as the text of a user's message."""
    return f"<tool_response>\n{text}\n</tool_response>"
