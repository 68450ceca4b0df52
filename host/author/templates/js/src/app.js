// {{name}}: texts are changed in a way that is told, and what comes back is held against the same change made here.
//
// A task is five pure functions of the contract in wit/0.2/task.wit; the object below is what the component exports.

import * as sdk from './sdk.js';

const OPERATION = 'transform';
const PATH = '/v1/transform';
const OPS = {
  reverse: (text) => Array.from(text).reverse().join(''),
  upper: (text) => text.toUpperCase(),
  'sort-words': (text) => text.split(/\s+/).filter(Boolean).sort().join(' '),
};
const WORDS =
  'amber bridge cloud dune ember field grove harbour island jade kettle lantern meadow night orchard pebble quarry ' +
  'river stone timber under valley willow yarn';
const SCHEMA = {
  type: 'object',
  additionalProperties: false,
  required: ['max_texts', 'max_bytes'],
  properties: {
    max_texts: { type: 'integer', minimum: 1, maximum: 1024 },
    max_bytes: { type: 'integer', minimum: 16, maximum: 100000 },
  },
};

/** `[params]` of task.toml. Unknown keys are refused: a typing error should not become a default. */
function read(params) {
  const p = JSON.parse(params);
  const known = Object.keys(SCHEMA.properties);
  const keys = Object.keys(p);
  if (keys.length !== known.length || !keys.every((key) => known.includes(key))) {
    // What is thrown becomes the error of the contract's result.
    throw `params: ${keys} are not ${known}`;
  }
  for (const [key, { minimum, maximum }] of Object.entries(SCHEMA.properties)) {
    if (!Number.isInteger(p[key]) || p[key] < minimum || p[key] > maximum) {
      throw `params: ${key}: ${minimum} to ${maximum}`;
    }
  }
  return p;
}

const bytesOf = (text) => new TextEncoder().encode(text).length;

/** The one way in, for clients and for what `synthesize` invents. */
function admit(p, asked) {
  if (typeof asked !== 'object' || asked === null || !Object.hasOwn(OPS, asked.op) || !Array.isArray(asked.texts)) {
    return sdk.refused(`\`op\` is one of ${Object.keys(OPS)}, and \`texts\` a list of texts`, 'invalid_body');
  }
  if (asked.texts.length < 1 || asked.texts.length > p.max_texts) {
    return sdk.refused(`\`texts\` has ${asked.texts.length}; 1 to ${p.max_texts} are possible`);
  }
  const wrong = asked.texts.findIndex((t) => typeof t !== 'string' || bytesOf(t) < 1 || bytesOf(t) > p.max_bytes);
  if (wrong >= 0) {
    return sdk.refused(`\`texts[${wrong}]\` must have 1 to ${p.max_bytes} bytes`);
  }
  return sdk.admitted(sdk.request(PATH, { op: asked.op, texts: asked.texts }));
}

const isReply = (reply) => typeof reply === 'object' && reply !== null && Array.isArray(reply.texts);

export const task = {
  describe(params) {
    read(params);
    return JSON.stringify({
      name: '{{name}}',
      version: '0.1.0',
      modality: 'text',
      unit: 'texts',
      operations: [OPERATION],
      streaming: false,
      // A task that needs a model names kind and model here, and task.toml grants them.
      checks: {},
      params_schema: SCHEMA,
    });
  },

  synthesize(params, seed) {
    const p = read(params);
    const rng = new sdk.Rng(seed);
    const words = WORDS.split(' ');
    const op = rng.pick(Object.keys(OPS));
    const count = 1 + rng.below(p.max_texts);
    const text = () => Array.from({ length: 1 + rng.below(12) }, () => rng.pick(words)).join(' ').slice(0, p.max_bytes).trim();
    const made = admit(p, { op, texts: Array.from({ length: count }, text) });
    if (made.tag === 'refused') throw made.val.message;
    return { request: made.val, expectedUnits: BigInt(count) };
  },

  admit(params, operation, contentType, body) {
    if (operation !== OPERATION) return sdk.refused(`this task serves ${OPERATION}`, 'unknown_operation', 404);
    if (contentType.split(';')[0].trim().toLowerCase() !== 'application/json') {
      return sdk.refused('the body must be application/json', 'unsupported_media_type', 415);
    }
    return admit(read(params), sdk.readJson(body));
  },

  count(params, request, exchange) {
    const asked = sdk.readJson(request.body);
    const reply = sdk.readJson(sdk.body(exchange));
    // More than was asked for is a violation, and never volume.
    return isReply(reply) ? BigInt(Math.min(reply.texts.length, asked.texts.length)) : undefined;
  },

  score(params, request, exchange) {
    const asked = sdk.readJson(request.body);
    if (exchange.status !== 200) return sdk.violation('reply.status', String(exchange.status));
    const reply = sdk.readJson(sdk.body(exchange));
    if (!isReply(reply)) return sdk.violation('reply.shape', 'no `texts`');
    if (reply.texts.length !== asked.texts.length) {
      return sdk.violation('reply.count', `${reply.texts.length} texts for ${asked.texts.length}`);
    }
    // A task whose answers only a model can judge asks here: `{ tag: 'need', val: [check] }`.
    const right = asked.texts.filter((text, i) => OPS[asked.op](text) === reply.texts[i]).length;
    return sdk.scored(exchange, right / asked.texts.length, right, { 'texts.right': right });
  },

  scoreBatch(params, batch) {
    // Not `this`: the host calls it without one.
    return batch.map((s) => task.score(params, s.request, s.exchange));
  },
};
