/**
 * Where the chunks of a tensor lie in its picture. Across runs the first dimension that is cut, down the second one if
 * there is one: an FSDP2 tensor is a row of stretches, a flat FSDP1 one has steps where a shard ends within a row.
 *
 * @module
 */

/** @typedef {{ offsets: readonly number[], sizes: readonly number[], file: string, begin: number, end: number }} Chunk */
/** @typedef {{ name: string, dtype: string, shape: readonly number[], chunks: readonly Chunk[] }} Tensor */
/** A chunk's place, in fractions of the picture. @typedef {{ chunk: Chunk, x: number, y: number, width: number, height: number }} Cell */

/**
 * Dimensions that some chunk does not span.
 *
 * @param {Tensor} tensor
 * @returns {readonly number[]}
 */
export function cutAxes({ shape, chunks }) {
  return shape.flatMap((extent, d) => (chunks.some(({ sizes }) => sizes[d] !== extent) ? [d] : []));
}

/**
 * @param {Tensor} tensor
 * @returns {readonly Cell[]}
 */
export function cellsOf(tensor) {
  const [across, down] = cutAxes(tensor);
  return tensor.chunks.map((chunk) => {
    const [x, width] = stretch(tensor, chunk, across);
    const [y, height] = stretch(tensor, chunk, down);
    return { chunk, x, y, width, height };
  });
}

/**
 * What a chunk is of its tensor, in words.
 *
 * @param {Tensor} tensor
 * @param {Chunk} chunk
 */
export function partOf(tensor, chunk) {
  const axes = cutAxes(tensor);
  if (axes.length === 0) return "all of it";
  return axes
    .map((d) => {
      const first = /** @type {number} */ (chunk.offsets[d]);
      const last = first + /** @type {number} */ (chunk.sizes[d]) - 1;
      const what = d === 0 ? "row" : `dim ${d}:`;
      if (first === last) return `${what} ${first}`;
      return `${d === 0 ? "rows" : what} ${first} to ${last}`;
    })
    .join(", ");
}

/**
 * Which rank each file is of: by its name, else in the order of files.
 *
 * @param {readonly { name: string }[]} files
 * @returns {ReadonlyMap<string, number>}
 */
export function ranksOf(files) {
  return new Map(
    files.map(({ name }, i) => [name, Number(/^rank-([0-9]{1,7})(?=[.-])/.exec(name)?.[1] ?? i)]),
  );
}

/**
 * @param {Tensor} tensor
 * @param {Chunk} chunk
 * @param {number | undefined} axis
 * @returns {[begin: number, length: number]}
 */
function stretch({ shape }, { offsets, sizes }, axis) {
  if (axis === undefined) return [0, 1];
  const extent = /** @type {number} */ (shape[axis]);
  return [/** @type {number} */ (offsets[axis]) / extent, /** @type {number} */ (sizes[axis]) / extent];
}
