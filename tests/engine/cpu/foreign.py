"""Compiles the matrix product for 64-bit ARM, runs it emulated, and prints the greatest relative error.

    python -m tests.engine.cpu.foreign FOLDER

A call is a memory image: the words, and after them all arrays that they point to. A small program maps the image at the
address that it was made for and runs the kernel on it. Needs qemu-aarch64 and aarch64-linux-gnu-gcc; without them the
kernel is only compiled and the answer is `compiled`. It must be run in a process of its own: numba is told lies.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import binding

TRIPLE, PROCESSOR = "aarch64-unknown-linux-gnu", "neoverse-n1"
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
_BASE = 0x20000000
_LIBC = {"sched_yield", "memset", "memcpy", "memmove"}
_DRIVER = """
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
int omp_get_thread_num(void) { return 0; }
extern void kernel(int64_t *);
int main(int count, char **words) {
    int file = open(words[1], O_RDWR);
    void *base = (void *)BASE;
    if (mmap(base, lseek(file, 0, SEEK_END), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) != base) return 2;
    kernel(base);
    return 0;
}
"""


def emit(kernel: Any) -> bytes:
    """Return `kernel` as an object file of the other processor, under the name `kernel`."""
    from numba import cfunc, types

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(TRIPLE).create_target_machine(cpu=PROCESSOR, opt=3, reloc="static")
    compiled: Any = cfunc(types.void(types.CPointer(types.int64)))(kernel)
    text = str(compiled._library._final_module).replace(compiled._wrapper_name, "kernel")
    text = re.sub(r'target datalayout = ".*"', f'target datalayout = "{machine.target_data}"', text)
    text = re.sub(r'target triple = ".*"', f'target triple = "{TRIPLE}"', text)
    return machine.emit_object(binding.parse_assembly(re.sub(r'"target-[a-z]*"="[^"]*"', "", text)))


def link(code: bytes, folder: Path) -> Path:
    """Return a program that runs the kernel. What it calls of Python is for errors, which do not happen: it traps."""
    (folder / "kernel.o").write_bytes(code)
    (folder / "driver.c").write_text(_DRIVER.replace("BASE", hex(_BASE)))
    listing = subprocess.run(
        [COMPILER.replace("gcc", "nm"), "-u", "kernel.o"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    missing = {line.split()[-1] for line in listing.stdout.splitlines()} - _LIBC - {"omp_get_thread_num"}
    traps = "\n".join(f"void {name}(void) {{ __builtin_trap(); }}" for name in sorted(missing))
    (folder / "traps.c").write_text(traps)
    command = [COMPILER, "-O1", "-static", "-o", "run", "driver.c", "traps.c", "kernel.o", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "run"


class Image:
    """The memory of one call. `words`: how many the description has."""

    def __init__(self, words: int) -> None:
        self._bytes = bytearray(words * 8)

    def put(self, array: np.ndarray) -> int:
        """Append an array and return the address that it will have."""
        self._bytes += bytes(-len(self._bytes) % 64)
        address = _BASE + len(self._bytes)
        self._bytes += np.ascontiguousarray(array).tobytes()
        return address

    def run(self, program: Path, words: np.ndarray) -> None:
        """Run the program on the image; the arrays are then what it made of them."""
        self._bytes[: words.nbytes] = words.tobytes()
        path = program.parent / "image"
        path.write_bytes(self._bytes)
        subprocess.run([EMULATOR, str(program), str(path)], check=True, timeout=120)
        self._bytes = bytearray(path.read_bytes())

    def floats(self, address: int, count: int) -> torch.Tensor:
        """Return a float32 array."""
        begin = address - _BASE
        return torch.from_numpy(
            np.frombuffer(bytes(self._bytes[begin : begin + 4 * count]), np.float32).copy()
        )


def error(program: Path, weight: torch.Tensor, tokens: int) -> float:
    """Return the greatest error of one product, relative to the greatest result."""
    from engine.cpu import linear_kernels as k
    from engine.cpu.packing import pack

    packed, x = pack(weight), torch.randn(tokens, weight.shape[1])
    words, image = np.zeros(k.MULTIPLY_WORDS, np.int64), Image(k.MULTIPLY_WORDS)
    size = k.STRIP * (packed.columns + tokens) + 64
    words[k.INPUT], words[k.TOKENS] = image.put(x.numpy()), tokens
    words[k.OUTPUT] = out = image.put(np.zeros(tokens * packed.rows, np.float32))
    words[k.SCRATCH], words[k.SCRATCH_SIZE] = image.put(np.zeros(size, np.float32)), size
    words[k.COUNTERS] = image.put(np.zeros(64, np.int64))
    parts = (packed.numbers.view(torch.uint8), packed.scales, packed.leasts)
    words[k.WEIGHTS : k.WEIGHTS + 3] = [image.put(part.numpy()) for part in parts]
    words[k.WEIGHTS + 3 : k.WEIGHTS + 6] = int(packed.form), packed.rows, packed.columns
    image.run(program, words)
    expected = x.double() @ weight.double().T
    found = image.floats(out, tokens * packed.rows).view(tokens, -1)
    return float((found - expected).abs().max() / expected.abs().max())


def main(folder: Path) -> None:
    """Compile, run where that can be emulated, and print."""
    platform.machine = lambda: "aarch64"  # our choice of vectors
    from engine.cpu import linear_kernels, target
    from tests.engine.cpu.test_packing import blocks_of_eight, blocks_of_four

    code = emit(linear_kernels.multiply)
    if not (shutil.which(EMULATOR) and shutil.which(COMPILER)):
        print(target.target().name, "compiled")
        return
    program = link(code, folder)
    sixteen = torch.randn(70, 96).bfloat16().float()
    weights = (blocks_of_four(70, 96), blocks_of_eight(70, 96), sixteen, torch.randn(70, 50))
    print(
        target.target().name, max(error(program, weight, tokens) for weight in weights for tokens in (1, 7))
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
