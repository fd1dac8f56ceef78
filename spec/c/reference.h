/* SPDX-License-Identifier: MIT
** reference.h: what the f32 kernels of one argument should give, by the C library in double, and the distance
** from it in ulps; for kernels_test.c (a sample of the arguments) and ulp.c (all of them).
*/
#ifndef REFERENCE_H
#define REFERENCE_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Distance of got from wanted in units of the last place that `wanted` has as a float. */
static inline double ulps (float got, double wanted) {
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

static inline double sign (double x) { return x > 0 ? 1 : x < 0 ? -1 : x; }

static inline double square (double x) { return x * x; }

static inline double rsqrt (double x) { return 1 / sqrt(x); }

static inline double reciprocal (double x) { return 1 / x; }

static inline double minus (double x) { return -x; }

static inline double relu (double x) { return x < 0 ? 0 : x; }

static inline double sigmoid (double x) {
  double e = exp(-fabs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

static inline double softplus (double x) { return (x <= 0 ? 0 : x) + log1p(exp(-fabs(x))); }

static inline double normal_cdf (double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }

static inline double gelu (double x) { return isinf(x) && x < 0 ? 0 : x * normal_cdf(x); }

static inline double silu (double x) { return isinf(x) && x < 0 ? 0 : x * sigmoid(x); }

static inline double hard_swish (double x) {
  return x <= -3 ? 0 : x >= 3 ? x : x * ((x + 3) / 6);
}

static inline double elu (double x) { return x > 0 ? x : (double)0.3f * expm1(x); }

static inline double relu6 (double x) { return x > 6 ? 6 : relu(x); }
static inline double leaky_relu (double x) { return x > 0 ? x : (double)0.3f * x; }

static inline double clamp (double x) {
  return x < (double)0.3f ? (double)0.3f : x > (double)0.7f ? (double)0.7f : x;
}

/* By Newton's method on log Phi from a rough start (Abramowitz and Stegun 26.2.23). */
static inline double norm_icdf (double p) {
  if (!(p >= 0 && p <= 1)) return NAN;
  double tail = p < 0.5 ? p : 1 - p, side = p < 0.5 ? 1 : -1;
  if (tail == 0) return -side * INFINITY;
  if (tail == 0.5) return 0;
  double t = sqrt(-2 * log(tail));
  double x =
      (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t;
  for (int i = 0; i < 3; i++) {
    double q = normal_cdf(x), density = exp(-0.5 * x * x) * 0.39894228040143267794;
    x -= q * log1p((q - tail) / tail) / density;
  }
  return side * x;
}

static inline double log_gamma (double x) { return x < 0 ? NAN : lgamma(x); }

/* From x + 40 down, in long double: the series' first omitted term is 5e-21 there. */
static inline double digamma (double x) {
  if (!(x >= 0)) return NAN;
  if (x == 0) return -INFINITY;
  long double sum = 0, w = x;
  for (; w < 40; w++) sum -= 1 / w;
  const long double z = 1 / (w * w);
  long double series = z * (1 / 12.0L - z * (1 / 120.0L - z * (1 / 252.0L - z * (1 / 240.0L - z / 132))));
  return (double)(sum + logl(w) - 0.5L / w - series);
}

typedef struct unary_case {
  const char *name;
  double (*wanted)(double);
  double ulps; /* allowed */
} unary_case;

static const double parameters[2] = {0.3, 0.7}; /* for those that take some */

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
    {"sin", sin, 2},
    {"cos", cos, 2},
    {"atan", atan, 1},
    {"floor", floor, 0},
    {"ceil", ceil, 0},
    {"round", rint, 0},
    {"relu", relu, 0},
    {"relu6", relu6, 0},
    {"sigmoid", sigmoid, 2},
    {"tanh", tanh, 2},
    {"softplus", softplus, 2},
    {"erf", erf, 2},
    {"gelu", gelu, 2},
    {"silu", silu, 2},
    {"hard_swish", hard_swish, 3},
    {"norm_icdf", norm_icdf, 2},
    {"lgamma", log_gamma, 0.501},
    {"polygamma", digamma, 0.501}, /* order 0 */
    {"leaky_relu", leaky_relu, 0.501},
    {"elu", elu, 2},
    {"clamp", clamp, 0},
};

static inline const unary_case *find_case (const char *name) {
  for (size_t i = 0; i < sizeof unary_cases / sizeof *unary_cases; i++)
    if (strcmp(unary_cases[i].name, name) == 0) return &unary_cases[i];
  printf("spec/c/reference.h: unary_cases has no row for the kernel %s\n", name);
  exit(1);
}

#endif
