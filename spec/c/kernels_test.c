/* SPDX-License-Identifier: MIT
** kernels_test.c: every ISA that this machine can run against plain loops in double: the error of the f32
** functions in ulps over random bit patterns, all lists of kernels.h over sizes with and without tails
** and unaligned pointers, convolution over random geometry, the optimizers and the integers. Prints one
** line a group; the exit status is 1 when one failed.
*/
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../core/kernels/kernels.h"

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

/* Distance of got from wanted in units of the last place that `wanted` has as a float. */
static double ulps (float got, double wanted) {
  if (isnan(wanted)) return isnan(got) ? 0 : INFINITY;
  if (isnan(got)) return INFINITY;
  if (isinf(wanted) && isinf(got)) return (wanted > 0) == (got > 0) ? 0 : INFINITY;
  int e;
  frexp(wanted, &e);
  if (isinf(wanted) || e > 128) e = 128;
  if (e < -125) e = -125;
  double limit = ldexp(1, 128); /* what infinity stands for */
  double a = isinf(got) ? copysign(limit, got) : (double)got;
  double b = fabs(wanted) > limit ? copysign(limit, wanted) : wanted;
  return fabs(a - b) / ldexp(1, e - 24);
}

static double identity (double x) { return x; }

static double sign (double x) { return x > 0 ? 1 : x < 0 ? -1 : x; }

static double square (double x) { return x * x; }

static double rsqrt (double x) { return 1 / sqrt(x); }

static double reciprocal (double x) { return 1 / x; }

static double minus (double x) { return -x; }

static double relu (double x) { return x <= 0 ? 0 : x; }

static double sigmoid (double x) {
  double e = exp(-fabs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

static double softplus (double x) { return (x > 0 ? x : 0) + log1p(exp(-fabs(x))) + (isnan(x) ? x : 0); }

static double normal_cdf (double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }

static double gelu (double x) { return isinf(x) && x < 0 ? NAN : x * normal_cdf(x); }

static double silu (double x) { return isinf(x) && x < 0 ? NAN : x * sigmoid(x); }

static double elu (double x) { return x > 0 ? x : (double)0.3f * expm1(x); }

static double leaky_relu (double x) { return x > 0 ? x : (double)0.3f * x; }

static double clamp (double x) {
  return x < (double)0.3f ? (double)0.3f : x > (double)0.7f ? (double)0.7f : x;
}

typedef struct unary_case {
  const char *name;
  double (*wanted)(double);
  double ulps; /* allowed */
} unary_case;

/* p = {0.3, 0.7} for those that take parameters. norm_icdf has its own test. */
static const unary_case unary_cases[] = {
    {"neg", minus, 0},
    {"abs", fabs, 0},
    {"sign", sign, 0},
    {"square", square, 0.501},
    {"sqrt", sqrt, 0.501},
    {"rsqrt", rsqrt, 1.6},
    {"reciprocal", reciprocal, 0.501},
    {"exp", exp, 2},
    {"log", log, 2},
    {"log1p", log1p, 2},
    {"expm1", expm1, 2},
    {"sin", sin, 0.51},
    {"cos", cos, 0.51},
    {"floor", floor, 0},
    {"ceil", ceil, 0},
    {"round", rint, 0},
    {"relu", relu, 0},
    {"sigmoid", sigmoid, 2},
    {"tanh", tanh, 2},
    {"softplus", softplus, 2},
    {"erf", erf, 2},
    {"gelu", gelu, 5},
    {"silu", silu, 3.5},
    {"leaky_relu", leaky_relu, 0.501},
    {"elu", elu, 3},
    {"clamp", clamp, 0},
    {"norm_icdf", NULL, 0},
};

static const double parameters[2] = {0.3, 0.7};

#define BATCH 1000
#define BATCHES 1000

static const float edges[] = {
    0.0f,        -0.0f,      1.0f,       -1.0f,       0.5f,        -0.5f,      1.5f,         2.5f,
    -2.5f,       INFINITY,   -INFINITY,  NAN,         FLT_MAX,     -FLT_MAX,   FLT_MIN,      -FLT_MIN,
    1e-45f,      -1e-45f,    88.72283f,  88.72284f,   88.7229f,    -87.33655f, -103.97208f,  -103.97209f,
    -104.0f,     8388607.5f, 8388608.0f, -4194303.5f, 0.99999994f, 1.0000001f, -0.99999994f, 0.70710677f,
    0.70710683f, 1.4142135f, 0.34657f,   0.34658f,    -13.1f,      -14.4f,     -14.5f,       10.0f,
    9.01f,       17.4f,      -17.4f,     1e-4f,       -1e-4f,      3e38f,      16777216.0f};

static void check_unary (const unary_case *c, marea_unary_kernel *kernel) {
  float x[BATCH], y[BATCH];
  double worst = 0, at = 0;
  double skip = c->wanted == gelu || c->wanted == silu ? 2e-36 : 0; /* x times a denormal number */
  for (int batch = 0; batch < BATCHES; batch++) {
    for (int i = 0; i < BATCH; i++) {
      uint32_t bits = word();
      memcpy(&x[i], &bits, sizeof bits);
      if (batch % 2) x[i] = (float)uniform(-20, 20); /* where most functions bend */
    }
    if (batch == 0) memcpy(x, edges, sizeof edges);
    kernel(BATCH, x, y, parameters);
    for (int i = 0; i < BATCH; i++) {
      double error = ulps(y[i], c->wanted((double)x[i]));
      if (fabs((double)y[i]) < skip) continue;
      if (error > worst) worst = error, at = (double)x[i];
    }
  }
  if (worst > c->ulps) complain("ulps at the worst argument", c->name, worst, c->ulps);
  if (worst > c->ulps || getenv("MAREA_ULPS"))
    printf("    %-8s %-10s %.3f ulp at %.9g\n", isa, c->name, worst, at);
}

static const unary_case *find (const char *text) {
  const unary_case *c = unary_cases;
  while (strcmp(c->name, text) != 0) c++;
  return c;
}

static void check_functions (const marea_kernels *k) {
#define U(name) \
  if (find(#name)->wanted) check_unary(find(#name), k->name);
  MAREA_UNARY_KERNELS(U)
#undef U
  end_group("functions of f32 in ulps");
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
  double (*wanted)(double) = find(what)->wanted;
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

static double binary_wanted (const char *name, double a, double b, double p) {
#define IS(text) if (!strcmp(name, #text))
  double d = a - b, q = fmin(fmax(a, p), 1 - p);
  IS(add) return a + b;
  IS(sub) return d;
  IS(mul) return a * b;
  IS(div) return a / b;
  IS(pow) return pow(a, b);
  IS(maximum) return isnan(a) || isnan(b) ? NAN : fmax(a, b);
  IS(minimum) return isnan(a) || isnan(b) ? NAN : fmin(a, b);
  IS(relu_grad) return b > 0 ? a : 0;
  IS(leaky_relu_grad) return b > 0 ? a : p * a;
  IS(elu_grad) return b > 0 ? a : a * (b + p);
  IS(sigmoid_grad) return a * b * (1 - b);
  IS(tanh_grad) return a * (1 - b * b);
  IS(softplus_grad) return a * (1 - exp(-b));
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
#define EACH(name, result, value, beyond)                                       \
  fill(&y, n, 0, 1), bytes[n] = 77;                                             \
  k->name((size_t)n, a.start, (size_t)sa, b.start, (size_t)sb, result, p);      \
  if (beyond) complain("wrote beyond the end", #name, 0, 0);                    \
  for (int i = 0; i < n; i++) {                                                 \
    double wanted = binary_wanted(#name, get(&a, i * sa), get(&b, i * sb), *p); \
    value                                                                       \
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

static void check_reductions (const marea_kernels *k, bool wide) {
  numbers x, y;
  for (int round = 0; round < 1000; round++) {
    int n = below(MAX_N);
    double sum = 0, e = 0, high = -INFINITY, low = INFINITY;
    double tolerance = wide ? 1e-12 : 1e-4;
    place(&x, wide);
    place(&y, wide);
    fill(&x, n, -2, 2);
    fill(&y, n, -2, 2);
    if (n && round % 10 == 0) set(&x, below(n), NAN);
    for (int i = 0; i < n; i++) {
      double a = get(&x, i);
      sum += a, e += exp(a - 1);
      high = isnan(a) || isnan(high) ? NAN : fmax(high, a);
      low = isnan(a) || isnan(low) ? NAN : fmin(low, a);
    }
#define NEAR(name, got, wanted)                                             \
  if (isnan(wanted) ? !isnan(got) : !(fabs((got) - (wanted)) <= tolerance)) \
  complain("value", name, got, wanted)
    NEAR("sum", k->sum((size_t)n, x.start), sum);
    NEAR("exp_sum", k->exp_sum((size_t)n, 1, x.start, NULL), e);
    if (n) NEAR("max", k->max((size_t)n, x.start), high);
    if (n) NEAR("min", k->min((size_t)n, x.start), low);
    double a0 = n ? get(&x, 0) : 0, b0 = n ? get(&y, 0) : 0;
    k->axpy((size_t)n, 0.5, x.start, y.start);
    if (n) expect("axpy", &y, 0, 0.5 * a0 + b0, 4);
    k->scale((size_t)n, 0.5, x.start, y.start);
    if (n) expect("scale", &y, n - 1, 0.5 * get(&x, n - 1), 4);
    NEAR("exp_sum", k->exp_sum((size_t)n, 1, x.start, y.start), e);
    for (int i = 0; i < n; i++) expect("exp_sum", &y, i, exp(get(&x, i) - 1), 4);
    if (get(&y, n) != GUARD) complain("wrote beyond the end", "axpy, scale, exp_sum", get(&y, n), GUARD);
  }
  end_group(wide ? "reductions f64" : "reductions f32");
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
      static double (*const f[])(double) = {identity, relu, NULL, NULL, sigmoid, tanh, softplus};
      for (int i = 0; i < 30; i++) y[i] = (float)uniform(-2, 2), z[i] = y[i];
      int width = act % 2 ? 3 : 1;
      k->bias_act((size_t)(30 / width), (size_t)width, b, (marea_activation)act, 0.3, y);
      for (int i = 0; i < 30; i++) {
        double a = (double)z[i] + bias[i % width];
        double wanted = f[act] ? f[act](a) : act == MAREA_ACT_ELU ? elu(a) : leaky_relu(a);
        if (fabs((double)y[i] - wanted) > 1e-6) complain("value", "bias_act", (double)y[i], wanted);
      }
    }
  }
  end_group("rows");
}

/* ---- convolution ---- */

#define IMAGE 40000
static double image[IMAGE], weight[IMAGE], result[IMAGE];
static _Alignas(8) char raw_image[IMAGE * 8], raw_weight[IMAGE * 8], raw_result[IMAGE * 8], raw_bias[200 * 8];

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

typedef struct geometry {
  int rows, cols, cin, cout, kh, kw, stride;
  int width, skip; /* width of the padded image; y is written every `skip` pixels */
} geometry;

static geometry random_geometry (void) {
  static const int channels[] = {1, 1, 2, 3, 5, 8, 15, 16, 17, 20, 32, 33, 48, 64};
  geometry g = {.rows = below(5),
                .cols = below(32),
                .cin = channels[below(14)],
                .cout = channels[below(14)],
                .kh = 1 + below(3),
                .kw = 1 + below(3),
                .stride = 1 + below(2),
                .skip = 1 + below(2)};
  g.width = g.cols * g.stride + g.kw;
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

static double activation (double a, int act) {
  return act == MAREA_ACT_RELU ? relu(a) : act == MAREA_ACT_SIGMOID ? sigmoid(a) : a;
}

static void one_gather (const marea_kernels *k, const geometry *c, bool wide) {
  int64_t tap[9];
  int taps = c->kh * c->kw, y_col = c->cout * c->skip, y_row = y_col * c->cols * c->skip;
  static const marea_activation acts[] = {MAREA_ACT_NONE, MAREA_ACT_RELU, MAREA_ACT_SIGMOID};
  for (int t = 0; t < taps; t++) tap[t] = ((t / c->kw) * c->width + t % c->kw) * c->cin;
  marea_gather g = {.x = raw_image,
                    .w = raw_weight,
                    .bias = below(4) ? raw_bias : NULL,
                    .y = raw_result,
                    .rows = c->rows,
                    .cols = c->cols,
                    .x_row = c->width * c->cin * c->stride,
                    .x_col = c->cin * c->stride,
                    .y_row = y_row,
                    .y_col = y_col,
                    .cin = c->cin,
                    .cout = c->cout,
                    .taps = taps,
                    .tap = tap,
                    .w_tap = c->cin * c->cout,
                    .w_ci = c->cout,
                    .act = acts[below(3)]};
  random_array(result, raw_result, IMAGE, wide);
  for (int oy = 0; oy < c->rows; oy++)
    for (int ox = 0; ox < c->cols; ox++)
      for (int co = 0; co < c->cout; co++) {
        double sum = g.bias ? take(raw_bias, co, wide) : 0;
        for (int t = 0; t < taps; t++)
          for (int ci = 0; ci < c->cin; ci++)
            sum += image[oy * g.x_row + ox * g.x_col + tap[t] + ci] * weight[t * g.w_tap + ci * g.w_ci + co];
        result[oy * y_row + ox * y_col + co] = activation(sum, (int)g.act);
      }
  k->gather(&g);
  compare("gather", IMAGE, 1 + sqrt(taps * c->cin), wide);
}

static void one_correlate (const marea_kernels *k, const geometry *c, bool wide) {
  static int64_t offset[9 * 64];
  int m = c->kh * c->kw * c->cin, dy_col = c->cout, dy_row = c->cols * c->cout + 1;
  for (int i = 0; i < m; i++) {
    int t = i / c->cin;
    offset[i] = ((t / c->kw) * c->width + t % c->kw) * c->cin + i % c->cin;
  }
  marea_correlate g = {.x = raw_image,
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
                       .offset = offset};
  random_array(result, raw_result, IMAGE, wide);
  for (int i = 0; i < m; i++)
    for (int co = 0; co < c->cout; co++)
      for (int oy = 0; oy < c->rows; oy++)
        for (int ox = 0; ox < c->cols; ox++)
          result[i * c->cout + co] += image[oy * g.x_row + ox * g.x_col + offset[i]] *
                                      weight[oy * dy_row + ox * dy_col + co];
  k->correlate(&g);
  compare("correlate", IMAGE, 1 + sqrt(c->rows * c->cols), wide);
}

static void check_convolution (const marea_kernels *k, bool wide) {
  random_array(image, raw_image, IMAGE, wide);
  random_array(weight, raw_weight, IMAGE, wide);
  double unused[200];
  random_array(unused, raw_bias, 200, wide);
  for (int round = 0; round < 250;) {
    geometry c = random_geometry();
    if (too_big(&c)) continue;
    one_gather(k, &c, wide);
    c.rows *= 3; /* more than one chunk of rows */
    if (!too_big(&c)) one_correlate(k, &c, wide);
    round++;
  }
  end_group(wide ? "gather and correlate f64" : "gather and correlate f32");
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
      expect("optimizer", &p, i, wanted, 2);
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
  double edge[5] = {0, 1, -0.1, 1.1, 0.5}, out[5];
  k->norm_icdf(5, edge, out, NULL);
  if (out[0] != -INFINITY || out[1] != INFINITY || !isnan(out[2]) || !isnan(out[3]) || out[4] != 0)
    complain("edges", "norm_icdf", out[0], -INFINITY);
  end_group("functions of f64");
}

static void check_integers (const marea_kernels *i64, const marea_kernels *u8) {
  int64_t a[5] = {-3, 0, 7, INT64_MIN, INT64_MAX}, b[5] = {2, 0, -9, -1, 1}, y[5];
  uint8_t c[4] = {0, 1, 200, 255}, d[4] = {1, 1, 100, 255}, z[4];
#define WANT(name, got, wanted) \
  if ((got) != (wanted)) complain("value", name, (double)(got), (double)(wanted))
  i64->add(5, a, 1, b, 1, y, NULL);
  WANT("add", y[0], -1);
  WANT("add", y[4], INT64_MIN);
  i64->mul(5, a, 1, b, 0, y, NULL);
  WANT("mul", y[2], 14);
  i64->sign(5, a, y, NULL);
  WANT("sign", y[0] * 100 + y[1] * 10 + y[2], -99);
  i64->clamp(5, a, y, (double[]){-2.5, INFINITY});
  WANT("clamp", y[0], -2);
  WANT("clamp", y[4], INT64_MAX);
  i64->maximum(5, a, 1, b, 1, y, NULL);
  WANT("maximum", y[2], 7);
  u8->sub(4, c, 1, d, 1, z, NULL);
  WANT("sub", z[0], 255);
  u8->lt(4, c, 1, d, 1, z, NULL);
  WANT("lt", z[0] * 8 + z[1] * 4 + z[2] * 2 + z[3], 8);
  u8->abs(4, c, z, NULL);
  WANT("abs", z[3], 255);
  u8->where(4, d, 0, c, 1, d, 1, z, NULL);
  WANT("where", z[2], 200);
  end_group("integers");
}

int main (void) {
  const marea_kernels *k[4];
  const char *chosen;
  for (const char *const *name = marea_cpu_isas(); *name; name++) {
    isa = *name;
    if (!marea_select_kernels(*name, k, &chosen) || strcmp(chosen, isa) != 0) return 1;
    check_functions(k[0]);
    check_tails(k[0], false);
    check_binary(k[0], false);
    check_reductions(k[0], false);
    check_alignment(k[0]);
    check_rows(k[0]);
    check_convolution(k[0], false);
    check_optimizers(k[0], false);
  }
  check_tails(k[1], true);
  check_binary(k[1], true);
  check_reductions(k[1], true);
  check_convolution(k[1], true);
  check_optimizers(k[1], true);
  check_f64(k[1]);
  check_integers(k[2], k[3]);
  isa = "select";
  if (marea_select_kernels("mmx", k, &chosen)) complain("accepted", "mmx", 1, 0);
  if (!marea_select_kernels(NULL, k, &chosen) || chosen != marea_cpu_isas()[0])
    complain("best", "NULL", 0, 1);
  end_group("unknown and default names");
  return failed_groups > 0;
}
