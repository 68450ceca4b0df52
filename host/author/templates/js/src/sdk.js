// What several tasks share: randomness from a seed, JSON bodies, server-sent events, verdicts.
//
// Nothing here reads a clock or the system's randomness: the same inputs have to give the same bits on every machine.

const MASK = (1n << 64n) - 1n;

/** Numbers from the 32 bytes of a seed: xoshiro256**. */
export class Rng {
  constructor(seed) {
    const view = new DataView(Uint8Array.from(seed).buffer);
    this.s = [0, 8, 16, 24].map((at) => view.getBigUint64(at, true));
    // All zeros would stay all zeros.
    if (this.s.every((word) => word === 0n)) this.s = [1n, 2n, 3n, 4n];
    for (let i = 0; i < 16; i += 1) this.bits();
  }

  /** 64 bits, as a BigInt. */
  bits() {
    const s = this.s;
    const x = (s[1] * 5n) & MASK;
    const out = ((((x << 7n) | (x >> 57n)) & MASK) * 9n) & MASK;
    const t = (s[1] << 17n) & MASK;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = ((s[3] << 45n) | (s[3] >> 19n)) & MASK;
    return out;
  }

  /** 0 to n - 1. */
  below(n) {
    return Number((this.bits() * BigInt(n)) >> 64n);
  }

  pick(of) {
    return of[this.below(of.length)];
  }
}

/** The reply in one piece: chunks end anywhere, also inside a character. */
export function body(exchange) {
  const size = exchange.chunks.reduce((sum, chunk) => sum + chunk.data.length, 0);
  const whole = new Uint8Array(size);
  let at = 0;
  for (const chunk of exchange.chunks) {
    whole.set(chunk.data, at);
    at += chunk.data.length;
  }
  return whole;
}

/** JSON, or undefined: a stranger's bytes are no reason to fail. */
export function readJson(bytes) {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

export function writeJson(value) {
  return new TextEncoder().encode(JSON.stringify(value));
}

/** The data of server-sent events, in their order. */
export function events(bytes) {
  const blocks = new TextDecoder().decode(bytes).replaceAll('\r\n', '\n').split('\n\n');
  const data = (block) =>
    block
      .split('\n')
      .filter((line) => line.startsWith('data:'))
      .map((line) => line.slice(5).trimStart());
  return blocks.map(data).filter((lines) => lines.length > 0).map((lines) => lines.join('\n'));
}

export function request(path, value, streamed = false) {
  return { path, contentType: 'application/json', body: writeJson(value), streamed };
}

export const admitted = (made) => ({ tag: 'admitted', val: made });

export const refused = (message, code = 'invalid_value', status = 400) => ({
  tag: 'refused',
  val: { status, code, message },
});

/** The reply breaks a rule: quality 0. */
export const violation = (code, words = '') => ({ tag: 'violation', val: `${code}: ${words.slice(0, 200)}` });

/** A fault of the validator's: says nothing about the miner. */
export const inconclusive = (words) => ({ tag: 'inconclusive', val: words });

/** A verdict on a reply that is worth something only when it is whole: its units come with its last chunk. */
export function scored(exchange, quality, units, reasons = {}) {
  let last = -1;
  exchange.chunks.forEach((chunk, i) => {
    if (chunk.data.length > 0) last = i;
  });
  return {
    tag: 'scored',
    val: {
      quality: Number.isFinite(quality) ? Math.min(Math.max(quality, 0), 1) : 0,
      units: BigInt(units),
      unitsByChunk: BigUint64Array.from(exchange.chunks, (_, i) => (i === last ? BigInt(units) : 0n)),
      suspicions: [],
      fingerprints: [],
      reasons: Object.entries(reasons),
    },
  };
}
