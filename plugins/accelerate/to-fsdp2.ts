/**
 * An Accelerate config file from FSDP version 1 to version 2 (`accelerate to-fsdp2`), in place: what is not converted
 * keeps its words, its order and its comments.
 *
 * @module
 */
import { isMap, parseDocument, type YAMLMap } from "yaml";
import { ConfigError } from "../../core/contracts/errors.ts";
import { quoted } from "../../core/runtime/names.ts";
import { optionByKey } from "./config/file.ts";
import { CONFIG_OPTIONS, type OptionName } from "./config/options.ts";
import { described, parseValue } from "./config/values.ts";
import { type Entry, editSection, entriesOf } from "./yaml-section.ts";

/** A converted file. */
export interface Conversion {
  readonly text: string;
  /** What was dropped, and where the meaning changes; a line each. */
  readonly warnings: readonly string[];
}

const RESHARD = {
  FULL_SHARD: true,
  SHARD_GRAD_OP: false,
  HYBRID_SHARD: true,
  HYBRID_SHARD_ZERO2: false,
  NO_SHARD: false,
} as const;

/** What version 2 has no use for. */
const DROPPED: Partial<Readonly<Record<OptionName, string>>> = {
  backwardPrefetch: CONFIG_OPTIONS.backwardPrefetch.v2.ignored,
  syncModuleStates: CONFIG_OPTIONS.syncModuleStates.v2.ignored,
  useOrigParams: CONFIG_OPTIONS.useOrigParams.v2.ignored,
  forwardPrefetch:
    "Accelerate refuses it under version 2; this project takes it, add it again if you want it",
};

/**
 * Converts the text of a config file.
 *
 * @param name the file's name, for messages.
 * @throws ConfigError for a file that is empty, malformed, or has a value that version 1 does not know.
 */
export function convertToFsdp2(text: string, name: string): Conversion {
  const document = parseDocument(text, { version: "1.1" });
  const [fault] = document.errors;
  if (fault !== undefined) {
    throw new ConfigError(`cannot convert "${name}": not valid YAML: ${fault.message.split("\n")[0]}`);
  }
  if (document.contents === null) throw new ConfigError(`cannot convert "${name}": the file is empty`);
  if (!isMap(document.contents)) {
    throw new ConfigError(
      `cannot convert "${name}": it holds no keys, allowed is a config file of Accelerate`,
    );
  }
  const section = document.get("fsdp_config");
  if (!isMap(section) || section.items.length === 0) {
    return { text, warnings: [`${quoted(name)} has no fsdp_config: nothing to convert`] };
  }
  return convertSection(text, section, name);
}

function convertSection(text: string, section: YAMLMap, name: string): Conversion {
  const entries = entriesOf(section);
  const find = (option: OptionName) => entries.find((entry) => optionByKey(entry.key) === option);
  const version = find("fsdpVersion");
  if (Number(version?.value ?? 1) === 2) {
    return { text, warnings: [`${quoted(name)} is of FSDP version 2 already: nothing to convert`] };
  }
  const changed = new Map<Entry, { key: string; value: unknown } | null>();
  const warnings: string[] = [];
  for (const entry of entries) {
    const option = optionByKey(entry.key);
    const why = option === undefined ? undefined : DROPPED[option];
    if (option === undefined) warnings.push(`${entry.key} is kept as it is: it is no option of FSDP here`);
    if (why === undefined) continue;
    changed.set(entry, null);
    warnings.push(`${entry.key} is dropped: ${why}`);
  }
  const reshard = find("reshardAfterForward");
  const strategy = find("shardingStrategy") ?? reshard;
  if (reshard !== undefined && reshard !== strategy) {
    changed.set(reshard, null);
    warnings.push(`${reshard.key} ${described(reshard.value)} is dropped: ${strategy!.key} says it`);
  }
  if (strategy !== undefined && typeof strategy.value !== "boolean") {
    const value = parseValue("shardingStrategy", strategy.value, `${strategy.key} in ${quoted(name)}`)!;
    changed.set(strategy, { key: CONFIG_OPTIONS.reshardAfterForward.key, value: RESHARD[value] });
    warnings.push(...changedMeaning(value));
  }
  const stateDict = find("stateDictType");
  if (
    parseValue("stateDictType", stateDict?.value ?? "FULL_STATE_DICT", "fsdp_state_dict_type") ===
    "LOCAL_STATE_DICT"
  ) {
    changed.set(stateDict!, { key: stateDict!.key, value: "SHARDED_STATE_DICT" });
    warnings.push(`${stateDict!.key} becomes SHARDED_STATE_DICT: version 2 has no LOCAL_STATE_DICT`);
  }
  if (version !== undefined) changed.set(version, { key: version.key, value: 2 });
  const added = version === undefined ? [[CONFIG_OPTIONS.fsdpVersion.key, 2] as const] : [];
  return { text: editSection(text, section, entries, { changed, added }), warnings };
}

function changedMeaning(strategy: keyof typeof RESHARD): readonly string[] {
  const becomes = `${strategy} becomes ${CONFIG_OPTIONS.reshardAfterForward.key}: ${RESHARD[strategy]}, which`;
  if (strategy === "NO_SHARD") {
    return [
      `${becomes} means something else: parameters, gradients and optimizer state are sharded, where NO_SHARD keeps them whole on every rank, as a dp_replicate_size of all ranks in parallelism_config does`,
    ];
  }
  if (!strategy.startsWith("HYBRID_SHARD")) return [];
  return [
    `${becomes} shards over all ranks: give a dp_replicate_size in parallelism_config to replicate over hosts`,
  ];
}
