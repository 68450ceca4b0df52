// Makes a component of src/app.js. `nineteen task build` calls it with the file to write.
import { componentize } from '@bytecodealliance/componentize-js';
import { build } from 'esbuild';
import { readFile, writeFile } from 'node:fs/promises';

const out = process.argv[2];
if (!out) {
  console.error('usage: node build.mjs OUT.wasm');
  process.exit(2);
}
const bundled = await build({
  entryPoints: ['src/app.js'],
  bundle: true,
  format: 'esm',
  write: false,
  external: ['nineteen:*'],
  logLevel: 'error',
});
const { component } = await componentize(bundled.outputFiles[0].text, {
  witPath: 'wit/0.2',
  worldName: 'plugin',
  // A task is a pure function: no clock, no randomness, no network, no streams.
  disableFeatures: ['random', 'stdio', 'clocks', 'http', 'fetch-event'],
});
await writeFile(out, component);
