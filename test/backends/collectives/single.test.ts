import { singleTransport } from "../../../backends/collectives/single.ts";
import { collectiveConformance } from "../../conformance/collective/suite.ts";

collectiveConformance(singleTransport, { worlds: [1], sequences: 20, timeout: 20_000 });
