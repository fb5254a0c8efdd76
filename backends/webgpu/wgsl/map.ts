/**
 * Kernels that compute each element from the elements at the same place: one invocation a vector of four.
 *
 * Vectors begin where memory says, not where spans do: `lead` elements before the span's first belong to the first
 * vector, so that any offset runs wide as long as all spans share it. Without that, one invocation a scalar.
 *
 * @module
 */
import type { FloatType } from "../spans.ts";
import type { KernelSource } from "./source.ts";

/** Invocations of a workgroup. */
export const MAP_WORKGROUP = 256;

const WIDE = "alias V = vec4<f32>; alias U = vec4<u32>; alias B = vec4<bool>;\n";
const NARROW = "alias V = f32; alias U = u32; alias B = bool;\n";

/** What a map computes. */
export interface MapKernel {
  readonly name: string;
  /** Operands that are read. */
  readonly inputs: readonly string[];
  /** Operands that are written; those that are read too are inputs, under another name, over the same span. */
  readonly outputs: readonly string[];
  /** Scalars beside `n`. */
  readonly params?: KernelSource["params"];
  readonly declarations?: string;
  /** Computes `V` values named as the outputs with `_new` behind, from those named as the inputs. */
  readonly body: string;
  /** Types of operands that are not of the common one. */
  readonly types?: Readonly<Record<string, FloatType>>;
}

/** The kernel's text for a type; `wide` ones take a `lead`. */
export function mapKernel(kernel: MapKernel, type: FloatType, wide: boolean): KernelSource {
  const of = (name: string): FloatType => kernel.types?.[name] ?? type;
  const read = (name: string): string => `let ${name} = V($${name}[p.${name}_at + i]);`;
  const value = (name: string): string => {
    const narrow = of(name);
    if (wide) return narrow === "f32" ? `${name}_new` : `vec4<f16>(${name}_new)`;
    return `${narrow}(${name}_new)`;
  };
  const whole = kernel.outputs.map((name) => `$${name}[p.${name}_at + i] = ${value(name)};`).join(" ");
  const partly = kernel.outputs
    .map((name) => `let ${name}_part = ${value(name)};`)
    .concat("for (var j = max(first, p.lead) - first; j < min(4u, p.lead + p.n - first); j++) {")
    .concat(kernel.outputs.map((name) => `$${name}[p.${name}_at + i][j] = ${name}_part[j];`))
    .concat("}")
    .join(" ");
  const element = (name: string) => (wide ? (`vec4<${of(name)}>` as const) : of(name));
  return {
    name: `${kernel.name} ${type}${wide ? "x4" : ""}`,
    operands: [
      ...kernel.inputs.map((name) => ({ name, type: element(name) })),
      ...kernel.outputs.map((name) => ({ name, type: element(name), write: true })),
    ],
    params: { n: "u32", ...(wide ? { lead: "u32" } : {}), ...kernel.params },
    workgroup: MAP_WORKGROUP,
    declarations: `${wide ? WIDE : NARROW}${kernel.declarations ?? ""}`,
    main: `
      let i = group * ${MAP_WORKGROUP}u + t;
      ${wide ? "let first = 4u * i; if (first >= p.lead + p.n) { return; }" : "if (i >= p.n) { return; }"}
      ${kernel.inputs.map(read).join(" ")}
      ${kernel.body}
      ${wide ? `if (first >= p.lead && first + 4u <= p.lead + p.n) { ${whole} } else { ${partly} }` : whole}
    `,
  };
}
