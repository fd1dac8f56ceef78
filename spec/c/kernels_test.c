/* SPDX-License-Identifier: MIT
** kernels_test.c: every ISA that this machine can run against plain loops in double: the error of the f32
** functions in ulps over a sample of all floats, all lists of kernels.h over sizes with and without tails
** and unaligned pointers, convolution over random geometry, the optimizers and the integers. Needs nothing
** but core/kernels. Prints one line a group; the exit status is 1 when one failed.
*/
#include <stdio.h>
#include <stdlib.h>

#include "../../core/kernels/kernels.h"
#include "reference.h"

#define MAX_N 200
#define GUARD 1234.5

static int failures; /* of the group at work */
static int failed_groups;
static const char *isa;

static void complain (const char *what, const char *name, double got, double wanted) {
  if (failures++ < 5) printf("  %s: %s %s: got %.9g, expected %.9g\n", isa, name, what, got, wanted);
}

static void end_group (const char *name) {
  printf("%s %s: %s\n", failures ? "FAIL" : "ok  ", isa, name);
  failed_groups += failures != 0;
  failures = 0;
}

static uint64_t seed = 88172645463325252u;

static uint32_t word (void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return (uint32_t)(seed >> 32);
}

static int below (int n) { return (int)(word() % (uint32_t)n); }

static double uniform (double low, double high) { return low + (high - low) * word() / 4294967296.0; }

/* ---- errors in ulps ---- */

static double identity (double x) { return x; }

#define BATCH 1024
#define STEP 4093  /* between the bits of two arguments: 1 in 4093 of all floats */
#define MIDDLE 500 /* batches between -20 and 20, where most functions bend */

static const float edges[] = {
    0.0f,        -0.0f,       1.0f,       -1.0f,        0.5f,        -0.5f,      1.5f,         2.5f,
    -2.5f,       INFINITY,    -INFINITY,  NAN,          FLT_MAX,     -FLT_MAX,   FLT_MIN,      -FLT_MIN,
    1e-45f,      -1e-45f,     88.72283f,  88.72284f,    88.7229f,    -87.33655f, -103.97208f,  -103.97209f,
    -104.0f,     8388607.5f,  8388608.0f, -4194303.5f,  0.99999994f, 1.0000001f, -0.99999994f, 0.70710677f,
    0.70710683f, 1.4142135f,  0.34657f,   0.34658f,     -13.1f,      -14.4f,     -14.5f,       10.0f,
    9.01f,       17.4f,       -17.4f,     1e-4f,        -1e-4f,      3e38f,      16777216.0f,  65536.0f,
    65536.004f,  -65536.004f, 1e22f,      0.75f,        1.4999999f,  0.075f,     0.92500001f,  0.074999f,
    1.5707964f,  3.1415927f,  11.0f,      16367173e15f, 5.3e-18f,    -110.0f,    -200.0f,      32.0f};

/* Arguments of one batch, by its number: the edges, all floats in steps, then the middle. False: no more. */
static bool arguments (int64_t batch, float *x) {
  int64_t first = (batch - 1) * BATCH * STEP, all = INT64_C(1) << 32;
  if (first >= all + (int64_t)MIDDLE * BATCH * STEP) return false;
  for (int i = 0; i < BATCH; i++) {
    uint32_t bits = (uint32_t)(first + (int64_t)i * STEP);
    memcpy(&x[i], &bits, sizeof bits);
    if (batch == 0) x[i] = edges[(size_t)i % (sizeof edges / sizeof *edges)];
    if (first >= all) x[i] = (float)uniform(-20, 20);
  }
  return true;
}

static void check_unary (const unary_case *c, marea_unary_kernel *kernel) {
  float x[BATCH], y[BATCH];
  double worst = 0, at = 0;
  for (int64_t batch = 0; arguments(batch, x); batch++) {
    kernel(BATCH, x, y, parameters);
    for (int i = 0; i < BATCH; i++) {
      double wanted = c->wanted((double)x[i]);
      if (y[i] == (float)wanted && (x[i] != 0 || !signbit(y[i]) == !signbit(wanted))) continue;
      double error = x[i] == 0 && y[i] == (float)wanted ? INFINITY : ulps(y[i], wanted); /* 0 for -0 */
      if (error > worst) worst = error, at = (double)x[i];
    }
  }
  if (worst > c->ulps) complain("ulps at the worst argument", c->name, worst, c->ulps);
  if (worst > c->ulps) printf("    %-8s %-10s %.3f ulp at %.9g\n", isa, c->name, worst, at);
}

static void check_functions (const marea_kernels *k) {
#define U(name) check_unary(find_case(#name), k->name);
  MAREA_UNARY_KERNELS(U)
#undef U
  end_group("functions of f32 in ulps");
}

#include "pairs.h"

/* The same bits wherever the values lie and however they are cut into calls. */
#define LONG 300

/* The same bits, or both not a number: the sign of that is nobody's. */
static bool same (const float *y, const float *z) {
  for (int i = 0; i < LONG; i++)
    if (memcmp(&y[i], &z[i], sizeof *y) != 0 && !(isnan(y[i]) && isnan(z[i]))) return false;
  return true;
}

static void check_pieces (const marea_kernels *k) {
  static float a[LONG], b[LONG], y[LONG], z[LONG];
  for (int round = 0; round < 100; round++) {
    int cut = below(LONG + 1);
    for (int i = 0; i < LONG; i++) {
      uint32_t bits[2] = {word(), word()};
      memcpy(&a[i], &bits[0], 4);
      memcpy(&b[i], &bits[1], 4);
      if (round % 2) a[i] = (float)uniform(-4, 4), b[i] = (float)uniform(-4, 4);
    }
#define SAME_BITS(name) \
  if (!same(y, z)) complain("depends on where the values lie", #name, cut, LONG)
#define U(name)                                                \
  k->name(LONG, a, y, parameters);                             \
  k->name((size_t)cut, a, z, parameters);                      \
  k->name((size_t)(LONG - cut), a + cut, z + cut, parameters); \
  SAME_BITS(name);
    MAREA_UNARY_KERNELS(U)
#undef U
#define B(name)                                                               \
  k->name(LONG, a, 1, b, 1, y, parameters);                                   \
  k->name((size_t)cut, a, 1, b, 1, z, parameters);                            \
  k->name((size_t)(LONG - cut), a + cut, 1, b + cut, 1, z + cut, parameters); \
  SAME_BITS(name);
    MAREA_BINARY_KERNELS(B)
#undef B
  }
  end_group("bits of pieces");
}

/* ---- sizes, tails and alignment, for both kinds of floats ---- */

typedef struct numbers { /* one array as it is, shifted off every alignment */
  bool wide;
  _Alignas(8) char bytes[(MAX_N + 2) * sizeof(double) + 64];
  char *start;
} numbers;

static void place (numbers *a, bool wide) {
  a->wide = wide;
  a->start = a->bytes + (below(2) ? 0 : (wide ? sizeof(double) : sizeof(float)) * (size_t)below(5));
}

static double get (const numbers *a, int i) {
  double d;
  float f;
  if (a->wide) return memcpy(&d, a->start + 8 * i, 8), d;
  return memcpy(&f, a->start + 4 * i, 4), (double)f;
}

static void set (numbers *a, int i, double value) {
  float f = (float)value;
  if (a->wide) memcpy(a->start + 8 * i, &value, 8);
  else memcpy(a->start + 4 * i, &f, 4);
}

static void fill (numbers *a, int n, double low, double high) {
  for (int i = 0; i < n; i++) set(a, i, below(20) ? uniform(low, high) : floor(low));
  set(a, n, GUARD);
}

static void expect (const char *name, const numbers *got, int i, double wanted, double scale) {
  double tolerance = scale * (got->wide ? 1e-14 : 4e-6), value = get(got, i);
  bool fine = isnan(wanted) ? isnan(value) : value == wanted || fabs(value - wanted) <= tolerance;
  if (!fine) complain("value", name, value, wanted);
}

static void check_tail (const char *what, const numbers *x, const numbers *y, int n) {
  double (*wanted)(double) = find_case(what)->wanted;
  if (get(y, n) != GUARD) complain("wrote beyond the end", what, get(y, n), GUARD);
  if (!wanted || wanted == clamp || wanted == elu || wanted == leaky_relu) return; /* have float parameters */
  for (int i = 0; i < n; i++) expect(what, y, i, wanted(get(x, i)), 1 + fabs(wanted(get(x, i))));
}

static void check_tails (const marea_kernels *k, bool wide) {
  numbers x, y;
  for (int round = 0; round < 300; round++) {
    int n = below(MAX_N);
    place(&x, wide);
    place(&y, wide);
    fill(&x, n, 0.01, 3.0);
#define U(name)                                     \
  fill(&y, n, 0, 1);                                \
  k->name((size_t)n, x.start, y.start, parameters); \
  check_tail(#name, &x, &y, n);
    MAREA_UNARY_KERNELS(U)
#undef U
  }
  end_group(wide ? "unary sizes f64" : "unary sizes f32");
}

static double binary_wanted (const char *name, double a, double b, double p, bool wide) {
#define IS(text) if (!strcmp(name, #text))
  double d = a - b, q = fmin(fmax(a, p), 1 - p);
  IS(add) return a + b;
  IS(sub) return d;
  IS(mul) return a * b;
  IS(div) return a / b;
  IS(pow) return pow(a, b);
  IS(remainder) return fmod(fmod(a, b) + b, b);
  IS(floor_divide)
  return floor(wide ? a / b : (double)(float)(a / b)); /* a quotient that rounds to a whole one */
  IS(maximum) return isnan(a) || isnan(b) ? NAN : fmax(a, b);
  IS(minimum) return isnan(a) || isnan(b) ? NAN : fmin(a, b);
  IS(relu_grad) return b > 0 ? a : 0;
  IS(relu6_grad) return b > 0 && b < 6 ? a : 0;
  IS(leaky_relu_grad) return b > 0 ? a : p * a;
  IS(elu_grad) return b > 0 ? a : a * (b + p);
  IS(sigmoid_grad) return a * b * (1 - b);
  IS(tanh_grad) return a * (1 - b * b);
  IS(softplus_grad) return a * (1 - exp(-b));
  IS(gelu_grad) return a * (normal_cdf(b) + b * exp(-b * b / 2) / sqrt(2 * 3.14159265358979323846));
  IS(bce) return -(b * log(q) + (1 - b) * log(1 - q));
  IS(bce_grad) return a >= p && a <= 1 - p ? (a - b) / (a * (1 - a)) : 0;
  IS(bce_with_logits) return fmax(a, 0) - a * b + log1p(exp(-fabs(a)));
  IS(bce_with_logits_grad) return sigmoid(a) - b;
  IS(huber) return fabs(d) <= p ? 0.5 * d * d : p * (fabs(d) - 0.5 * p);
  IS(huber_grad) return fabs(d) <= p ? d : copysign(p, d);
  IS(squared_difference) return d * d;
  IS(absolute_difference) return fabs(d);
  IS(kl_normal) return 0.5 * (a * a + exp(b) - 1 - b);
  IS(eq) return a == b;
  IS(ne) return a != b;
  IS(lt) return a < b;
  IS(le) return a <= b;
  IS(gt) return a > b;
  IS(ge) return a >= b;
  return NAN;
}

static void check_binary (const marea_kernels *k, bool wide) {
  numbers a, b, y;
  uint8_t bytes[MAX_N + 1];
  const double p[1] = {0.25};
  for (int round = 0; round < 400; round++) {
    int n = below(MAX_N), sa = below(2), sb = below(2);
    place(&a, wide);
    place(&b, wide);
    place(&y, wide);
    bool bce = round % 4 == 0;
    fill(&a, n, bce ? 0.01 : -2.0, bce ? 0.99 : 2.0);
    fill(&b, n, bce ? 0.01 : -2.0, bce ? 0.99 : 2.0);
#define EACH(name, result, value, beyond)                                             \
  fill(&y, n, 0, 1), bytes[n] = 77;                                                   \
  k->name((size_t)n, a.start, (size_t)sa, b.start, (size_t)sb, result, p);            \
  if (beyond) complain("wrote beyond the end", #name, 0, 0);                          \
  for (int i = 0; i < n; i++) {                                                       \
    double wanted = binary_wanted(#name, get(&a, i * sa), get(&b, i * sb), *p, wide); \
    value                                                                             \
  }
#define B(name) EACH(name, y.start, expect(#name, &y, i, wanted, 4 + fabs(wanted));, get(&y, n) != GUARD)
    MAREA_BINARY_KERNELS(B)
#undef B
#define C(name) \
  EACH(name, bytes, if (bytes[i] != wanted) complain("value", #name, bytes[i], wanted);, bytes[n] != 77)
    MAREA_COMPARE_KERNELS(C)
#undef C
    for (int i = 0; i < n; i++) bytes[i] = (uint8_t)(below(3) * 100);
    fill(&y, n, 0, 1);
    k->where((size_t)n, bytes, 1, a.start, (size_t)sa, b.start, (size_t)sb, y.start, NULL);
    for (int i = 0; i < n; i++) expect("where", &y, i, bytes[i] ? get(&a, i * sa) : get(&b, i * sb), 0);
    if (get(&y, n) != GUARD) complain("wrote beyond the end", "where", get(&y, n), GUARD);
  }
  end_group(wide ? "binary f64" : "binary f32");
}

/* The sum of the same values must not depend on where they lie. */
static void check_alignment (const marea_kernels *k) {
  static float x[70000 + 16];
  float values[64];
  for (int i = 0; i < 64; i++) values[i] = (float)uniform(-1, 1);
  double first = 0;
  for (int shift = 0; shift < 16; shift++) {
    for (int i = 0; i < 70000; i++) x[i + shift] = values[i % 64] * (float)(1 + i % 7);
    double sum = k->sum(69997, x + shift);
    if (!shift) first = sum;
    if (sum != first) complain("depends on alignment", "sum", sum, first);
  }
  end_group("sums on every alignment");
}

/* The references of ELU and leaky ReLU have this slope. */
#define SLOPE ((double)0.3f)

static double activation (double a, int act) {
  static double (*const f[MAREA_ACTIVATIONS])(double) = {identity, relu, leaky_relu, elu,
                                                         sigmoid,  tanh, softplus,   relu6};
  return f[act](a);
}

static void check_rows (const marea_kernels *k) {
  static float x[600 * 90], y[90], z[90];
  for (int round = 0; round < 300; round++) {
    int rows = below(600), n = below(80), step = n + below(3);
    double bias[3] = {0.1, -0.2, 0.3};
    for (int i = 0; i < rows * step; i++) x[i] = (float)uniform(-1, 1);
    for (int j = 0; j <= n; j++) z[j] = y[j] = (float)j;
    k->add_rows((size_t)rows, (size_t)n, (size_t)step, x, y);
    for (int j = 0; j < n; j++) {
      double wanted = (double)z[j];
      for (int i = 0; i < rows; i++) wanted += (double)x[i * step + j];
      if (fabs((double)y[j] - wanted) > 1e-4) complain("value", "add_rows", (double)y[j], wanted);
    }
    if (y[n] != (float)n) complain("wrote beyond the end", "add_rows", (double)y[n], n);
    float b[3] = {(float)bias[0], (float)bias[1], (float)bias[2]};
    for (int act = 0; act < MAREA_ACTIVATIONS; act++) {
      for (int i = 0; i < 30; i++) y[i] = (float)uniform(-2, 2), z[i] = y[i];
      int width = act % 2 ? 3 : 1;
      k->bias_act((size_t)(30 / width), (size_t)width, b, (marea_activation)act, SLOPE, y);
      for (int i = 0; i < 30; i++) {
        double wanted = activation((double)z[i] + bias[i % width], act);
        if (fabs((double)y[i] - wanted) > 1e-6) complain("value", "bias_act", (double)y[i], wanted);
      }
    }
  }
  end_group("rows");
}

/* ---- convolution ---- */

#define IMAGE 40000
#define BIAS 300
static double image[IMAGE], weight[IMAGE], result[IMAGE];
static _Alignas(8) char raw_image[IMAGE * 8], raw_weight[IMAGE * 8],
    raw_result[IMAGE * 8], raw_bias[BIAS * 8];

static void put (char *raw, int64_t i, double value, bool wide) {
  if (wide) ((double *)(void *)raw)[i] = value;
  else ((float *)(void *)raw)[i] = (float)value;
}

static double take (const char *raw, int64_t i, bool wide) {
  return wide ? ((const double *)(const void *)raw)[i] : (double)((const float *)(const void *)raw)[i];
}

static void random_array (double *a, char *raw, int n, bool wide) {
  for (int i = 0; i < n; i++) {
    put(raw, i, uniform(-1, 1), wide);
    a[i] = take(raw, i, wide);
  }
}

/* The loops of normalization; values far from 0, where a sum of squares alone would lose the deviation. */
static void check_norm (const marea_kernels *k, bool wide) {
  static double x[40 * 90], e[40 * 90];
  static _Alignas(8) char rx[40 * 90 * 8], re[40 * 90 * 8], ry[40 * 90 * 8], r[5][91 * 8];
  double *shift = (double[91]){0}, row[4][91];
  for (int round = 0; round < 200; round++) {
    const int rows = below(40), n = below(80), step = round % 2 ? n : n + below(3), size = rows * step;
    for (int i = 0; i < size; i++) {
      put(rx, i, 100 + uniform(-1, 1), wide);
      put(re, i, uniform(-1, 1), wide);
      x[i] = take(rx, i, wide);
      e[i] = take(re, i, wide);
    }
    for (int j = 0; j <= n; j++) {
      for (int m = 0; m < 5; m++) put(r[m], j, m == 0 ? 100 + uniform(-1, 1) : uniform(-1, 1), wide);
      shift[j] = take(r[0], j, wide);
      for (int m = 0; m < 4; m++) row[m][j] = take(r[m + 1], j, wide);
    }
    double sum, squares, all = 0, all_squares = 0;
    k->moments((size_t)size, rx, take(r[0], 0, wide), &sum, &squares);
    for (int i = 0; i < size; i++)
      all += x[i] - shift[0], all_squares += (x[i] - shift[0]) * (x[i] - shift[0]);
    if (fabs(all - sum) > 1e-3) complain("sum", "moments", sum, all);
    if (fabs(all_squares - squares) > 1e-3) complain("squares", "moments", squares, all_squares);
    if (step == n) {
      k->normalize((size_t)rows, (size_t)n, rx, r[0], r[1], r[2], ry);
      for (int i = 0; i < size; i++) {
        const double wanted = (x[i] - shift[i % n]) * row[0][i % n] + row[1][i % n];
        if (fabs(take(ry, i, wide) - wanted) > 1e-6)
          complain("value", "normalize", take(ry, i, wide), wanted);
      }
      k->normalize_grad((size_t)rows, (size_t)n, re, rx, r[0], r[1], r[2], r[3], ry);
      for (int i = 0; i < size; i++) {
        const double wanted = row[0][i % n] * e[i] + row[1][i % n] * (x[i] - shift[i % n]) + row[2][i % n];
        if (fabs(take(ry, i, wide) - wanted) > 1e-6)
          complain("value", "normalize_grad", take(ry, i, wide), wanted);
      }
    }
    k->add_moments((size_t)rows, (size_t)n, (size_t)step, rx, r[0], r[1], r[2]);
    k->add_products((size_t)rows, (size_t)n, (size_t)step, re, (size_t)step, rx, r[0], r[3]);
    for (int j = 0; j <= n; j++) { /* column n is beyond the end: nothing is added */
      for (int i = 0; i < rows && j < n; i++) {
        const double d = x[i * step + j] - shift[j];
        row[0][j] += d;
        row[1][j] += d * d;
        row[2][j] += e[i * step + j] * d;
      }
      for (int m = 0; m < 3; m++)
        if (fabs(take(r[m + 1], j, wide) - row[m][j]) > 1e-4)
          complain("sums", m < 2 ? "add_moments" : "add_products", take(r[m + 1], j, wide), row[m][j]);
    }
  }
  end_group(wide ? "normalization f64" : "normalization f32");
}

/* Word w of block b of Philox4x32-10. */
static uint32_t philox_word (uint64_t key, uint64_t b, int w) {
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32), c[4] = {(uint32_t)b, (uint32_t)(b >> 32), 0, 0};
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
    c[0] = (uint32_t)(p1 >> 32) ^ c[1] ^ k0;
    c[1] = (uint32_t)p1;
    c[2] = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
    c[3] = (uint32_t)p0;
  }
  return c[w];
}

/* The words are those of every ISA, also where a block number passes 32 bits. */
static void check_dropout (const marea_kernels *k, bool wide) {
  static _Alignas(8) char x[301 * 8], y[301 * 8];
  for (int round = 0; round < 300; round++) {
    const int n = below(300);
    const uint64_t key = (uint64_t)word() << 32 | word();
    const uint64_t counter = round % 3 ? word() : (UINT64_C(5) << 32) - (uint64_t)below(40);
    const uint32_t least = round % 7 ? word() : 0;
    for (int i = 0; i <= n; i++) {
      put(x, i, uniform(-2, 2), wide);
      put(y, i, GUARD, wide);
    }
    k->dropout((size_t)n, key, counter, least, 1.5, x, y);
    for (int i = 0; i < n; i++) {
      const uint32_t w = philox_word(key, counter + (uint64_t)(i / 64 * 16 + i % 16), i % 64 / 16);
      const double wanted = w < least ? 0 : take(x, i, wide) * 1.5;
      if (fabs(take(y, i, wide) - wanted) > 1e-6) complain("value", "dropout", take(y, i, wide), wanted);
    }
    if (take(y, n, wide) != GUARD) complain("wrote beyond the end", "dropout", take(y, n, wide), GUARD);
  }
  end_group(wide ? "dropout f64" : "dropout f32");
}

#define MOST_TAPS 5 /* in a row */

typedef struct geometry {
  int rows, cols, cin, cout, kh, kw, stride;
  int width, skip; /* width of the padded image; y is written every `skip` pixels */
  bool depthwise;  /* output channel c reads input channel c alone; there are cin of both */
} geometry;

static geometry random_geometry (void) {
  static const int channels[] = {1, 1, 2, 3, 5, 8, 15, 16, 17, 20, 32, 33, 48, 64};
  geometry g = {.rows = below(5),
                .cols = below(32),
                .cin = channels[below(14)],
                .cout = channels[below(14)],
                .kh = 1 + below(MOST_TAPS),
                .kw = 1 + below(MOST_TAPS),
                .stride = 1 + below(3),
                .skip = 1 + below(2),
                .depthwise = below(4) == 0};
  g.width = g.cols * g.stride + g.kw;
  if (g.depthwise) g.cout = g.cin;
  return g;
}

static bool too_big (const geometry *g) {
  int64_t x = (int64_t)(g->rows * g->stride + g->kh) * g->width * g->cin;
  int64_t y = (int64_t)g->rows * g->cols * g->cout * g->skip * g->skip + g->cout;
  return x > IMAGE || y > IMAGE || (int64_t)g->kh * g->kw * g->cin * g->cout > IMAGE;
}

static void compare (const char *name, int n, double scale, bool wide) {
  for (int i = 0; i < n; i++) {
    double got = take(raw_result, i, wide);
    if (!(fabs(got - result[i]) <= scale * (wide ? 1e-13 : 2e-6))) complain("value", name, got, result[i]);
  }
}

/* Prefetches change nothing. Areas of rows of lines, some of them empty. */
static marea_prefetch *random_prefetch (void) {
  static marea_prefetch prefetch;
  prefetch = (marea_prefetch){.n = 0};
  for (int i = below(5); i > 0; i--)
    marea_prefetch_add(&prefetch, (marea_prefetch_area){(const char *)raw_image, below(4),
                                                        64 * (1 + below(3)), below(3), 512});
  return below(4) ? &prefetch : NULL;
}

/* Every line of every row is prefetched once, in order. */
static void check_prefetch (void) {
  static const char memory[4096];
  marea_prefetch a = {.n = 0};
  marea_prefetch_add(&a, marea_prefetch_area_of(memory, 63)); /* no whole line */
  marea_prefetch_add(&a, (marea_prefetch_area){memory, 3, 128, 2, 1024});
  marea_prefetch_add(&a, (marea_prefetch_area){memory, 5, 64, 0, 0});
  marea_prefetch_add(&a, marea_prefetch_area_of(memory + 2048, 130));
  static const int expected[] = {0, 128, 256, 1024, 1152, 1280, 2048, 2112};
  int n = 0;
  for (; a.left > 0 && n < 8; n++) {
    if (a.at != memory + expected[n]) complain("prefetch", "line", a.at - memory, expected[n]);
    a.at += a.step;
    if (--a.left == 0) marea_prefetch_next_row(&a);
  }
  if (n != 8 || a.left != 0) complain("prefetch", "lines", n, 8);
  end_group("prefetch");
}

static void one_direct_conv (const marea_kernels *k, const geometry *c, bool wide) {
  int64_t tap[MOST_TAPS * MOST_TAPS];
  int taps = c->kh * c->kw, rows = c->kh - below(c->kh), cols = c->kw - below(c->kw),
      reads = c->depthwise ? 1 : c->cin, y_col = c->cout * c->skip, y_row = y_col * c->cols * c->skip;
  const bool backward = below(2); /* as in input gradients */
  for (int t = 0; t < taps; t++) {
    const int at = backward ? taps - 1 - t : t;
    tap[t] = ((at / c->kw) * c->width + at % c->kw) * c->cin;
  }
  marea_direct_conv g = {.x = raw_image,
                         .w = raw_weight,
                         .bias = below(4) ? raw_bias : NULL,
                         .y = raw_result,
                         .rows = c->rows,
                         .cols = c->cols,
                         .x_row = c->width * c->cin * c->stride,
                         .x_col = c->cin * c->stride,
                         .y_row = y_row,
                         .y_col = y_col,
                         .cin = reads,
                         .cout = c->cout,
                         .tap_rows = rows,
                         .taps = cols,
                         .tap_row = c->kw,
                         .tap = tap,
                         .w_tap = reads * c->cout,
                         .w_ci = c->cout,
                         .act = (marea_activation)below(MAREA_ACTIVATIONS),
                         .slope = SLOPE,
                         .depthwise = c->depthwise,
                         .accumulate = below(2),
                         .stream_output = below(2),
                         .prefetch_output = below(2),
                         .two_vectors = below(2),
                         .prefetch = random_prefetch()};
  marea_tap_run run[MOST_TAPS * MOST_TAPS * MAREA_FEW_CHANNELS];
  marea_range inside[5] = {{0}};
  for (int i = 0; i < c->rows; i++) inside[i] = (marea_range){below(rows), rows};
  if (c->cin <= MAREA_FEW_CHANNELS && !c->depthwise && below(4)) marea_list_tap_runs(&g, run);
  if (g.run && !g.accumulate && c->cout % 16 == 0) g.rows_inside = inside; /* whole vectors for every ISA */
  random_array(result, raw_result, IMAGE, wide);
  for (int oy = 0; oy < c->rows; oy++)
    for (int ox = 0; ox < c->cols; ox++)
      for (int co = 0; co < c->cout; co++) {
        double *y = &result[oy * y_row + ox * y_col + co];
        double sum = g.accumulate ? *y : g.bias ? take(raw_bias, co, wide) : 0;
        const double *x = image + oy * g.x_row + ox * g.x_col + (c->depthwise ? co : 0);
        for (int t = g.rows_inside ? (int)inside[oy].first * c->kw : 0; t < taps; t++)
          for (int ci = 0; ci < reads && t / c->kw < rows && t % c->kw < cols; ci++)
            sum += x[tap[t] + ci] * weight[t * g.w_tap + ci * g.w_ci + co];
        *y = activation(sum, (int)g.act);
      }
  k->direct_conv(&g);
  compare("direct_conv", IMAGE, 1 + sqrt(taps * reads), wide);
}

static void one_direct_wgrad (const marea_kernels *k, const geometry *c, bool wide) {
  static int64_t offset[MOST_TAPS * MOST_TAPS * 64];
  int reads = c->depthwise ? 1 : c->cin, m = c->kh * c->kw * reads, dy_col = c->cout,
      dy_row = c->cols * c->cout + 1;
  for (int i = 0; i < m; i++) {
    int t = i / reads;
    offset[i] = ((t / c->kw) * c->width + t % c->kw) * c->cin + i % reads;
  }
  marea_direct_wgrad g = {.x = raw_image,
                          .dy = raw_weight,
                          .dw = raw_result,
                          .rows = c->rows,
                          .cols = c->cols,
                          .x_row = c->width * c->cin * c->stride,
                          .x_col = c->cin * c->stride,
                          .dy_row = dy_row,
                          .dy_col = dy_col,
                          .m = m,
                          .cout = c->cout,
                          .dw_row = c->cout,
                          .offset = offset,
                          .depthwise = c->depthwise,
                          .overwrite = c->rows > 0 && below(2)};
  random_array(result, raw_result, IMAGE, wide);
  for (int i = 0; i < m * c->cout && g.overwrite; i++) result[i] = 0;
  for (int i = 0; i < m; i++)
    for (int co = 0; co < c->cout; co++)
      for (int oy = 0; oy < c->rows; oy++)
        for (int ox = 0; ox < c->cols; ox++)
          result[i * c->cout + co] +=
              image[oy * g.x_row + ox * g.x_col + offset[i] + (c->depthwise ? co : 0)] *
              weight[oy * dy_row + ox * dy_col + co];
  k->direct_wgrad(&g);
  compare("direct_wgrad", IMAGE, 1 + sqrt(c->rows * c->cols), wide);
}

static void check_convolution (const marea_kernels *k, bool wide) {
  random_array(image, raw_image, IMAGE, wide);
  random_array(weight, raw_weight, IMAGE, wide);
  double unused[BIAS];
  random_array(unused, raw_bias, BIAS, wide);
  for (int round = 0; round < 350;) {
    geometry c = random_geometry();
    if (too_big(&c)) continue;
    one_direct_conv(k, &c, wide);
    c.rows *= 3; /* more than one chunk of rows */
    if (!too_big(&c)) one_direct_wgrad(k, &c, wide);
    round++;
  }
  end_group(wide ? "direct_conv and direct_wgrad f64" : "direct_conv and direct_wgrad f32");
}

/* ---- dense products ---- */

static void one_product (const marea_kernels *k, bool wide) {
  static _Alignas(64) char scratch[MAREA_PRODUCT_DEPTH * (MAREA_PRODUCT_ROWS + 48) * sizeof(double)];
  const int side = below(8) ? 70 : 300; /* long ones are packed */
  const int most = below(3) == 0 ? MAREA_PRODUCT_FEW : side < MAREA_PRODUCT_ROWS ? side : MAREA_PRODUCT_ROWS;
  const int m = 1 + below(most), n = 1 + below(side);
  const int depth = 1 + below(below(4) ? 60 : MAREA_PRODUCT_DEPTH);
  const bool ta = below(2), tb = below(2);
  const int lda = (ta ? m : depth) + below(3), ldb = (tb ? depth : n) + below(3);
  marea_product g = {.a = raw_image,
                     .b = raw_weight,
                     .c = raw_result,
                     .scratch = scratch,
                     .m = m,
                     .n = n,
                     .k = depth,
                     .lda = lda,
                     .ldb = ldb,
                     .ldc = n + 1,
                     .ta = ta,
                     .tb = tb,
                     .bias = below(2) ? raw_bias : NULL,
                     .act = (marea_activation)below(MAREA_ACTIVATIONS),
                     .slope = SLOPE,
                     .accumulate = below(2)};
  if ((depth + 2) * (side + 2) > IMAGE || m * (n + 1) > IMAGE) return;
  random_array(result, raw_result, IMAGE, wide);
  for (int i = 0; i < m; i++)
    for (int j = 0; j < n; j++) {
      double sum = g.accumulate ? result[i * (n + 1) + j] : g.bias ? take(raw_bias, j, wide) : 0;
      for (int p = 0; p < depth; p++)
        sum += image[g.ta ? p * lda + i : i * lda + p] * weight[g.tb ? j * ldb + p : p * ldb + j];
      result[i * (n + 1) + j] = activation(sum, (int)g.act);
    }
  static _Alignas(64) char panels[IMAGE * sizeof(double)];
  if (!tb && below(2)) {
    k->product_panels(&g, panels);
    g.panels = panels;
    g.b = NULL;
  }
  k->product(&g);
  compare("product", IMAGE, 1 + sqrt(depth), wide);
}

static void one_row (const marea_kernels *k, bool wide) {
  const int depth = 1 + below(60), m = 1 + below(300);
  marea_row_product g = {.x = raw_image,
                         .w = raw_weight,
                         .y = raw_result,
                         .k = depth,
                         .m = m,
                         .bias = below(2) ? raw_bias : NULL,
                         .accumulate = below(2)};
  if (depth * m > IMAGE) return;
  random_array(result, raw_result, IMAGE, wide);
  for (int j = 0; j < m; j++) {
    const int first = j / MAREA_ROW_PANEL * MAREA_ROW_PANEL,
              width = m - first < MAREA_ROW_PANEL ? m - first : MAREA_ROW_PANEL;
    double sum = g.accumulate ? result[j] : g.bias ? take(raw_bias, j, wide) : 0;
    for (int p = 0; p < depth; p++) sum += image[p] * weight[first * depth + p * width + j - first];
    result[j] = sum;
  }
  k->row_product(&g);
  compare("row_product", IMAGE, 1 + sqrt(depth), wide);
}

static void one_transposition (const marea_kernels *k, bool wide) {
  const int rows = 1 + below(below(2) ? 4 : 70), cols = 1 + below(200), x_row = cols + below(3);
  const int y_row = rows + (below(2) ? below(3) : 0);
  random_array(result, raw_result, IMAGE, wide);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < cols; j++) result[j * y_row + i] = image[i * x_row + j];
  k->turn((size_t)rows, (size_t)cols, (size_t)x_row, raw_image, (size_t)y_row, raw_result);
  compare("turn", IMAGE, 0, wide);
}

/* ---- Winograd's transforms, each channel by itself ---- */

#define CHANNELS 37
#define ROW_TILES 11

/* What output o meets in one dimension: pairs of data and tap; how many? */
static int meets (marea_winograd_variant s, int taps, int o, int data[3], int tap[3]) {
  for (int t = 0; t < taps && s != MAREA_WINOGRAD_TRANSPOSED2; t++) {
    data[t] = (s == MAREA_WINOGRAD_STRIDE2 ? 2 * o : o) + t;
    tap[t] = t;
  }
  if (s != MAREA_WINOGRAD_TRANSPOSED2) return taps;
  data[0] = o % 2 ? o / 2 + 1 : o / 2;
  tap[0] = o % 2 ? 1 : 0;
  data[1] = o / 2 + 1;
  tap[1] = 2;
  return o % 2 ? 1 : 2;
}

typedef struct tiles {
  marea_winograd_variant variant;
  marea_winograd_sizes size;
  int taps[2];
  int n, channels, width; /* tiles; of the data in pixels */
  int top, left, rows, cols;
} tiles;

/* Calls f for everything that output (row, col) of the tiles meets. */
static void each_term (const tiles *t, int row, int col, int c, void (*f)(int x, int w, int y)) {
  int dy[3], ty[3], dx[3], tx[3];
  const int ny = meets(t->variant, t->taps[0], row, dy, ty);
  const int nx = meets(t->variant, t->taps[1], col, dx, tx);
  const int y = ((row - t->top) * t->cols + col - t->left) * t->channels + c;
  for (int i = 0; i < ny; i++)
    for (int j = 0; j < nx; j++)
      f((dy[i] * t->width + dx[j]) * t->channels + c, (3 * ty[i] + tx[j]) * t->channels + c, y);
}

static double other[IMAGE];
static _Alignas(8) char raw_other[IMAGE * 8];
static void add_output (int x, int w, int y) { result[y] += image[x] * weight[w]; }
static void add_weight (int x, int w, int y) { result[w] += image[x] * other[y]; }

static void each_output (const tiles *t, void (*f)(int x, int w, int y)) {
  for (int row = t->top; row < t->top + t->rows; row++)
    for (int col = t->left; col < t->left + t->cols; col++)
      for (int c = 0; c < t->channels; c++) each_term(t, row, col, c, f);
}

static tiles random_tiles (marea_winograd_variant s) {
  tiles t = {.variant = s,
             .size = marea_winograd_size(s),
             .n = 1 + below(ROW_TILES),
             .channels = 1 + below(CHANNELS)};
  const int side = t.size.outputs, all = t.n * side;
  for (int d = 0; d < 2; d++) t.taps[d] = s == MAREA_WINOGRAD_F43 ? 2 + below(2) : 3;
  t.width = t.size.step * (t.n - 1) + t.size.data;
  t.top = below(side);
  t.left = below(side);
  t.rows = 1 + below(side - t.top);
  t.cols = all - t.left - below(side);
  if (t.cols < 1) t.cols = 1;
  return t;
}

static int points_present (const tiles *t, int d) { return marea_winograd_points(t->variant, t->taps[d]); }

static bool has_point (const tiles *t, int point) {
  return point / t->size.points < points_present(t, 0) && point % t->size.points < points_present(t, 1);
}

/* Points that are missing hold GUARD before and after. */
static void one_bilinear (const marea_kernels *k, const tiles *t) {
  static float data[36 * ROW_TILES * CHANNELS], kernel[36 * CHANNELS], sum[36 * CHANNELS];
  const int side = t->size.points, points = side * side, step = t->n * t->channels;
  const int before = (t->top * t->cols + t->left) * t->channels, outputs = t->rows * t->cols * t->channels;
  const bool accumulate = below(2);
  marea_winograd_row g = {.variant = t->variant,
                          .present = {points_present(t, 0), points_present(t, 1)},
                          .image = raw_image,
                          .transformed = data,
                          .tiles = t->n,
                          .channels = t->channels,
                          .row = t->width * t->channels,
                          .col = t->channels,
                          .point_row = side * step,
                          .point = step,
                          .prefetch_output = below(2)};
  marea_winograd_weight w = {t->variant, {t->taps[0], t->taps[1]}, raw_weight, kernel, .n = t->channels};
  w.row = 3 * t->channels, w.col = w.point = t->channels, w.point_row = side * t->channels;
  w.accumulate = accumulate;
  for (int i = 0; i < points * step; i++) data[i] = GUARD;
  k->winograd_data(&g);
  k->winograd_weight(&w);
  float *y = (float *)raw_result;
  for (int i = 0; i < outputs; i++) result[i] = 0;
  each_output(t, add_output);
  static float products[36 * ROW_TILES * CHANNELS];
  for (int i = 0; i < points * step; i++) {
    if (!has_point(t, i / step) && data[i] != GUARD)
      complain("wrote a point", "winograd_data", data[i], GUARD);
    products[i] = has_point(t, i / step) ? data[i] * kernel[i / step * t->channels + i % t->channels] : NAN;
  }
  marea_winograd_row to = g;
  to.image = y - before;
  to.transformed = products;
  to.row = t->cols * t->channels;
  to.top = t->top;
  to.left = t->left;
  to.rows = t->rows;
  to.cols = t->cols;
  y[outputs] = 77;
  k->winograd_outputs(&to);
  if (y[outputs] != 77) complain("wrote beyond", "winograd_outputs", (double)y[outputs], 77);
  compare("winograd", outputs, 10, false);
  if (t->variant == MAREA_WINOGRAD_TRANSPOSED2) return;
  to.image = (float *)raw_other - before;
  k->winograd_gradient(&to);
  for (int i = 0; i < 36 * t->channels; i++) sum[i] = 0;
  for (int i = 0; i < points * step; i++)
    sum[i / step * t->channels + i % t->channels] += has_point(t, i / step) ? data[i] * products[i] : NAN;
  random_array(result, raw_result, 9 * t->channels, false);
  for (int i = 0; i < 9 * t->channels; i++) {
    const int tap = i / t->channels;
    if (!accumulate && tap / 3 < t->taps[0] && tap % 3 < t->taps[1]) result[i] = 0;
  }
  each_output(t, add_weight);
  w.weight = raw_result;
  w.transformed = sum;
  k->winograd_weight_gradient(&w);
  compare("winograd_weight_gradient", 9 * t->channels, 10 * (1 + sqrt(t->rows * t->cols)), false);
}

static void check_products (const marea_kernels *k, bool wide) {
  double unused[BIAS];
  random_array(image, raw_image, IMAGE, wide);
  random_array(weight, raw_weight, IMAGE, wide);
  random_array(other, raw_other, IMAGE, wide);
  random_array(unused, raw_bias, BIAS, wide);
  for (int round = 0; round < 150; round++) one_product(k, wide);
  for (int round = 0; round < 150; round++) one_row(k, wide);
  for (int round = 0; round < 150; round++) one_transposition(k, wide);
  for (int round = 0; round < 150 && !wide; round++) {
    const tiles t = random_tiles((marea_winograd_variant)(round % 3));
    one_bilinear(k, &t);
  }
  end_group(wide ? "products f64" : "products and bilinear algorithms f32");
}

/* ---- optimizers ---- */

static void check_optimizers (const marea_kernels *k, bool wide) {
  numbers p, g, s, t;
  const double lr = 0.01, decay = 0.1, mom = 0.9, rho = 0.8, eps = 1e-3;
  for (int round = 0; round < 400; round++) {
    int n = below(MAX_N), kind = round % 6;
    numbers *all[] = {&p, &g, &s, &t};
    for (int i = 0; i < 4; i++) place(all[i], wide), fill(all[i], n, i < 2 ? -1 : 0.1, 1);
    for (int i = 0; i < n; i++)
      for (int j = 2; j < 4; j++) set(all[j], i, fabs(get(all[j], i)));
    numbers p0 = p, s0 = s, t0 = t;
    p0.start = p0.bytes + (p.start - p.bytes), s0.start = s0.bytes + (s.start - s.bytes);
    t0.start = t0.bytes + (t.start - t.bytes);
    const double sgd[] = {lr, mom, kind == 1, decay}, rms[] = {lr, rho, eps, mom, decay};
    const double adam[] = {lr, mom, rho, eps, 0.3, 0.4, decay, 0.05}, ada[] = {lr, eps, decay};
    size_t size = (size_t)n;
    if (kind <= 1) k->sgd(size, p.start, g.start, s.start, sgd);
    else if (kind == 2) k->sgd(size, p.start, g.start, NULL, sgd);
    else if (kind == 3) k->rmsprop(size, p.start, g.start, s.start, t.start, rms);
    else if (kind == 4) k->adam(size, p.start, g.start, s.start, t.start, adam);
    else k->adagrad(size, p.start, g.start, s.start, ada);
    for (int i = 0; i < n; i++) {
      double w = get(&p0, i), d = get(&g, i) + decay * w, wanted = w, a = get(&s0, i), b = get(&t0, i);
      double v = mom * a + d, sq = rho * a + (1 - rho) * d * d;
      if (kind <= 1) wanted -= lr * (kind == 1 ? d + mom * v : v);
      if (kind == 2) wanted -= lr * d;
      if (kind == 3) wanted -= mom * b + lr * d / (sqrt(sq) + eps);
      if (kind == 4) {
        d = get(&g, i) + 0.05 * w;
        double m1 = mom * a + (1 - mom) * d, m2 = rho * b + (1 - rho) * d * d;
        wanted = w * (1 - lr * decay) - lr / 0.3 * m1 / (sqrt(m2) / sqrt(0.4) + eps);
      }
      if (kind == 5) wanted -= lr * d / (sqrt(a + d * d) + eps);
      expect("optimizer", &p, i, wanted, 2 + 20 * fabs(wanted - w)); /* long steps are divided by about eps */
    }
    if (get(&p, n) != GUARD || get(&s, n) != GUARD) complain("wrote beyond the end", "optimizer", 0, 0);
  }
  end_group(wide ? "optimizers f64" : "optimizers f32");
}

/* ---- the rest ---- */

static void check_f64 (const marea_kernels *k) {
  double x[1000], y[1000];
  for (int i = 0; i < 1000; i++) x[i] = uniform(-30, 30);
#define SAME(name, f)                                                        \
  k->name(1000, x, y, parameters);                                           \
  for (int i = 0; i < 1000; i++) {                                           \
    double wanted = f(x[i]);                                                 \
    bool bad = !isnan(wanted) && fabs(y[i] - wanted) > 4e-16 * fabs(wanted); \
    if (bad) complain("value", #name, y[i], wanted);                         \
  }
  /* clang-format off */
  SAME(exp, exp) SAME(log, log) SAME(log1p, log1p) SAME(expm1, expm1) SAME(tanh, tanh) SAME(erf, erf)
  SAME(sigmoid, sigmoid) SAME(softplus, softplus) SAME(gelu, gelu) SAME(silu, silu) SAME(round, rint)
      /* clang-format on */
      for (int i = 0; i < 1000; i++) x[i] = i < 500 ? pow(10, -0.6 * i) : uniform(0, 1);
  k->norm_icdf(1000, x, y, NULL);
  for (int i = 0; i < 1000; i++) { /* forth and back; a step of y changes the result by |y| times as much */
    double back = normal_cdf(y[i]);
    if (fabs(back - x[i]) > 1e-15 * (2 + y[i] * y[i]) * x[i]) complain("value", "norm_icdf", back, x[i]);
  }
  for (int i = 0; i < 1000; i++) x[i] = i < 500 ? uniform(0, 30) : 1.4616321449683623 + uniform(-1e-6, 1e-6);
  k->polygamma(1000, x, y, (double[]){0});
  for (int i = 0; i < 1000; i++) {
    const double wanted = digamma(x[i]); /* the sum of 39 terms is off by up to 5e-18 */
    if (fabs(y[i] - wanted) > 2e-15 * fabs(wanted) + 5e-18) complain("value", "polygamma", y[i], wanted);
  }
  double edge[5] = {0, 1, -0.1, 1.1, 0.5}, out[5];
  k->norm_icdf(5, edge, out, NULL);
  if (out[0] != -INFINITY || out[1] != INFINITY || !isnan(out[2]) || !isnan(out[3]) || out[4] != 0)
    complain("edges", "norm_icdf", out[0], -INFINITY);
  end_group("functions of f64");
}

#include "attention_cases.h"
#include "bf16_cases.h"
#include "int8_cases.h"
#include "dtype_cases.h"
#include "recurrent_cases.h"
#include "reduction_cases.h"

int main (void) {
  const marea_kernels *k[4], *before = NULL;
  const char *chosen;
  for (int i = 0; (isa = marea_runnable_isa(i)); i++) {
    if (!marea_select_kernels(isa, k, &chosen) || strcmp(chosen, isa) != 0) return 1;
    check_bf16(marea_select_bf16(isa), k[0]);
    check_int8(marea_select_int8(isa), k[0]);
    if (k[0] == before) continue; /* f32 of the ISA before */
    before = k[0];
    check_functions(k[0]);
    check_pow(k[0]);
    check_remainder(k[0], false);
    check_tests(k[0], false);
    check_pieces(k[0]);
    check_tails(k[0], false);
    check_binary(k[0], false);
    check_reductions(k[0], false);
    check_alignment(k[0]);
    check_rows(k[0]);
    check_norm(k[0], false);
    check_bf16_norm(k[0]);
    check_dropout(k[0], false);
    check_convolution(k[0], false);
    check_products(k[0], false);
    check_optimizers(k[0], false);
    check_recurrent(k[0], false);
    check_attention(k[0], false);
    check_halves(k[0]);
  }
  check_tails(k[1], true);
  check_binary(k[1], true);
  check_remainder(k[1], true);
  check_tests(k[1], true);
  check_reductions(k[1], true);
  check_norm(k[1], true);
  check_dropout(k[1], true);
  check_convolution(k[1], true);
  check_products(k[1], true);
  check_optimizers(k[1], true);
  check_recurrent(k[1], true);
  check_attention(k[1], true);
  check_f64(k[1]);
  check_integers(k[2], k[3]);
  isa = "prefetch";
  check_prefetch();
  isa = "select";
  if (marea_select_kernels("mmx", k, &chosen)) complain("accepted", "mmx", 1, 0);
  if (!marea_select_kernels(NULL, k, &chosen) || chosen != marea_runnable_isa(0))
    complain("best", "NULL", 0, 1);
  end_group("unknown and default names");
  return failed_groups > 0;
}
