"""{{name}}: texts are changed in a way that is told, and what comes back is held against the same change made here.

A task is five pure functions of the contract in wit/0.2/task.wit; the class below is what the component exports.
"""

import json

import sdk
from wit_world import exports
from wit_world.imports import types

OPERATION = "transform"
PATH = "/v1/transform"
OPS = {
    "reverse": lambda text: text[::-1],
    "upper": lambda text: text.upper(),
    "sort-words": lambda text: " ".join(sorted(text.split())),
}
WORDS = (
    "amber bridge cloud dune ember field grove harbour island jade kettle lantern meadow night orchard pebble quarry "
    "river stone timber under valley willow yarn"
).split()
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["max_texts", "max_bytes"],
    "properties": {
        "max_texts": {"type": "integer", "minimum": 1, "maximum": 1024},
        "max_bytes": {"type": "integer", "minimum": 16, "maximum": 100000},
    },
}


def read(params: str) -> dict:
    """`[params]` of task.toml. Unknown keys are refused: a typing error should not become a default."""
    p = json.loads(params)
    if set(p) != set(SCHEMA["properties"]):
        raise sdk.fault(f"params: {sorted(p)} are not {sorted(SCHEMA['properties'])}")
    for key, bounds in SCHEMA["properties"].items():
        if type(p[key]) is not int or not bounds["minimum"] <= p[key] <= bounds["maximum"]:
            raise sdk.fault(f"params: {key}: {bounds['minimum']} to {bounds['maximum']}")
    return p


def admit(p: dict, asked) -> types.Admission:
    """The one way in, for clients and for what `synthesize` invents."""
    if not isinstance(asked, dict) or asked.get("op") not in OPS or not isinstance(asked.get("texts"), list):
        return sdk.refused(f"`op` is one of {', '.join(OPS)}, and `texts` a list of texts", "invalid_body")
    texts = asked["texts"]
    if not 1 <= len(texts) <= p["max_texts"]:
        return sdk.refused(f"`texts` has {len(texts)}; 1 to {p['max_texts']} are possible")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not 1 <= len(text.encode("utf-8", "replace")) <= p["max_bytes"]:
            return sdk.refused(f"`texts[{i}]` must have 1 to {p['max_bytes']} bytes")
    return sdk.admitted(sdk.request(PATH, {"op": asked["op"], "texts": texts}))


class Task(exports.Task):
    def describe(self, params: str) -> str:
        read(params)
        said = {
            "name": "{{name}}",
            "version": "0.1.0",
            "modality": "text",
            "unit": "texts",
            "operations": [OPERATION],
            "streaming": False,
            # A task that needs a model names kind and model here, and task.toml grants them.
            "checks": {},
            "params_schema": SCHEMA,
        }
        return json.dumps(said)

    def synthesize(self, params: str, seed: bytes) -> types.Synthetic:
        p, rng = read(params), sdk.Rng(seed)
        op = rng.pick(list(OPS))
        count = 1 + rng.below(p["max_texts"])
        texts = [
            " ".join(rng.pick(WORDS) for _ in range(1 + rng.below(12)))[: p["max_bytes"]].strip() for _ in range(count)
        ]
        made = admit(p, {"op": op, "texts": texts})
        if not isinstance(made, types.Admission_Admitted):
            raise sdk.fault(made.value.message)
        return types.Synthetic(made.value, count)

    def admit(self, params: str, operation: str, content_type: str, body: bytes, seed: bytes) -> types.Admission:
        if operation != OPERATION:
            return sdk.refused(f"this task serves {OPERATION}", "unknown_operation", 404)
        if content_type.split(";")[0].strip().lower() != "application/json":
            return sdk.refused("the body must be application/json", "unsupported_media_type", 415)
        return admit(read(params), sdk.read_json(body))

    def count(self, params: str, request: types.Request, exchange: types.Exchange):
        asked, reply = sdk.read_json(request.body), sdk.read_json(sdk.body(exchange))
        if not isinstance(reply, dict) or not isinstance(reply.get("texts"), list):
            return None
        # More than was asked for is a violation, and never volume.
        return min(len(reply["texts"]), len(asked["texts"]))

    def score(self, params: str, request: types.Request, exchange: types.Exchange, evidence) -> types.Outcome:
        asked = sdk.read_json(request.body)
        if exchange.status != 200:
            return sdk.violation("reply.status", str(exchange.status))
        reply = sdk.read_json(sdk.body(exchange))
        if not isinstance(reply, dict) or not isinstance(reply.get("texts"), list):
            return sdk.violation("reply.shape", "no `texts`")
        if len(reply["texts"]) != len(asked["texts"]):
            return sdk.violation("reply.count", f"{len(reply['texts'])} texts for {len(asked['texts'])}")
        # A task whose answers only a model can judge asks here: `types.Outcome_Need([types.Check(…)])`.
        change = OPS[asked["op"]]
        right = sum(said == change(text) for text, said in zip(asked["texts"], reply["texts"]))
        return sdk.scored(exchange, right / len(asked["texts"]), right, {"texts.right": right})

    def score_batch(self, params: str, batch):
        return [self.score(params, s.request, s.exchange, s.evidence) for s in batch]
