/**
 * Families of kernels: each variant's text is made once, and is the same object ever after, by which its pipeline is
 * found.
 *
 * @module
 */

/** A function that makes something once for each list of plain arguments. */
export function memoized<A extends readonly (string | number | boolean)[], T>(
  make: (...args: A) => T,
): (...args: A) => T {
  const made = new Map<string, T>();
  return (...args) => {
    const key = args.join();
    let value = made.get(key);
    if (value === undefined) {
      value = make(...args);
      made.set(key, value);
    }
    return value;
  };
}
