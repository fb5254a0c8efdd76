/** The option table as the README of plugins/accelerate shows it. */
import {
  type ConfigOption,
  OPTION_NAMES,
  optionOf,
  type VersionRule,
} from "../../../../plugins/accelerate/config/options.ts";

const HEADER = [
  "| in code | `fsdp_config`, `--...` | environment | values | default | FSDP1 | FSDP2 | meaning |",
  "| --- | --- | --- | --- | --- | --- | --- | --- |",
];

/** The table in Markdown. */
export function readmeTable(): string {
  const rows = OPTION_NAMES.map((name) => {
    const option = optionOf(name);
    const { key, env, description, v1, v2 } = option;
    const cells = [`\`${name}\``, `\`${key}\``, `\`${env}\``, values(option), byDefault(option)];
    return `| ${[...cells, version(v1), version(v2), description].join(" | ")} |`;
  });
  return [...HEADER, ...rows].join("\n");
}

function values({ kind, choices, min }: ConfigOption): string {
  switch (kind) {
    case "boolean":
      return "true, false";
    case "integer":
      return `integers from ${min ?? 0}`;
    case "choice":
      return choices!.join(", ");
    case "names":
      return "names, with commas";
    case "pattern":
      return "regular expression";
    case "degree":
      return "true, false, integers from 2";
    case "version":
      return "1, 2, a name";
  }
}

function byDefault({ default: value, absent, v1 }: ConfigOption): string {
  const one = v1?.default;
  if (value === undefined) return one ?? absent ?? "";
  return one === undefined ? String(value) : `${value}; FSDP1: ${one}`;
}

function version(rule: VersionRule | undefined): string {
  if (rule?.ignored !== undefined) return `ignored: ${rule.ignored}`;
  if (rule?.refused !== undefined) return `refused: ${rule.refused}`;
  return rule?.note ?? "kept";
}
