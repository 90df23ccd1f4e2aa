// Reproducible choices for tests.

/** @param {number} seed @returns {(bound: number) => number} whole numbers from 0 to bound − 1 */
export function randomly(seed) {
  let state = seed;
  return (bound) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
}
