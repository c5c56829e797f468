"""A step program written by hand, its one kernel in TVMScript, whose logits have a closed form.

The program keeps every token in every (layer, head) row of the paged cache, marked with the number of its
row, and derives the logits of a token from the sum S of all tokens up to it *as read back from the pages*:

    logits[r, v] = bias[v] - 0.25 * (v - S mod V)^2        bias[v] = v / 1024

so the most likely next token is S mod V. A wrong page table, length, position, chunk boundary or weight
pointer shows in the numbers, and NumPy computes them exactly.
"""

import json
from pathlib import Path

import numpy as np

VOCAB = 260
LAYERS, HEADS, KEY, VALUE, PAGE = 3, 2, 4, 5, 8
KERNEL = "kernel"
INPUTS = {"tokens": "T", "positions": "T", "rows": "R"}
ARGS = [["value", 0], ["value", 1], ["cache", "cu"], ["value", 2], ["cache", "lens"], ["cache", "table"],
        ["cache", "k_pages"], ["cache", "v_pages"], ["tensor", 0], ["tensor", 1], ["value", 3]]  # fmt: skip
MARK = 4096  # distance between the marks of two rows; tokens stay below it


def expected_logits(tokens: list[int]) -> np.ndarray:
    """Logits of every position, f32 [len(tokens), VOCAB]."""
    sums = np.cumsum(np.asarray(tokens, dtype=np.int64)) % VOCAB
    columns = np.arange(VOCAB, dtype=np.float32)
    distance = columns[None, :] - sums[:, None].astype(np.float32)
    return (columns / 1024)[None, :] - np.float32(0.25) * distance * distance


def expected_greedy(prompt: list[int], count: int, eos: int | None = None) -> list[int]:
    """Greedy continuation of ``prompt``; with the end token when it comes up."""
    total, out = sum(prompt), []
    for _ in range(count):
        out.append(total % VOCAB)
        total += out[-1]
        if out[-1] == eos:
            break
    return out


def build_code(path: Path) -> None:
    """Compile the program's kernel for plain x86-64 and write the code section to ``path``."""
    from tvm.script import tirx as T

    from fretsaw.backends.tvm.codegen.link import link_kernels
    from fretsaw.backends.tvm.codegen.lower import compile_object
    from fretsaw.backends.tvm.kernels.isa import Isa

    class Plain(Isa):
        """What every x86-64 has: kernels of the compiler ask for more."""

        def __post_init__(self) -> None:
            pass

    total_rows = LAYERS * HEADS

    @T.prim_func(private=True)  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        tokens_h: T.handle,
        positions_h: T.handle,
        cu_h: T.handle,
        rows_h: T.handle,
        lens_h: T.handle,
        table_h: T.handle,
        k_h: T.handle,
        v_h: T.handle,
        bias_h: T.handle,
        half_h: T.handle,
        out_h: T.handle,
    ):
        t_count = T.int64()
        b1 = T.int64()
        r_count = T.int64()
        b_count = T.int64()
        m_count = T.int64()
        n_count = T.int64()
        tokens = T.match_buffer(tokens_h, (t_count,), "int32")
        positions = T.match_buffer(positions_h, (t_count,), "int32")
        cu = T.match_buffer(cu_h, (b1,), "int32")
        rows = T.match_buffer(rows_h, (r_count,), "int32")
        lens = T.match_buffer(lens_h, (LAYERS, b_count, HEADS), "int32")
        table = T.match_buffer(table_h, (LAYERS, b_count, HEADS, m_count), "int32")
        k = T.match_buffer(k_h, (n_count, KEY, PAGE), "float32")
        v = T.match_buffer(v_h, (n_count, PAGE, VALUE), "float32")
        bias = T.match_buffer(bias_h, (VOCAB,), "float32")
        half = T.match_buffer(half_h, (2, 3), "float16")
        out = T.match_buffer(out_h, (r_count, VOCAB), "float32")
        total = T.alloc_buffer((1,), "float32", scope="local")
        for b in T.serial(b_count):
            for row in T.serial(total_rows):
                for i in T.serial(cu[b + 1] - cu[b]):
                    for e in T.serial(KEY):
                        k[
                            table[row // HEADS, b, row % HEADS, (lens[row // HEADS, b, row % HEADS] + i) // PAGE],
                            e,
                            (lens[row // HEADS, b, row % HEADS] + i) % PAGE,
                        ] = T.Cast("float32", tokens[cu[b] + i] + row * MARK)
                    for e in T.serial(VALUE):
                        v[
                            table[row // HEADS, b, row % HEADS, (lens[row // HEADS, b, row % HEADS] + i) // PAGE],
                            (lens[row // HEADS, b, row % HEADS] + i) % PAGE,
                            e,
                        ] = T.Cast("float32", positions[cu[b] + i])
        # Stored positions must be 0, 1, 2, ...: a wrong one spoils the sum.
        for r in T.serial(r_count):
            for b in T.serial(b_count):
                if cu[b] <= rows[r] and rows[r] < cu[b + 1]:
                    total[0] = T.float32(0)
                    for row in T.serial(total_rows):
                        for i in T.serial(lens[row // HEADS, b, row % HEADS] + rows[r] - cu[b] + 1):
                            total[0] = (
                                total[0]
                                + k[table[row // HEADS, b, row % HEADS, i // PAGE], KEY - 1, i % PAGE]
                                - T.Cast("float32", row * MARK)
                                + v[table[row // HEADS, b, row % HEADS, i // PAGE], i % PAGE, VALUE - 1]
                                - T.Cast("float32", i)
                            )
                    for c in T.serial(VOCAB):
                        out[r, c] = (
                            bias[c]
                            - T.float32(0.25)
                            * (T.Cast("float32", c - T.Cast("int32", total[0]) // total_rows % VOCAB))
                            * (T.Cast("float32", c - T.Cast("int32", total[0]) // total_rows % VOCAB))
                            + T.Cast("float32", half[1, 2])
                            - T.float32(1.5)
                        )

    path.write_bytes(link_kernels({KERNEL: compile_object(kernel.with_attr("global_symbol", KERNEL), Plain("x86-64"))}))


def section() -> bytes:
    """The step program: one launch."""
    values = [{"name": name, "dtype": "i32", "shape": [{of: 1}]} for name, of in INPUTS.items()]
    logits = {"name": "logits", "dtype": "f32", "shape": [{"R": 1}, VOCAB], "slot": 0}
    step = {
        "name": "step",
        "symbols": ["R", "T"],
        "inputs": [0, 1, 2],
        "outputs": [3],
        "slots": [{"R": 4 * VOCAB}],
        "values": [*values, logits],
        "launches": [{"kernel": KERNEL, "args": ARGS, "made": 1}],
    }
    return json.dumps({"version": 1, "entries": [step]}).encode()


if __name__ == "__main__":
    import sys

    build_code(Path(sys.argv[1]))
