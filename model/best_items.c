/* Best items: the operator `clickscore.BestItems` for ONNX Runtime, on x86-64 processors with AVX2.

   A graph holds this operator as a function of standard operators, which ONNX Runtime uses where this library is not
   registered or the processor lacks AVX2. Both prove their answers, so both return the same: `export/shortlist.py`
   describes inputs, outputs, quantisation and proof. This file declares the few entries of ONNX Runtime's C interface
   that it calls; their order never changes (onnxruntime_c_api.h only appends to it). */
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

typedef struct Status Status;
typedef void (*Function)(void);

typedef struct {
  const Function *(*get_api)(uint32_t version);
  const char *(*get_version)(void);
} ApiBase;

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { /* positions in the table of functions, version 1 */
  CREATE_STATUS = 0,
  CREATE_CUSTOM_OP_DOMAIN = 26,
  CUSTOM_OP_DOMAIN_ADD = 27,
  ADD_CUSTOM_OP_DOMAIN = 28,
  GET_TENSOR_MUTABLE_DATA = 51,
  GET_DIMENSIONS_COUNT = 61,
  GET_DIMENSIONS = 62,
  GET_TENSOR_TYPE_AND_SHAPE = 65,
  GET_INPUT = 90,
  GET_OUTPUT = 91,
  RELEASE_TENSOR_TYPE_AND_SHAPE = 99,
};
enum { FLOAT = 1, INT8 = 3, INT16 = 5, INT32 = 6, INT64 = 7 }; /* ONNXTensorElementDataType */
enum {
  AXES = 4,          /* most axes of an input */
  ITEMS = 16,        /* items at once */
  QUERIES = 4,       /* sessions at once */
  CHUNK = 64,        /* dimensions whose products fit into 16 bits */
  ROOM = 3,          /* room of a list, in sizes of the list */
  QUERY_STEPS = 63,  /* steps of a query on each side of 0 */
  WIDEST = 1 << 16,  /* dimensions whose scores stay far within 32 bits, so that no score equals INT32_MIN */
};

typedef struct Operator { /* OrtCustomOp */
  uint32_t version;
  void *(*create)(const struct Operator *, const Function *, const void *);
  const char *(*name)(const struct Operator *);
  const char *(*provider)(const struct Operator *);
  int (*input_type)(const struct Operator *, size_t);
  size_t (*input_count)(const struct Operator *);
  int (*output_type)(const struct Operator *, size_t);
  size_t (*output_count)(const struct Operator *);
  void (*compute)(void *, void *);
  void (*destroy)(void *);
  int (*input_presence)(const struct Operator *, size_t);
  int (*output_presence)(const struct Operator *, size_t);
  int (*input_memory)(const struct Operator *, size_t);
  Function variadic[4];
  Function create_v2;
  Status *(*compute_v2)(void *, void *);
  Function later_versions[16]; /* ONNX Runtime asks whether these are null */
} Operator;

static const Function *api;

/* Write the address of a tensor's data, and return the failure, if any. */
static Status *read_data(const void *value, void **data) {
  return ((Status * (*)(const void *, void **)) api[GET_TENSOR_MUTABLE_DATA])(value, data);
}

/* Return the data of an input, and its shape; a shape that begins with -1 means another number of axes than `rank`.
   The first failure of several inputs is kept in `failure`, and the data is null from then on. */
static const void *input(void *context, size_t index, size_t rank, int64_t *shape, Status **failure) {
  const void *value = NULL;
  void *info = NULL, *data = NULL;
  size_t axes = 0;
  if (!*failure)
    *failure = ((Status * (*)(const void *, size_t, const void **)) api[GET_INPUT])(context, index, &value);
  if (!*failure)
    *failure = ((Status * (*)(const void *, void **)) api[GET_TENSOR_TYPE_AND_SHAPE])(value, &info);
  if (!*failure) *failure = ((Status * (*)(void *, size_t *)) api[GET_DIMENSIONS_COUNT])(info, &axes);
  if (!*failure)
    *failure = ((Status * (*)(void *, int64_t *, size_t)) api[GET_DIMENSIONS])(info, shape, axes == rank ? rank : 0);
  if (axes != rank) shape[0] = -1;
  if (info) ((void (*)(void *))api[RELEASE_TENSOR_TYPE_AND_SHAPE])(info);
  if (!*failure) *failure = read_data(value, &data);
  return data;
}

/* Write the address of an output's memory, of a shape (rows, columns), and return the failure, if any. */
static Status *output(void *context, size_t index, int64_t rows, int64_t columns, void **data) {
  const int64_t shape[2] = {rows, columns};
  void *value = NULL;
  Status *failure = ((Status * (*)(void *, size_t, const int64_t *, size_t, void **))
                         api[GET_OUTPUT])(context, index, shape, 2, &value);
  return failure ? failure : read_data(value, data);
}

/* A candidate: its score in the upper half, and below it the complement of its row, so that the larger is the better. */
static int64_t candidate(int32_t score, int64_t row) { return (int64_t)score * (1LL << 32) + (UINT32_MAX - row); }

static int32_t score_of(int64_t key) { return (int32_t)(key >> 32); }

/* Move the `count` largest of `length` keys to the front (quickselect; no two keys are equal). */
static void select_largest(int64_t *keys, int64_t length, int64_t count) {
  int64_t low = 0, high = length - 1;
  while (low < high) {
    int64_t pivot = keys[(low + high) / 2], left = low, right = high;
    while (left <= right) {
      while (keys[left] > pivot) left++;
      while (keys[right] < pivot) right--;
      if (left <= right) {
        int64_t key = keys[left];
        keys[left++] = keys[right];
        keys[right--] = key;
      }
    }
    if (count <= right)
      high = right;
    else if (count >= left)
      low = left;
    else
      return;
  }
}

typedef struct {
  int64_t *keys; /* room for ROOM times the size of the list */
  int64_t count;
  int32_t threshold; /* candidates have a larger score */
} List;

static int64_t count_above(const List *list, int64_t score) {
  int64_t count = 0;
  for (int64_t index = 0; index < list->count; index++) count += score_of(list->keys[index]) > score;
  return count;
}

/* Drop candidates from a full list, but none of the `size` best, and raise the threshold.

   The threshold is found by halving an interval. Counting has no branches, so this is quicker than an exact selection. */
static void trim(List *list, int64_t size) {
  int64_t low = INT32_MAX, high = INT32_MIN, count = 0;
  for (int64_t index = 0; index < list->count; index++) {
    int32_t score = score_of(list->keys[index]);
    low = score <= low ? (int64_t)score - 1 : low;
    high = score > high ? score : high;
  }
  while (high - low > 1 && count_above(list, low) > size + size / 4) {
    int64_t middle = low + (high - low) / 2;
    if (count_above(list, middle) < size)
      high = middle;
    else
      low = middle;
  }
  if (count_above(list, low) > size + size / 4) { /* many equal scores */
    select_largest(list->keys, list->count, size);
    list->threshold = score_of(list->keys[0]);
    for (count = 0; count < size; count++)
      if (score_of(list->keys[count]) < list->threshold) list->threshold = score_of(list->keys[count]);
  } else {
    for (int64_t index = 0; index < list->count; index++) {
      list->keys[count] = list->keys[index];
      count += score_of(list->keys[index]) > low;
    }
    list->threshold = (int32_t)(low > INT32_MIN ? low : INT32_MIN);
  }
  list->count = count;
}

/* Add the items of a block that a mask names. */
static void collect(List *list, uint32_t mask, const int32_t *scores, int64_t first, int64_t rows, int64_t size) {
  for (; mask; mask &= mask - 1) {
    int item = __builtin_ctz(mask);
    int64_t row = first + item;
    if (row == 0 || row >= rows) continue;
    list->keys[list->count++] = candidate(scores[item], row);
    if (list->count == ROOM * size) trim(list, size);
  }
}

typedef struct { /* an item table, in float32 and in steps */
  const float *vectors;
  const int8_t *blocks;
  const int16_t *offsets;
  int64_t dim, width, count, rows;
  float scale, largest_error, longest, longest_chunk; /* see `export/shortlist.py` */
} Table;

/* Write the scores of QUERIES sessions with the ITEMS items of a block.

   Each lane of 32 bits holds two sums of 16 bits, of two dimensions each in turn. They wrap around on the way, and fit
   into 16 bits at the end of a chunk. The registers have names, because compilers keep an array in memory. */
__attribute__((target("avx2"))) static void score_block(const uint8_t *steps, int64_t width, const int8_t *items,
                                                        const int16_t *offsets, int32_t scores[QUERIES][ITEMS]) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i zero = _mm256_setzero_si256(), total00 = zero, total01 = zero, total10 = zero, total11 = zero;
  __m256i total20 = zero, total21 = zero, total30 = zero, total31 = zero;
  for (int64_t start = 0; start < width; start += CHUNK) {
    int64_t end = start + CHUNK < width ? start + CHUNK : width;
    __m256i low = _mm256_loadu_si256((const __m256i *)offsets), high = _mm256_loadu_si256((const __m256i *)offsets + 1);
    __m256i sum00 = low, sum10 = low, sum20 = low, sum30 = low, sum01 = high, sum11 = high, sum21 = high, sum31 = high;
    for (int64_t dim = start; dim < end; dim += 4) {
      __m256i first = _mm256_loadu_si256((const __m256i *)(items + dim * ITEMS));
      __m256i second = _mm256_loadu_si256((const __m256i *)(items + dim * ITEMS) + 1), step;
      int32_t four;
#define ADD(query)                                                                    \
  memcpy(&four, steps + query * width + dim, sizeof four);                            \
  step = _mm256_set1_epi32(four);                                                     \
  sum##query##0 = _mm256_add_epi16(sum##query##0, _mm256_maddubs_epi16(step, first)); \
  sum##query##1 = _mm256_add_epi16(sum##query##1, _mm256_maddubs_epi16(step, second));
      ADD(0) ADD(1) ADD(2) ADD(3)
#undef ADD
    }
#define ADD(query)                                                                            \
  total##query##0 = _mm256_add_epi32(total##query##0, _mm256_madd_epi16(sum##query##0, ones)); \
  total##query##1 = _mm256_add_epi32(total##query##1, _mm256_madd_epi16(sum##query##1, ones));
    ADD(0) ADD(1) ADD(2) ADD(3)
#undef ADD
    offsets += 2 * ITEMS;
  }
#define STORE(query)                                                  \
  _mm256_storeu_si256((__m256i *)scores[query], total##query##0); \
  _mm256_storeu_si256((__m256i *)scores[query] + 1, total##query##1);
  STORE(0) STORE(1) STORE(2) STORE(3)
#undef STORE
}

/* Return a mask of the scores above a threshold. */
__attribute__((target("avx2"))) static uint32_t mask_above(const int32_t scores[ITEMS], int32_t threshold) {
  __m256i limit = _mm256_set1_epi32(threshold);
  __m256i low = _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)scores), limit);
  __m256i high = _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)scores + 1), limit);
  return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(low)) |
         (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(high)) << 8;
}

/* Scan the whole table for all sessions. */
__attribute__((target("avx2"))) static void scan(const Table *table, const uint8_t *steps, int64_t sessions,
                                                 int64_t size, List *lists) {
  int64_t chunks = (table->width + CHUNK - 1) / CHUNK;
  for (int64_t block = 0; block < table->count; block++)
    for (int64_t session = 0; session < sessions; session += QUERIES) {
      int32_t scores[QUERIES][ITEMS];
      score_block(steps + session * table->width, table->width, table->blocks + block * table->width * ITEMS,
                  table->offsets + block * chunks * ITEMS * 2, scores);
      for (int query = 0; query < QUERIES; query++) {
        List *list = lists + session + query;
        uint32_t mask = mask_above(scores[query], list->threshold);
        if (mask) collect(list, mask, scores[query], block * ITEMS, table->rows, size);
      }
    }
}

typedef struct { /* items with bonuses */
  const int64_t *rows;
  const float *bonuses;
  int64_t count;
} Own;

typedef struct { /* the best items of a session, best first, equal scores in order of row */
  float *scores;
  int64_t *rows;
  int64_t count, limit;
} Best;

static void insert(Best *best, float score, int64_t row) {
  int64_t index = best->count;
  if (index == best->limit) {
    index--;
    if (!(score > best->scores[index] || (score == best->scores[index] && row < best->rows[index]))) return;
  } else {
    best->count++;
  }
  for (; index > 0; index--) {
    float other = best->scores[index - 1];
    if (!(score > other || (score == other && row < best->rows[index - 1]))) break;
    best->scores[index] = other;
    best->rows[index] = best->rows[index - 1];
  }
  best->scores[index] = score;
  best->rows[index] = row;
}

static int is_own(const Own *own, int64_t row) {
  for (int64_t index = 0; index < own->count; index++)
    if (own->rows[index] == row) return 1;
  return 0;
}

/* Offer items to the best in float32: `count` rows, or the rows from `first` on where there is no list.

   Each product adds in order of dimension with one rounding a step, as ONNX Runtime's matrix products do. Eight items at
   once, because each addition waits for the one before. */
__attribute__((target("avx2,fma"))) static void offer(const Table *table, const float *query, const int64_t *list,
                                                      int64_t first, int64_t count, const Own *own, Best *best) {
  for (int64_t start = 0; start < count; start += 8) {
    int64_t rows[8];
    const float *vectors[8];
    float sums[8] = {0};
    for (int item = 0; item < 8; item++) {
      int64_t index = start + item < count ? start + item : count - 1;
      rows[item] = list ? (int64_t)(UINT32_MAX - (list[index] & UINT32_MAX)) : first + index;
      vectors[item] = table->vectors + rows[item] * table->dim;
      if (list && index + 8 < count)
        for (int64_t byte = 0; byte < table->dim; byte += 16)
          __builtin_prefetch(table->vectors + (int64_t)(UINT32_MAX - (list[index + 8] & UINT32_MAX)) * table->dim + byte);
    }
    for (int64_t dim = 0; dim < table->dim; dim++)
#pragma GCC unroll 8
      for (int item = 0; item < 8; item++) sums[item] = fmaf(query[dim], vectors[item][dim], sums[item]);
    for (int item = 0; item < 8 && start + item < count; item++) {
      int is_better = best->count < best->limit || sums[item] >= best->scores[best->limit - 1];
      if (is_better && !is_own(own, rows[item])) insert(best, sums[item], rows[item]);
    }
  }
}

/* Offer the items with bonuses: the session's own, and its neighbours'. An item may be in both. */
static void offer_own(const Table *table, const float *query, const Own *own, Best *best) {
  for (int64_t index = 0; index < own->count; index++) {
    if (own->rows[index] <= 0 || own->rows[index] >= table->rows) continue;
    int64_t key = UINT32_MAX - own->rows[index];
    float score, none = 0;
    int64_t row;
    Best single = {&score, &row, 0, 1};
    Own nothing = {NULL, &none, 0};
    offer(table, query, &key, 0, 1, &nothing, &single);
    Own earlier = {own->rows, own->bonuses, index};
    if (is_own(&earlier, own->rows[index])) continue;
    for (int64_t mention = index; mention < own->count; mention++)
      if (own->rows[mention] == own->rows[index]) score += own->bonuses[mention];
    insert(best, score, own->rows[index]);
  }
}

typedef struct { /* what quantising a query leaves for the bound */
  double scale, length, steps_length, rest_length;
} Rounding;

/* Write a query in steps above the zero, (width,), and return what the bound needs. */
static Rounding quantise(const Table *table, const float *query, uint8_t *steps) {
  int64_t chunk = table->width < CHUNK ? table->width : CHUNK;
  double largest = 1e-30, longest = 1e-60, sum = 0, in_chunk = 0;
  for (int64_t dim = 0; dim < table->dim; dim++) {
    double value = fabs((double)query[dim]);
    in_chunk = dim % chunk ? in_chunk + value * value : value * value;
    largest = value > largest ? value : largest;
    longest = in_chunk > longest ? in_chunk : longest;
    sum += value * value;
  }
  double scale = QUERY_STEPS / largest, limit = table->longest_chunk / sqrt(longest);
  Rounding rounding = {scale < limit ? scale : limit, sqrt(sum), 0, 0};
  memset(steps, QUERY_STEPS + 1, (size_t)table->width);
  for (int64_t dim = 0; dim < table->dim; dim++) {
    double scaled = query[dim] * rounding.scale, rounded = rint(scaled);
    if (!(fabs(rounded) <= QUERY_STEPS)) rounded = 0; /* no number */
    steps[dim] = (uint8_t)(QUERY_STEPS + 1 + rounded);
    rounding.steps_length += rounded * rounded;
    rounding.rest_length += (scaled - rounded) * (scaled - rounded);
  }
  rounding.steps_length = sqrt(rounding.steps_length);
  rounding.rest_length = sqrt(rounding.rest_length);
  return rounding;
}

/* Write the best items of one session, from the items of its list where these prove to be enough. */
static void rank(const Table *table, const float *query, const Rounding *rounding, List *list, int64_t size,
                 const Own *own, Best *best) {
  int32_t lowest = INT32_MAX;
  if (list->count > size) select_largest(list->keys, list->count, size);
  for (int64_t index = 0; index < size; index++)
    if (score_of(list->keys[index]) < lowest) lowest = score_of(list->keys[index]);
  offer_own(table, query, own, best);
  offer(table, query, list->keys, 0, size, own, best);
  double steps = lowest + rounding->steps_length * table->largest_error + rounding->rest_length * table->longest;
  double slack = (double)(table->width + 16) / (1 << 22) * rounding->length * table->longest / table->scale;
  double bound = steps / (rounding->scale * table->scale) + slack;
  if (size == table->rows - 1 || (best->count == best->limit && best->scores[best->limit - 1] > bound)) return;
  best->count = 0;
  offer_own(table, query, own, best);
  offer(table, query, NULL, 1, table->rows - 1, own, best);
}

static Status *fail(const char *message) {
  return ((Status * (*)(int, const char *)) api[CREATE_STATUS])(1, message);
}

static const char DO_NOT_FIT[] = "the inputs of BestItems do not fit together";

static Status *compute(void *kernel, void *context) {
  (void)kernel;
  int64_t query_shape[AXES] = {0}, own_shape[AXES] = {0}, table_shape[AXES] = {0}, blocks_shape[AXES] = {0};
  int64_t bonuses_shape[AXES] = {0}, offsets_shape[AXES] = {0}, measures_shape[AXES] = {0}, counts_shape[AXES] = {0};
  Status *failure = NULL;
  const float *query = input(context, 0, 2, query_shape, &failure);
  const int64_t *own_rows = input(context, 1, 2, own_shape, &failure);
  const float *bonuses = input(context, 2, 2, bonuses_shape, &failure);
  Table table = {0};
  table.vectors = input(context, 3, 2, table_shape, &failure);
  table.blocks = input(context, 4, 4, blocks_shape, &failure);
  table.offsets = input(context, 5, 4, offsets_shape, &failure);
  const float *measures = input(context, 7, 1, measures_shape, &failure);
  const int64_t *counts = input(context, 8, 1, counts_shape, &failure);
  if (failure) return failure;
  if (measures_shape[0] != 4 || counts_shape[0] != 3 || query_shape[0] < 0) return fail(DO_NOT_FIT);
  int64_t sessions = query_shape[0], own_count = own_shape[1], candidates = counts[0];
  table.dim = table_shape[1], table.width = blocks_shape[1] * 4, table.count = blocks_shape[0], table.rows = counts[2];
  table.scale = measures[0], table.largest_error = measures[1], table.longest = measures[2];
  table.longest_chunk = measures[3];
  int fits = table.width >= table.dim && table.width <= WIDEST && (table.width < CHUNK || table.width % CHUNK == 0) &&
             query_shape[1] == table.dim && own_shape[0] == sessions && bonuses_shape[0] == sessions &&
             bonuses_shape[1] == own_count && table_shape[0] >= table.rows && table.rows <= table.count * ITEMS &&
             blocks_shape[2] == ITEMS && blocks_shape[3] == 4 && offsets_shape[0] == table.count &&
             offsets_shape[1] == (table.width + CHUNK - 1) / CHUNK && offsets_shape[2] == ITEMS &&
             offsets_shape[3] == 2 && candidates > 0 && counts[1] >= candidates && counts[1] < table.rows;
  if (!fits) return fail(DO_NOT_FIT);
  int64_t size = counts[1] + own_count < table.rows - 1 ? counts[1] + own_count : table.rows - 1;
  int64_t padded = (sessions + QUERIES - 1) / QUERIES * QUERIES;

  void *scores = NULL, *rows = NULL;
  failure = output(context, 0, sessions, candidates, &scores);
  if (!failure) failure = output(context, 1, sessions, candidates, &rows);
  if (failure) return failure;
  Best best = {scores, rows, 0, candidates};
  uint8_t *steps = calloc((size_t)(padded * table.width + 1), 1);
  Rounding *roundings = malloc((size_t)(sessions + 1) * sizeof *roundings);
  int64_t *keys = malloc((size_t)(padded * ROOM * size + 1) * sizeof *keys);
  List *lists = malloc((size_t)(padded + 1) * sizeof *lists);
  int has_memory = steps && roundings && keys && lists;
  for (int64_t session = 0; has_memory && session < padded; session++)
    lists[session] = (List){keys + session * ROOM * size, 0, session < sessions ? INT32_MIN : INT32_MAX};
  for (int64_t session = 0; has_memory && session < sessions; session++)
    roundings[session] = quantise(&table, query + session * table.dim, steps + session * table.width);
  if (has_memory) scan(&table, steps, padded, size, lists);
  for (int64_t session = 0; has_memory && session < sessions; session++) {
    Own own = {own_rows + session * own_count, bonuses + session * own_count, own_count};
    rank(&table, query + session * table.dim, roundings + session, lists + session, size, &own, &best);
    best.scores += candidates, best.rows += candidates, best.count = 0;
  }
  free(steps);
  free(roundings);
  free(keys);
  free(lists);
  return has_memory ? NULL : fail("out of memory");
}

static void *create(const Operator *self, const Function *functions, const void *info) {
  (void)self, (void)functions, (void)info;
  return malloc(1); /* the operator has no state */
}

static const char *name(const Operator *self) { return (void)self, "BestItems"; }
static const char *provider(const Operator *self) { return (void)self, NULL; }
static int input_type(const Operator *self, size_t index) {
  static const int types[] = {FLOAT, INT64, FLOAT, FLOAT, INT8, INT16, INT32, FLOAT, INT64};
  return (void)self, types[index];
}
static size_t input_count(const Operator *self) { return (void)self, 9; }
static int output_type(const Operator *self, size_t index) { return (void)self, index ? INT64 : FLOAT; }
static size_t output_count(const Operator *self) { return (void)self, 2; }

static int usual(const Operator *self, size_t index) { return (void)self, (void)index, 0; }

static const Operator best_items = {
    .version = 16, /* the version with the last function below */
    .create = create,
    .name = name,
    .provider = provider,
    .input_type = input_type,
    .input_count = input_count,
    .output_type = output_type,
    .output_count = output_count,
    .destroy = free,
    .input_presence = usual,
    .output_presence = usual,
    .input_memory = usual,
    .compute_v2 = compute,
};

/* Register the operator with the options of a session; ONNX Runtime calls this function by its name. */
EXPORT Status *RegisterCustomOps(void *options, const ApiBase *base) {
  void *domain = NULL;
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return NULL;
  api = base->get_api(1);
  Status *status = ((Status * (*)(const char *, void **)) api[CREATE_CUSTOM_OP_DOMAIN])("clickscore", &domain);
  if (!status) status = ((Status * (*)(void *, const Operator *)) api[CUSTOM_OP_DOMAIN_ADD])(domain, &best_items);
  if (!status) status = ((Status * (*)(void *, void *)) api[ADD_CUSTOM_OP_DOMAIN])(options, domain);
  return status;
}

#else
EXPORT Status *RegisterCustomOps(void *options, const ApiBase *base) { return (void)options, (void)base, NULL; }
#endif
