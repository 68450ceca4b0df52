"""What several tasks share: randomness from a seed, JSON bodies, server-sent events, verdicts.

Nothing here reads a clock or the system's randomness: the same inputs have to give the same bits on every machine.
"""

import json
import re
from typing import Any, Iterator, List, Optional, Sequence

from componentize_py_types import Err
from wit_world.imports import types

MASK = (1 << 64) - 1
# Deeper than any honest body; the parser recurses, and a component's stack is small.
MOST_DEPTH = 64
TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


class Rng:
    """Numbers from the 32 bytes of a seed: xoshiro256**, seeded as it is meant to be."""

    def __init__(self, seed: bytes):
        words = [int.from_bytes(seed[i : i + 8], "little") for i in range(0, 32, 8)]
        # All zeros would stay all zeros.
        self.s = words if any(words) else [1, 2, 3, 4]
        for _ in range(16):
            self.bits()

    def bits(self) -> int:
        """64 bits."""
        s = self.s
        x = (s[1] * 5) & MASK
        out = ((((x << 7) | (x >> 57)) & MASK) * 9) & MASK
        t = (s[1] << 17) & MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = ((s[3] << 45) | (s[3] >> 19)) & MASK
        return out

    def below(self, n: int) -> int:
        """0 to n - 1."""
        return (self.bits() * n) >> 64

    def unit(self) -> float:
        """In [0, 1)."""
        return (self.bits() >> 11) / (1 << 53)

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def pick(self, of: Sequence[Any]) -> Any:
        return of[self.below(len(of))]


def fault(words: str) -> Err:
    """What is raised where the contract says `result<_, string>`."""
    return Err(words)


def body(exchange: types.Exchange) -> bytes:
    """The reply in one piece: chunks end anywhere, also inside a character."""
    return b"".join(chunk.data for chunk in exchange.chunks)


def is_shallow(data: bytes) -> bool:
    depth = 0
    for token in TOKENS.finditer(data):
        first = data[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MOST_DEPTH:
                return False
        elif first in b"]}":
            depth -= 1
    return True


def read_json(data: bytes) -> Any:
    """JSON, or None: a stranger's bytes are no reason to fail. NaN and infinities are no JSON."""
    if not is_shallow(data):
        return None

    def refuse(_: str) -> None:
        raise ValueError("no number of JSON's")

    try:
        return json.loads(data.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


def write_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def events(data: bytes) -> Iterator[str]:
    """The data of server-sent events, in their order."""
    for block in data.decode("utf-8", "replace").replace("\r\n", "\n").split("\n\n"):
        lines = [line[5:].lstrip(" ") for line in block.split("\n") if line.startswith("data:")]
        if lines:
            yield "\n".join(lines)


def request(path: str, value: Any, streamed: bool = False) -> types.Request:
    return types.Request(path, "application/json", write_json(value), streamed)


def admitted(made: types.Request) -> types.Admission:
    return types.Admission_Admitted(made)


def refused(message: str, code: str = "invalid_value", status: int = 400) -> types.Admission:
    return types.Admission_Refused(types.Refusal(status, code, message))


def violation(code: str, words: str = "") -> types.Outcome:
    """The reply breaks a rule: quality 0."""
    return types.Outcome_Violation(f"{code}: {words[:200]}")


def inconclusive(words: str) -> types.Outcome:
    """A fault of the validator's: says nothing about the miner."""
    return types.Outcome_Inconclusive(words)


def scored(
    exchange: types.Exchange, quality: float, units: int, reasons: Optional[dict] = None
) -> types.Outcome:
    """A verdict on a reply that is worth something only when it is whole: its units come with its last chunk."""
    quality = min(max(quality, 0.0), 1.0) if quality == quality else 0.0
    last = max((i for i, c in enumerate(exchange.chunks) if c.data), default=-1)
    by_chunk: List[int] = [units if i == last else 0 for i in range(len(exchange.chunks))]
    because = [(code, float(number)) for code, number in (reasons or {}).items()]
    return types.Outcome_Scored(types.Verdict(quality, units, by_chunk, [], [], because))
