"""A scheduler loads its tokenizer once, where SGLang asks for it twice."""

import json
import subprocess
import sys

import pytest

CODE = """
import json, sys
from engine.cpu import vision_shim
vision_shim.install()
from engine import one_tokenizer
one_tokenizer.install()
from sglang.srt.plugins.hook_registry import HookRegistry
HookRegistry.apply_hooks()
from sglang.srt.utils.hf_transformers import tokenizer as module
from transformers import AutoTokenizer
loads = []
plain = AutoTokenizer.from_pretrained
AutoTokenizer.from_pretrained = lambda *args, **kwargs: loads.append(1) or plain(*args, **kwargs)
first = module.get_tokenizer(sys.argv[1], tokenizer_mode="auto")
begun = len(loads)
again = module.get_tokenizer(sys.argv[1], tokenizer_mode="auto")
other = module.get_tokenizer(sys.argv[1], tokenizer_mode="auto", trust_remote_code=True)
print(json.dumps({"same": first is again, "loads": begun, "more": len(loads) - begun, "other": other is first}))
"""


@pytest.mark.sglang
def test_the_same_tokenizer_is_loaded_once(tiny_deepseek):
    """Asked for twice with the same arguments it is the same object; with others it is not."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tiny_deepseek)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["same"] is True
    assert said["other"] is False
    assert said["loads"] >= 1
    assert said["more"] == said["loads"]  # the other one's; none for the second time
