/**
 * What a kernel is made of, and how its WGSL text is put together.
 *
 * A kernel names its operands and parameters; their declarations, the entry point and the grid are written here, once.
 * Its text says `$x` for operand x, because two operands in one device buffer must share one binding, and `p.x_at` for
 * the first element of the operand's span: whole buffers are bound, so that a span may begin anywhere.
 *
 * @module
 */

/** Element types that storage buffers are declared with. */
export type ElementType =
  | "f32"
  | "f16"
  | "u32"
  | "atomic<u32>"
  | "vec2<u32>"
  | "vec4<u32>"
  | "vec4<f32>"
  | "vec2<f16>"
  | "vec4<f16>";

/** Bytes of one element. */
export const ELEMENT_BYTES: Readonly<Record<ElementType, number>> = {
  f32: 4,
  f16: 2,
  u32: 4,
  "atomic<u32>": 4,
  "vec2<u32>": 8,
  "vec4<u32>": 16,
  "vec4<f32>": 16,
  "vec2<f16>": 4,
  "vec4<f16>": 8,
};

/** One storage operand. */
export interface Operand {
  readonly name: string;
  readonly type: ElementType;
  /** Whether the kernel writes it (it may read it too). */
  readonly write?: boolean;
}

/** Language features that a kernel's text uses, beside f16, which follows from the operands. */
export type KernelFeature = "f16" | "subgroups" | "subgroup-matrix";

/** A kernel. Make each variant once and keep it: pipelines are cached by identity. */
export interface KernelSource {
  /** Family and variant, for labels and profiles: `"softmax f32x4"`. What precedes the first space is the family. */
  readonly name: string;
  readonly operands: readonly Operand[];
  /** Scalars given at every dispatch, read as `p.name`. */
  readonly params: Readonly<Record<string, "u32" | "i32" | "f32">>;
  /** Rows of a `vec4<u32>` table given at every dispatch, read as `p.table[row]`; none unless given. */
  readonly table?: number;
  /** Invocations of a workgroup: x, or x, y, z. */
  readonly workgroup: number | readonly [number, number, number];
  readonly features?: readonly KernelFeature[];
  /** Functions, constants and workgroup variables. */
  readonly declarations?: string;
  /**
   * Body of the entry point. It sees `t` (index in the workgroup), `group` (index of the workgroup, folded from two
   * dimensions), `w` (its three-dimensional id), `grid` (workgroups by dimension), `l` (three-dimensional index in the
   * workgroup); with subgroups `lane`, `lanes` (subgroup size), `subgroup` and `subgroups` (of the workgroup).
   */
  readonly main: string;
}

/** Invocations of a kernel's workgroup by dimension. */
function workgroupSize(source: KernelSource): readonly [number, number, number] {
  return typeof source.workgroup === "number" ? [source.workgroup, 1, 1] : source.workgroup;
}

/** Bytes of a kernel's parameter block. */
export function parameterBytes(source: KernelSource): number {
  const scalars = 4 * (source.operands.length + Object.keys(source.params).length);
  return source.table === undefined ? scalars : 16 * (Math.ceil(scalars / 16) + source.table);
}

/** Where parameters come from: `"immediate"` memory of the command, or a slot of a uniform buffer. */
export type ParameterSpace = "immediate" | "uniform";

/** A kernel's whole text, when operand i is bound at `slots[i]`. */
export function assemble(source: KernelSource, slots: readonly number[], space: ParameterSpace): string {
  const { operands, params } = source;
  const features = new Set(source.features);
  if (operands.some(({ type }) => type.includes("f16"))) features.add("f16");
  const bindings = [...new Set(slots)].map((slot) => {
    const sharing = operands.filter((_, i) => slots[i] === slot);
    const access = sharing.some(({ write }) => write) ? "read_write" : "read";
    return `@group(0) @binding(${slot}) var<storage, ${access}> b${slot}: array<${sharing[0]!.type}>;`;
  });
  const names = new Map(operands.map(({ name }, i) => [name, `b${slots[i]}`]));
  const resolve = (text: string): string =>
    text.replace(/\$(\w+)/g, (whole, name: string) => names.get(name) ?? whole);
  const scalars = [
    ...operands.map(({ name }) => `  ${name}_at: u32,`),
    ...Object.entries(params).map(([name, type]) => `  ${name}: ${type},`),
  ];
  const table = source.table === undefined ? [] : [`  table: array<vec4<u32>, ${source.table}>,`];
  const grouped = features.has("subgroups");
  return [
    ...(features.has("subgroup-matrix") ? ["diagnostic(off, chromium.subgroup_matrix_uniformity);"] : []),
    ...(grouped ? ["diagnostic(off, subgroup_uniformity);"] : []),
    ...(features.has("f16") ? ["enable f16;"] : []),
    ...(grouped ? ["enable subgroups;", "requires subgroup_id;"] : []),
    ...(features.has("subgroup-matrix") ? ["enable chromium_experimental_subgroup_matrix;"] : []),
    ...(space === "immediate" ? ["requires immediate_address_space;"] : []),
    "struct Params {",
    ...scalars,
    ...table,
    "}",
    space === "immediate" ? "var<immediate> p: Params;" : "@group(1) @binding(0) var<uniform> p: Params;",
    ...bindings,
    resolve(source.declarations ?? ""),
    `@compute @workgroup_size(${workgroupSize(source).join(", ")})`,
    "fn main(@builtin(workgroup_id) w: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,",
    "        @builtin(local_invocation_id) l: vec3<u32>, @builtin(local_invocation_index) t: u32",
    ...(grouped
      ? [
          "        , @builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_size) lanes: u32",
          "        , @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32",
        ]
      : []),
    ") {",
    "let group = w.x + w.y * grid.x;",
    resolve(source.main),
    "}",
  ].join("\n");
}
