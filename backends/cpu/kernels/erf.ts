/**
 * The error function to float64 precision, after fdlibm's `s_erf.c` (Sun Microsystems, freely distributable).
 *
 * @module
 */

// Coefficients from the highest power down.
const P0 = [
  -0.000023763016656650163, -0.005770270296489442, -0.02848174957559851, -0.3250421072470015,
  0.12837916709551256,
];
const Q0 = [
  -0.000003960228278775368, 0.00013249473800432164, 0.005081306281875766, 0.0650222499887673,
  0.39791722395915535, 1,
];
const P1 = [
  -0.002166375594868791, 0.035478304325618236, -0.11089469428239668, 0.31834661990116175, -0.3722078760357013,
  0.41485611868374833, -0.0023621185607526594,
];
const Q1 = [
  0.011984499846799107, 0.01363708391202905, 0.12617121980876164, 0.07182865441419627, 0.540397917702171,
  0.10642088040084423, 1,
];
const P2 = [
  -9.814329344169145, -81.2874355063066, -184.60509290671104, -162.39666946257347, -62.375332450326006,
  -10.558626225323291, -0.6938585727071818, -0.009864944034847148,
];
const Q2 = [
  -0.0604244152148581, 6.570249770319282, 108.63500554177944, 429.00814002756783, 645.3872717332679,
  434.56587747522923, 137.65775414351904, 19.651271667439257, 1,
];
const P3 = [
  -483.5191916086514, -1025.0951316110772, -637.5664433683896, -160.63638485582192, -17.757954917754752,
  -0.799283237680523, -0.0098649429247001,
];
const Q3 = [
  -22.44095244658582, 474.52854120695537, 2553.0504064331644, 3199.8582195085955, 1536.729586084437,
  325.7925129965739, 30.33806074348246, 1,
];
const ERX = 0.8450629115104675;

/** `erf(x)`, within an ulp or so of exact. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (Number.isNaN(a)) return x;
  if (a < 0.84375) {
    const z = x * x;
    return x + x * (polynomial(P0, z) / polynomial(Q0, z));
  }
  const sign = Math.sign(x);
  if (a < 1.25) return sign * (ERX + polynomial(P1, a - 1) / polynomial(Q1, a - 1));
  if (a >= 6) return sign;
  const s = 1 / (a * a);
  const ratio = a < 1 / 0.35 ? polynomial(P2, s) / polynomial(Q2, s) : polynomial(P3, s) / polynomial(Q3, s);
  // exp(-a^2) loses digits for large a; with a cut to float32, z * z is exact.
  const z = Math.fround(a);
  return sign * (1 - (Math.exp(-z * z - 0.5625) * Math.exp((z - a) * (z + a) + ratio)) / a);
}

function polynomial(coefficients: readonly number[], x: number): number {
  let sum = 0;
  for (const c of coefficients) sum = sum * x + c;
  return sum;
}
