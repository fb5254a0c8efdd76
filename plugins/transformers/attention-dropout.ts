/**
 * Causal attention with dropout on the probabilities, from single operations, because the fused kernel never holds them.
 *
 * @module
 */
import * as ops from "../../core/tensor/ops/mod.ts";
import type { Tensor } from "../../core/tensor/tensor.ts";

/**
 * Attention of `query` [batch, time, heads, dim] to `key` and `value` [batch, time, keyHeads, dim], giving
 * [batch, time, heads, dim]. Neighbouring query heads share a key head.
 *
 * @param p probability with which a weight is dropped.
 */
export function attentionWithDropout(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: { readonly scale: number; readonly p: number },
): Tensor {
  const [batch, time, heads, dim] = query.shape as [number, number, number, number];
  const keyHeads = key.shape[2]!;
  const sharing = heads / keyHeads;
  const { device } = query;
  const headsFirst = (x: Tensor): Tensor => ops.permute(x, [0, 2, 1, 3]);
  // The queries that share a key head form one tall matrix.
  const tall = ops.reshape(headsFirst(query), [batch, keyHeads, sharing * time, dim]);
  const scores = ops.mul(ops.matmul(tall, ops.transpose(headsFirst(key), -1, -2)), options.scale);
  const ahead = ops.greater(device.arange(time), ops.reshape(device.arange(time), [time, 1]));
  const masked = ops.where(
    ahead,
    device.full([], -Infinity, { dtype: query.dtype }),
    ops.reshape(scores, [batch, heads, time, time]),
  );
  const weights = ops.reshape(ops.dropout(ops.softmax(masked), options.p), [
    batch,
    keyHeads,
    sharing * time,
    time,
  ]);
  const mixed = ops.reshape(ops.matmul(weights, headsFirst(value)), [batch, heads, time, dim]);
  return headsFirst(mixed);
}
