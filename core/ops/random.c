/* SPDX-License-Identifier: MIT
** random.c (operators): random numbers and dropout. How draws are laid out: draw.h. Dropout uses one word per
** element, in an order that suits vectors, and makes its mask again when it needs it.
*/
#include "draw.h"

/* ---- words ---- */

#define TWO_PI 6.283185307179586476925286766559

/* The same, 24 bits: exact in f32 and never 1. */
static double unit24 (uint64_t bits) { return (double)(bits >> 40) * 0x1p-24; }

/* Two standard normal numbers from a block, by Box and Muller's transform. */
static void normal_pair (const uint32_t word[4], double z[2]) {
  const double radius = sqrt(-2 * log(1 - unit(word64(word)))), angle = TWO_PI * unit(word64(word + 2));
  z[0] = radius * cos(angle);
  z[1] = radius * sin(angle);
}

/* Uniform in 0..n-1, n = 0 meaning 2^64: multiply and shift, off by less than n / 2^64. */
static uint64_t bounded (uint64_t bits, uint64_t n) {
  return n == 0 ? bits : (uint64_t)((unsigned __int128)bits * n >> 64);
}

/* The 64 bits of element i. */
static uint64_t bits_of (const draw *d, int64_t i) {
  uint32_t word[4];
  marea_philox(d->seed, d->counter + (uint64_t)i / 2, word);
  return word64(word + i % 2 * 2);
}

/* ---- uniform, normal ---- */

enum { DRAW_SHAPE, DRAW_FIRST, DRAW_SECOND, DRAW_DTYPE }; /* ORDER of attributes of uniform and normal */

static marea_status uniform_shape (marea_call *c) {
  const double low = c->attr[DRAW_FIRST].f, high = c->attr[DRAW_SECOND].f;
  if (!(low <= high) || !isfinite(low) || !isfinite(high))
    return marea_reject(c, MAREA_EARG, "expected low <= high, both finite, got %g and %g", low, high);
  return shape_of_floats(c, DRAW_SHAPE, DRAW_DTYPE);
}

/* A value of [low, high), kept below high where rounding to the type reaches it */
static double below_high_float (const draw *d, double value) {
  return (float)value < (float)d->q || d->p == d->q ? value : (double)nextafterf((float)d->q, (float)d->p);
}

static double below_high_double (const draw *d, double value) {
  return value < d->q || d->p == d->q ? value : nextafter(d->q, d->p);
}

/* The place of u, uniform in [0, 1), between low and high; the second is for high - low that overflows. */
static double place (const draw *d, double u) { return d->p + (d->q - d->p) * u; }
static double place_wide (const draw *d, double u) { return d->p * (1 - u) + d->q * u; }

#define UNIT_float unit24
#define UNIT_double unit
#define UNIFORM(type, place, bits) (type) below_high_##type(d, place(d, UNIT_##type(bits)))
#define FILL_WITH(type, place)                                                         \
  EACH_PAIR(d, block, i) {                                                             \
    uint32_t word[4];                                                                  \
    marea_philox(d->seed, d->counter + (uint64_t)i / 2, word);                         \
    ((type *)d->y)[i] = UNIFORM(type, place, word64(word));                            \
    if (i + 1 < last_) ((type *)d->y)[i + 1] = UNIFORM(type, place, word64(word + 2)); \
  }
#define FILL(type) FILL_WITH(type, place)
#define FILL_WIDE(type) FILL_WITH(type, place_wide)

static void uniform_block (void *arg, int64_t block, int worker) {
  const draw *d = arg;
  (void)worker;
  MAREA_SWITCH_FLOAT(d->dtype, FILL);
}

static void wide_block (void *arg, int64_t block, int worker) {
  const draw *d = arg;
  (void)worker;
  MAREA_SWITCH_FLOAT(d->dtype, FILL_WIDE);
}

static marea_status uniform_forward (marea_call *c) {
  draw d = draw_of(c);
  d.p = c->attr[DRAW_FIRST].f;
  d.q = c->attr[DRAW_SECOND].f;
  return run_draw(c, &d, isfinite(d.q - d.p) ? uniform_block : wide_block);
}

const marea_op marea_op_uniform = {
    .name = "uniform",
    .family = "random",
    .doc = "Uniform numbers in [low, high), with 24 random bits in f32 and 53 in f64. No gradient. Errors: "
           "low > high, a dtype that is not real.",
    .attrs = MAREA_ATTRS({"shape", MAREA_SIZES, MAREA_REQUIRED, NULL, "sizes of the result"},
                         {"low", MAREA_REAL, 0, NULL, "smallest value"},
                         {"high", MAREA_REAL, 1, NULL, "bound above, not reached"},
                         {"dtype", MAREA_DTYPE, MAREA_F32, NULL, "f32 or f64"}),
    .flags = MAREA_RANDOM | MAREA_NO_GRAD,
    .shape = uniform_shape,
    .forward = uniform_forward,
    .draws = pair_draws,
    .sample = "return {}, {shape = g.shape(0, 4), low = -g.real(0, 2), high = g.real(0, 2)}",
};

static marea_status normal_shape (marea_call *c) {
  if (!(c->attr[DRAW_SECOND].f >= 0))
    return marea_reject(c, MAREA_EARG, "argument 'std': expected 0 or more, got %g", c->attr[DRAW_SECOND].f);
  return shape_of_floats(c, DRAW_SHAPE, DRAW_DTYPE);
}

static void normal_block (void *arg, int64_t block, int worker) {
  const draw *d = arg;
  (void)worker;
  EACH_PAIR(d, block, i) {
    uint32_t word[4];
    double z[2];
    marea_philox(d->seed, d->counter + (uint64_t)i / 2, word);
    normal_pair(word, z);
    store(d, i, d->p + d->q * z[0]);
    if (i + 1 < last_) store(d, i + 1, d->p + d->q * z[1]);
  }
}

static marea_status normal_forward (marea_call *c) {
  draw d = draw_of(c);
  d.p = c->attr[DRAW_FIRST].f;
  d.q = c->attr[DRAW_SECOND].f;
  return run_draw(c, &d, normal_block);
}

const marea_op marea_op_normal = {
    .name = "normal",
    .family = "random",
    .doc = "Normal numbers with mean and standard deviation std (Box and Muller 1958, computed in double "
           "precision). No gradient. Errors: std < 0, a dtype that is not real.",
    .attrs = MAREA_ATTRS({"shape", MAREA_SIZES, MAREA_REQUIRED, NULL, "sizes of the result"},
                         {"mean", MAREA_REAL, 0, NULL, "mean"},
                         {"std", MAREA_REAL, 1, NULL, "standard deviation"},
                         {"dtype", MAREA_DTYPE, MAREA_F32, NULL, "f32 or f64"}),
    .flags = MAREA_RANDOM | MAREA_NO_GRAD,
    .shape = normal_shape,
    .forward = normal_forward,
    .draws = pair_draws,
    .sample = "return {}, {shape = g.shape(0, 4), mean = g.real(-2, 2), std = g.real(0, 2)}",
};

/* ---- bernoulli, categorical ---- */

static void bernoulli_block (void *arg, int64_t block, int worker) {
  const draw *d = arg;
  (void)worker;
  EACH_PAIR(d, block, i) {
    uint32_t word[4];
    marea_philox(d->seed, d->counter + (uint64_t)i / 2, word);
    store(d, i, unit(word64(word)) < load(d, d->a, i));
    if (i + 1 < last_) store(d, i + 1, unit(word64(word + 2)) < load(d, d->a, i + 1));
  }
}

static marea_status bernoulli_forward (marea_call *c) {
  draw d = draw_of(c);
  d.a = marea_at(c->in[0]);
  for (int64_t i = 0; i < d.n && !MAREA_STOPPING(c->ctx, i); i++) {
    const double p = load(&d, d.a, i);
    if (!(p >= 0 && p <= 1))
      return marea_reject(c, MAREA_EARG, "argument 'p': element %lld of %s is %g, expected 0 to 1",
                          (long long)i + c->ctx->config.index_base, marea_tensor_text(c->in[0]).s, p);
  }
  return run_draw(c, &d, bernoulli_block);
}

const marea_op marea_op_bernoulli = {
    .name = "bernoulli",
    .family = "random",
    .doc = "1 with probability p, else 0, for each element, in p's shape and dtype. No gradient. Error: a p "
           "outside [0, 1], the first one is named.",
    .inputs = {{"p", "(any shape) in [0, 1]"}},
    .flags = MAREA_RANDOM | MAREA_NO_GRAD,
    .shape = marea_shape_same,
    .forward = bernoulli_forward,
    .draws = pair_draws,
    .sample = "return {g.tensor(g.shape(0, 4), {lo = 0, hi = 1})}",
};

static marea_status categorical_shape (marea_call *c) {
  const marea_tensor *logits = c->in[0];
  if (logits->rank == 0 || logits->shape[logits->rank - 1] == 0)
    return marea_reject(c, MAREA_ESHAPE, "argument 'logits': expected (.., C) with C > 0, got %s",
                        marea_tensor_text(logits).s);
  marea_layout_set(&c->layout[0], MAREA_I64, logits->rank - 1, logits->shape);
  return MAREA_OK;
}

typedef struct choice {
  draw d;
  marea_context *ctx;
  int64_t classes, base;
  int dtype; /* of the logits */
} choice;

/* marea_stopping, checked now and then in rows of many classes */
static bool stops_at (const choice *k, int64_t j) { return MAREA_STOPPING(k->ctx, j + 1); }

/* The class at which the running sum of exp(logit - largest) passes u times the total. */
static int64_t choose (const choice *k, int64_t row, double u) {
  const int64_t first = row * k->classes;
  double largest = -INFINITY, total = 0, sum = 0;
  int64_t last = 0;
  for (int64_t j = 0; j < k->classes && !stops_at(k, j); j++)
    largest = fmax(largest, marea_load(k->dtype, k->d.a, first + j));
  for (int64_t j = 0; j < k->classes && !stops_at(k, j); j++)
    total += exp(marea_load(k->dtype, k->d.a, first + j) - largest);
  for (int64_t j = 0; j < k->classes && !stops_at(k, j); j++) {
    const double p = exp(marea_load(k->dtype, k->d.a, first + j) - largest);
    sum += p;
    if (p > 0) last = j;
    if (sum > u * total) return j;
  }
  return last; /* rounding: u * total is the whole sum */
}

static void categorical_block (void *arg, int64_t block, int worker) {
  const choice *k = arg;
  const int64_t end = MAREA_MIN((block + 1) * k->d.step, k->d.n);
  (void)worker;
  for (int64_t i = block * k->d.step; i < end; i++)
    ((int64_t *)k->d.y)[i] = choose(k, i, unit(bits_of(&k->d, i))) + k->base;
}

/* Every row needs a largest logit: no NaN, no +inf, one that is not -inf. */
static marea_status check_logits (marea_call *c, const choice *k) {
  for (int64_t i = 0; i < k->d.n && !MAREA_STOPPING(c->ctx, i * MAREA_MIN(k->classes, 4096)); i++) {
    double largest = -INFINITY;
    for (int64_t j = 0; j < k->classes && largest == largest && !stops_at(k, j); j++) {
      const double x = marea_load(k->dtype, k->d.a, i * k->classes + j);
      if (x != x || x > largest) largest = x;
    }
    if (!isfinite(largest) && !marea_stopping(c->ctx))
      return marea_reject(c, MAREA_EARG,
                          "argument 'logits': row %lld of %s has the largest value %g, expected a finite one",
                          (long long)(i + k->base), marea_tensor_text(c->in[0]).s, largest);
  }
  return MAREA_OK;
}

static marea_status categorical_forward (marea_call *c) {
  const marea_tensor *logits = c->in[0];
  choice k = {.d = draw_of(c),
              .ctx = c->ctx,
              .classes = logits->shape[logits->rank - 1],
              .base = c->ctx->config.index_base,
              .dtype = logits->dtype};
  k.d.a = marea_at(logits);
  k.d.step = MAREA_MAX(1, MAREA_BLOCK / 4 / k.classes);
  MAREA_TRY(check_logits(c, &k));
  if (k.d.n > 0) marea_parallel(c->ctx, (k.d.n - 1) / k.d.step + 1, categorical_block, &k);
  return MAREA_OK;
}

const marea_op marea_op_categorical = {
    .name = "categorical",
    .family = "random",
    .doc = "Draws a class for each row of logits with probability softmax(logits), by inversion of the "
           "distribution function. logits: (.., C); y: i64 (..). -inf means never. No gradient. Error: a row "
           "with NaN or +inf, or of -inf only.",
    .inputs = {{"logits", "(.., C)"}},
    .flags = MAREA_RANDOM | MAREA_NO_GRAD,
    .shape = categorical_shape,
    .forward = categorical_forward,
    .draws = pair_draws,
    .sample = "local s = g.shape(0, 3)\ns[#s + 1] = g.int(1, 5)\nreturn {g.tensor(s)}",
};

/* ---- randint, permutation ---- */

static marea_status randint_shape (marea_call *c) {
  size_t bytes;
  const marea_attr *shape = &c->attr[0];
  if (c->attr[1].i > c->attr[2].i)
    return marea_reject(c, MAREA_EARG, "expected low <= high, got %lld and %lld", (long long)c->attr[1].i,
                        (long long)c->attr[2].i);
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, shape->n, shape->v, sizeof(int64_t), &bytes));
  marea_layout_set(&c->layout[0], MAREA_I64, shape->n, shape->v);
  return MAREA_OK;
}

typedef struct range {
  draw d;
  uint64_t low, size; /* modulo 2^64; size 0: all of it */
} range;

static void randint_block (void *arg, int64_t block, int worker) {
  const range *r = arg;
  const int64_t end = MAREA_MIN((block + 1) * r->d.step, r->d.n);
  (void)worker;
  for (int64_t i = block * r->d.step; i < end; i++)
    ((uint64_t *)r->d.y)[i] = r->low + bounded(bits_of(&r->d, i), r->size);
}

static marea_status randint_forward (marea_call *c) {
  range r = {.d = draw_of(c), .low = (uint64_t)c->attr[1].i};
  r.size = (uint64_t)c->attr[2].i - r.low + 1;
  if (r.d.n > 0) marea_parallel(c->ctx, (r.d.n - 1) / r.d.step + 1, randint_block, &r);
  return MAREA_OK;
}

const marea_op marea_op_randint = {
    .name = "randint",
    .family = "random",
    .doc = "Whole numbers from low to high, both included, as i64. No gradient. Error: low > high.",
    .attrs = MAREA_ATTRS({"shape", MAREA_SIZES, MAREA_REQUIRED, NULL, "sizes of the result"},
                         {"low", MAREA_INT, MAREA_REQUIRED, NULL, "smallest value"},
                         {"high", MAREA_INT, MAREA_REQUIRED, NULL, "largest value"}),
    .flags = MAREA_RANDOM | MAREA_NO_GRAD,
    .shape = randint_shape,
    .forward = randint_forward,
    .draws = pair_draws,
    .sample = "local low = g.int(-9, 9)\n"
              "return {}, {shape = g.shape(0, 4), low = low, high = low + g.int(0, 9)}",
};

static marea_status permutation_shape (marea_call *c) {
  size_t bytes;
  if (c->attr[0].i < 0)
    return marea_reject(c, MAREA_EARG, "argument 'n': expected 0 or more, got %lld", (long long)c->attr[0].i);
  MAREA_TRY(marea_bytes(c->ctx, c->op->name, 1, &c->attr[0].i, sizeof(int64_t), &bytes));
  marea_layout_set(&c->layout[0], MAREA_I64, 1, &c->attr[0].i);
  return MAREA_OK;
}

static marea_status permutation_forward (marea_call *c) {
  const draw d = draw_of(c);
  int64_t *y = d.y;
  for (int64_t i = 0; i < d.n && !MAREA_STOPPING(c->ctx, i);
       i++) { /* Fisher and Yates, from the inside out */
    const int64_t j = (int64_t)bounded(bits_of(&d, i), (uint64_t)i + 1);
    y[i] = y[j];
    y[j] = i + c->ctx->config.index_base;
  }
  return MAREA_OK;
}

const marea_op marea_op_permutation = {
    .name = "permutation",
    .family = "random",
    .doc = "The n indices of a dimension in random order, as i64 (n): for shuffling with index_select. No "
           "gradient. Source: Fisher and Yates 1938, in Durstenfeld's form. Error: n < 0.",
    .attrs = MAREA_ATTRS({"n", MAREA_INT, MAREA_REQUIRED, NULL, "number of indices"}),
    .flags = MAREA_RANDOM | MAREA_NO_GRAD,
    .shape = permutation_shape,
    .forward = permutation_forward,
    .draws = pair_draws,
    .sample = "return {}, {n = g.int(0, 20)}",
};

/* ---- sample_normal ---- */

/* The seed goes into the call's attributes: the context may be seeded anew before the gradient is wanted. */
static marea_status sample_normal_shape (marea_call *c) {
  if (c->attr[0].n == 0) c->attr[0] = marea_attr_int((int64_t)c->ctx->random.seed);
  MAREA_TRY(marea_want_dtype(c, 1, 1 << c->in[0]->dtype));
  MAREA_TRY(marea_want_shape(c, 1, c->in[0]));
  return marea_shape_same(c);
}

/* a NULL: without a mean */
static void sample_normal_block (void *arg, int64_t block, int worker) {
  const draw *d = arg;
  (void)worker;
  EACH_PAIR(d, block, i) {
    uint32_t word[4];
    double z[2];
    marea_philox(d->seed, d->counter + (uint64_t)i / 2, word);
    normal_pair(word, z);
    for (int64_t k = i; k < MAREA_MIN(i + 2, last_); k++) {
      const double mean = d->a ? load(d, d->a, k) : 0;
      store(d, k, mean + exp(0.5 * load(d, d->b, k)) * z[k - i]);
    }
  }
}

static marea_status sample_normal_forward (marea_call *c) {
  draw d = draw_of(c);
  d.seed = (uint64_t)c->attr[0].i;
  d.a = marea_at(c->in[0]);
  d.b = marea_at(c->in[1]);
  return run_draw(c, &d, sample_normal_block);
}

/* out := 0.5 dy * deviation, the gradient of either operator to logvar */
static marea_status times_half (marea_vjp *v, marea_tensor *deviation, marea_tensor **out) {
  MAREA_OWN half = NULL;
  MAREA_TRY(marea_run_number(v->ctx, &marea_op_mul, &half, deviation, 0.5));
  return marea_run(v->ctx, &marea_op_mul, out, 2, v->dout[0], half);
}

/* The deviation is drawn again: y - mean would have no digits left beside a large mean. */
static marea_status sample_normal_vjp (marea_vjp *v) {
  const marea_attr attrs[] = {v->attr[0], marea_attr_int((int64_t)v->counter)};
  MAREA_OWN deviation = NULL;
  if (v->need[0]) v->din[0] = marea_retain(v->dout[0]);
  if (!v->need[1]) return MAREA_OK;
  MAREA_TRY(marea_run_with(v->ctx, &marea_op_normal_deviation, attrs, &deviation, 1, v->in[1]));
  return times_half(v, deviation, &v->din[1]);
}

const marea_op marea_op_sample_normal = {
    .name = "sample_normal",
    .family = "random",
    .doc =
        "mean + exp(0.5 logvar) * eps with eps standard normal: the reparametrised sample of a variational "
        "autoencoder. logvar is the logarithm of the variance. mean, logvar, y: one shape. Gradient: dmean "
        "= dy, dlogvar = 0.5 dy exp(0.5 logvar) eps, eps drawn again from the counter. Source: Kingma and "
        "Welling, arXiv:1312.6114, 2.4. Error: shapes differ.",
    .inputs = {{"mean", "(any shape)"}, {"logvar", "(mean's)"}},
    .attrs = MAREA_ATTRS({"seed", MAREA_INT, MAREA_NONE, NULL, "key of eps; left out: the context's"}),
    .flags = MAREA_RANDOM | MAREA_WIDE,
    .saves_in = 2,
    .shape = sample_normal_shape,
    .forward = sample_normal_forward,
    .vjp = sample_normal_vjp,
    .draws = pair_draws,
    .sample = "local s = g.shape(0, 4)\nreturn {g.tensor(s), g.tensor(s)}",
};

static marea_status normal_deviation_forward (marea_call *c) {
  draw d = draw_of(c);
  d.seed = (uint64_t)c->attr[0].i;
  d.counter = (uint64_t)c->attr[1].i;
  d.b = marea_at(c->in[0]);
  return run_draw(c, &d, sample_normal_block);
}

static marea_status normal_deviation_vjp (marea_vjp *v) { return times_half(v, v->out[0], &v->din[0]); }

const marea_op marea_op_normal_deviation = {
    .name = "normal_deviation",
    .family = "random",
    .doc =
        "exp(0.5 logvar) * eps with the standard normal eps that belongs to a seed and a counter: what "
        "sample_normal adds to its mean. Takes nothing from the random state. Gradient: dlogvar = 0.5 dy y.",
    .inputs = {{"logvar", "(any shape)"}},
    .attrs = MAREA_ATTRS({"seed", MAREA_INT, MAREA_REQUIRED, NULL, "key of eps"},
                         {"counter", MAREA_INT, MAREA_REQUIRED, NULL, "first Philox block of eps"}),
    .saves_out = 1,
    .shape = marea_shape_same,
    .forward = normal_deviation_forward,
    .vjp = normal_deviation_vjp,
    .sample = "return {g.tensor(g.shape(0, 4))}, {seed = g.int(0, 9), counter = g.int(0, 99)}",
};

/* ---- dropout ---- */

static marea_status check_rate (marea_call *c) {
  if (!(c->attr[0].f >= 0 && c->attr[0].f <= 1))
    return marea_reject(c, MAREA_EARG, "argument 'p': expected 0 to 1, got %g", c->attr[0].f);
  return marea_shape_same(c);
}

#define DROP_GROUP 64 /* elements that share 16 Philox blocks: see kernels/random.inc */

static int64_t dropout_draws (const marea_call *c) {
  return (out_count(c) + DROP_GROUP - 1) / DROP_GROUP * 16;
}

/* y := x without what drops, n elements from `first` on, of the dtype that is computed in */
static void drop (const draw *d, int64_t first, int64_t n, const void *x, void *y) {
  d->kernels->dropout((size_t)n, d->seed, d->counter + (uint64_t)(first / 4), (uint32_t)d->p, d->q, x, y);
}

/* The same of what is only stored, by way of a buffer. */
static void drop_stored (const draw *d, int64_t first, int64_t n, const char *x, char *y) {
  enum { CHUNK = 1024 }; /* a multiple of DROP_GROUP; 4 KB, once more for the result */
  _Alignas(MAREA_ALIGN) float from[CHUNK], to[CHUNK];
  const int computed = marea_computed_in(d->dtype);
  const int64_t size = (int64_t)marea_element_size(d->dtype);
  for (int64_t i = 0; i < n; i += CHUNK) {
    const int64_t part = MAREA_MIN(CHUNK, n - i);
    marea_convert_run(d->ctx, part, d->dtype, x + i * size, 1, computed, from, 1);
    drop(d, first + i, part, from, to);
    marea_convert_run(d->ctx, part, computed, to, 1, d->dtype, y + i * size, 1);
  }
}

/* d->p: words below this drop; d->q: factor of what stays */
static void dropout_block (void *arg, int64_t block, int worker) {
  const draw *d = arg;
  const int64_t first = block * d->step, n = MAREA_MIN(d->step, d->n - first);
  const size_t at = (size_t)first * marea_element_size(d->dtype);
  const char *x = (const char *)d->a + at;
  char *y = (char *)d->y + at;
  (void)worker;
  if (marea_is_in(MAREA_STORED, d->dtype)) drop_stored(d, first, n, x, y);
  else drop(d, first, n, x, y);
}

static marea_status apply_mask (marea_call *c, uint64_t seed, uint64_t counter) {
  const double rate = c->attr[0].f, least = ceil(rate * 0x1p32);
  draw d = draw_of(c);
  if (least >= 0x1p32) { /* everything drops */
    memset(d.y, 0, (size_t)d.n * marea_dtype_size((marea_dtype)d.dtype));
    return MAREA_OK;
  }
  d.kernels = marea_kernels_for(c, 0);
  d.seed = seed;
  d.counter = counter;
  d.p = least;
  d.q = 1 / (1 - rate);
  d.a = marea_at(c->in[0]);
  return run_draw(c, &d, dropout_block);
}

/* The seed goes into the call's attributes: the context may be seeded anew before the gradient is wanted. */
static marea_status dropout_shape (marea_call *c) {
  if (c->attr[1].n == 0) c->attr[1] = marea_attr_int((int64_t)c->ctx->random.seed);
  return check_rate(c);
}

static marea_status dropout_forward (marea_call *c) {
  return apply_mask(c, (uint64_t)c->attr[1].i, c->counter);
}

static marea_status dropout_vjp (marea_vjp *v) {
  marea_attr a[] = {v->attr[0], v->attr[1], marea_attr_int((int64_t)v->counter)};
  return marea_run_with(v->ctx, &marea_op_dropout_apply, a, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_dropout = {
    .name = "dropout",
    .family = "random",
    .doc =
        "Sets each element to 0 with probability p and multiplies the others by 1 / (1 - p). Gradient: the "
        "same mask on dy, made again from the counter. Source: Srivastava et al., JMLR 15, 2014 (inverted "
        "form). Error: p outside [0, 1].",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"p", MAREA_REAL, 0.5, NULL, "probability of 0"},
                         {"seed", MAREA_INT, MAREA_NONE, NULL, "key of the mask; left out: the context's"}),
    .flags = MAREA_RANDOM | MAREA_MIXES | MAREA_SINGLE,
    .shape = dropout_shape,
    .forward = dropout_forward,
    .vjp = dropout_vjp,
    .draws = dropout_draws,
    .sample = "return {g.tensor(g.shape(0, 4))}, {p = g.pick{0, 0.25, 0.5, 1}}",
};

static marea_status dropout_apply_forward (marea_call *c) {
  return apply_mask(c, (uint64_t)c->attr[1].i, (uint64_t)c->attr[2].i);
}

static marea_status dropout_apply_vjp (marea_vjp *v) {
  return marea_run_with(v->ctx, &marea_op_dropout_apply, v->attr, &v->din[0], 1, v->dout[0]);
}

const marea_op marea_op_dropout_apply = {
    .name = "dropout_apply",
    .family = "random",
    .doc = "dropout with the mask that belongs to a seed and a counter. Takes nothing from the random state. "
           "Gradient: itself. Error: p outside [0, 1].",
    .inputs = {{"x", "(any shape)"}},
    .attrs = MAREA_ATTRS({"p", MAREA_REAL, 0.5, NULL, "probability of 0"},
                         {"seed", MAREA_INT, MAREA_REQUIRED, NULL, "key of the mask"},
                         {"counter", MAREA_INT, MAREA_REQUIRED, NULL, "first Philox block of the mask"}),
    .flags = MAREA_MIXES | MAREA_SINGLE,
    .shape = check_rate,
    .forward = dropout_apply_forward,
    .vjp = dropout_apply_vjp,
    .sample = "return {g.tensor(g.shape(0, 4))}, {p = g.pick{0, 0.25, 0.5, 1}, seed = g.int(0, 9), "
              "counter = g.int(0, 99)}",
};
