/**
 * Flat names and the keys that they stand for. A Distributed Checkpoint keeps both; other formats have the flat name
 * alone, from which the keys follow by what PyTorch's state dicts look like: a parameter's own name, dots and all, is one
 * key.
 *
 * @module
 */
import type { DcpPath } from "../formats/dcp/metadata.ts";

/** The keys of a flat name: `["optim", "state", "h.0.weight", "exp_avg"]`. */
export function pathOf(name: string): DcpPath {
  const [, top, rest] = /^([^.]+)\.(.+)$/s.exec(name) ?? [];
  if (top === undefined || rest === undefined) return [name];
  const [, fqn, key] = /^state\.(.+)\.([^.]+)$/s.exec(rest) ?? [];
  if (fqn !== undefined && key !== undefined) return [top, "state", fqn, key];
  const [, group, option] = /^param_groups\.(\d{1,6})\.(.+)$/s.exec(rest) ?? [];
  if (group !== undefined && option !== undefined) return [top, "param_groups", Number(group), option];
  return [top, rest];
}

/**
 * The name under which a value goes where `others` are: its own, or below `values.` when a dict must stand under it. A
 * native checkpoint has both tensors `model.…` and a value `model`.
 */
export function valueName(name: string, others: ReadonlySet<string>): string {
  return others.has(name) ? `${VALUES}${name}` : name;
}

/** The name that a value had before `valueName`. */
export function ownName(name: string): string {
  return name.startsWith(VALUES) ? name.slice(VALUES.length) : name;
}

const VALUES = "values.";

/** Name of a value that one rank alone has. */
export function rankValueName(rank: number, name: string): string {
  return `rank_values.${rank}.${name}`;
}

/** What `rankValueName` was given; `undefined` for any other name. */
export function parseRankValueName(
  name: string,
): { readonly rank: number; readonly name: string } | undefined {
  const [, rank, own] = /^rank_values\.(\d{1,6})\.(.+)$/s.exec(name) ?? [];
  return rank === undefined || own === undefined ? undefined : { rank: Number(rank), name: own };
}
