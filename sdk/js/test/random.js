// Random numbers from a printed seed: SEED=… repeats a run.

/** seeded returns a function that draws an integer below n. */
export function seeded(t) {
  let state = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32)) >>> 0;
  t.diagnostic(`SEED=${state}`);
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0; // mulberry32
    let x = Math.imul(state ^ state >>> 15, state | 1);
    x ^= x + Math.imul(x ^ x >>> 7, x | 61);
    return ((x ^ x >>> 14) >>> 0) % n;
  };
}
