import { webgpuBackend } from "../../../backends/webgpu/mod.ts";
import { DTYPES, type DType } from "../../../core/contracts/dtype.ts";
import { kernelConformance } from "../../conformance/kernels/suite.ts";

const storage = (Object.keys(DTYPES) as DType[]).filter((d) => d !== "float64");
const settings: Record<string,string> = JSON.parse(process.env.SET ?? '{"checks":"on"}');
kernelConformance("webgpu", () => webgpuBackend.create({ settings }), { storage, guard: Number(process.env.GUARD ?? 3) });
