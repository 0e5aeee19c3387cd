// Layers of transformers on a block of tokens, for one instruction set: see token_layers_cpu.cpp.
//
// Included by token_layers_cpu.cpp once per instruction set, inside a namespace of its own, with
// VECTOR_BYTES set to the width of a register. No include guard, on purpose.

#include "cpu_vectors.h"
#include "cpu_math.h"

typedef int8_t Bytes __attribute__((vector_size(lanes)));
typedef int16_t Shorts __attribute__((vector_size(2 * lanes)));

// ---------------------------------------------------------------- rows

// to = (from - mean) / sqrt(variance + eps) * weight + bias; `to` may be `from`.
INLINE void norm_row(const Norm& norm, const float* from, int64_t n, float* to) {
  Floats sum = {};
  for (int64_t i = 0; i < n; i += lanes) sum += load<lanes>(from + i);
  const float mean = total(sum) / n;
  Floats squares = {};
  for (int64_t i = 0; i < n; i += lanes) {
    const Floats centred = load<lanes>(from + i) - mean;
    squares += centred * centred;
  }
  const float scale = 1.0f / std::sqrt(total(squares) / n + norm.eps);
  for (int64_t i = 0; i < n; i += lanes) {
    const Floats normed = (load<lanes>(from + i) - mean) * scale;
    store<lanes>(to + i, normed * load<lanes>(norm.weight + i) + load<lanes>(norm.bias + i));
  }
}

// to = from + bias
INLINE void biased_row(const float* from, const float* bias, int64_t n, float* to) {
  if (!bias) {
    if (to != from) std::memcpy(to, from, n * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < n; i += lanes)
    store<lanes>(to + i, load<lanes>(from + i) + load<lanes>(bias + i));
}

template <bool GELU>
INLINE void activate(const float* bias, int64_t n, float* row) {
  for (int64_t i = 0; i < n; i += lanes) {
    Floats value = load<lanes>(row + i);
    if (bias) value += load<lanes>(bias + i);
    store<lanes>(row + i, GELU ? gelu_of(value) : pick(value < all(0.0f), all(0.0f), value));
  }
}

// ---------------------------------------------------------------- perceptron

inline void perceptron(const Perceptron& p, const Blas& blas, int64_t begin, int64_t end, float* scratch) {
  const int64_t rows = end - begin, width = p.fc1.inputs, wide = p.fc1.outputs;
  const float* const x = p.x + begin * width;
  float *const out = p.out + begin * width, *const hidden = scratch, *normed = hidden + rows * wide;
  if (p.entry.weight) {
    for (int64_t r = 0; r < rows; ++r)
      biased_row(x + r * width, p.entry.bias, width, normed + r * width);
    product(blas, p.entry, p.joining + begin * p.entry.inputs, rows, 1.0f, normed);
    for (int64_t r = 0; r < rows; ++r)
      norm_row(p.first_norm, normed + r * width, width, normed + r * width);
  } else {
    for (int64_t r = 0; r < rows; ++r) norm_row(p.first_norm, x + r * width, width, normed + r * width);
  }
  product(blas, p.fc1, normed, rows, 0.0f, hidden);
  for (int64_t r = 0; r < rows; ++r)
    if (p.gelu)
      activate<true>(p.fc1.bias, wide, hidden + r * wide);
    else
      activate<false>(p.fc1.bias, wide, hidden + r * wide);
  const float* const skipped = p.entry.weight ? normed : x;
  for (int64_t r = 0; r < rows; ++r)
    biased_row(skipped + r * width, p.fc2.bias, width, out + r * width);
  product(blas, p.fc2, hidden, rows, 1.0f, out);
  if (p.last_norm.weight)
    for (int64_t r = 0; r < rows; ++r)
      norm_row(p.last_norm, out + r * width, width, out + r * width);
}

// ---------------------------------------------------------------- attention

// Logits of ROWS queries (`stride` apart) with all keys, [depth, padded]: to [ROWS, padded].
template <int ROWS, int COLUMNS>
INLINE void logits_of(const float* queries, int64_t stride, const float* keys, int64_t depth,
                      int64_t padded, float* to) {
  Floats sum[ROWS][COLUMNS] = {};
  for (int64_t d = 0; d < depth; ++d) {
    Floats key[COLUMNS];
    for (int c = 0; c < COLUMNS; ++c) key[c] = load<lanes>(keys + d * padded + c * lanes);
    for (int r = 0; r < ROWS; ++r)
      for (int c = 0; c < COLUMNS; ++c) sum[r][c] += queries[r * stride + d] * key[c];
  }
  for (int r = 0; r < ROWS; ++r)
    for (int c = 0; c < COLUMNS; ++c) store<lanes>(to + r * padded + c * lanes, sum[r][c]);
}

// Queries that are looked at together: sums of their values fill half the registers.
constexpr int together = VECTOR_BYTES == 64 ? most_rows : 4;

// Calls visit(first, size) for groups of rows that are looked at together.
template <typename Visit>
INLINE void in_groups(int64_t rows, Visit visit) {
  int64_t row = 0;
  for (; row + together <= rows; row += together)
    visit(row, std::integral_constant<int, together>());
  for (; row + 4 <= rows; row += 4) visit(row, std::integral_constant<int, 4>());
  for (; row < rows; ++row) visit(row, std::integral_constant<int, 1>());
}

template <int ROWS>
INLINE void all_logits_of(const float* queries, int64_t stride, const float* keys, int64_t depth,
                          int64_t padded, float* to) {
  constexpr int wide = VECTOR_BYTES == 64 ? 4 : 2, rows = ROWS < 4 ? ROWS : 4;
  static_assert(ROWS % rows == 0);
  int64_t at = 0;
  for (; at + wide * lanes <= padded; at += wide * lanes)
    for (int r = 0; r < ROWS; r += rows)
      logits_of<rows, wide>(queries + r * stride, stride, keys + at, depth, padded, to + r * padded + at);
  for (; at < padded; at += lanes)
    for (int r = 0; r < ROWS; r += rows)
      logits_of<rows, 1>(queries + r * stride, stride, keys + at, depth, padded, to + r * padded + at);
}

// The values of `count` keys (`stride` apart) weighted by ROWS rows of `weights`, plus what is in
// `to` where ADD, times `scale`.
template <int ROWS, int COLUMNS, bool ADD>
INLINE void weighted_values(const float* weights, int64_t padded, const float* scale,
                            const float* values, int64_t count, int64_t stride, float* to,
                            int64_t to_stride) {
  Floats sum[ROWS][COLUMNS] = {};
  for (int64_t n = 0; n < count; ++n) {
    Floats value[COLUMNS];
    for (int c = 0; c < COLUMNS; ++c) value[c] = load<lanes>(values + n * stride + c * lanes);
    for (int r = 0; r < ROWS; ++r)
      for (int c = 0; c < COLUMNS; ++c) sum[r][c] += weights[r * padded + n] * value[c];
  }
  for (int r = 0; r < ROWS; ++r)
    for (int c = 0; c < COLUMNS; ++c) {
      float* const at = to + r * to_stride + c * lanes;
      store<lanes>(at, ADD ? load<lanes>(at) * scale[r] + sum[r][c] : sum[r][c] * scale[r]);
    }
}

template <int ROWS, bool ADD>
INLINE void all_weighted_values(const float* weights, int64_t padded, const float* scale,
                                const float* values, int64_t count, int64_t stride, int64_t depth,
                                float* to, int64_t to_stride) {
  int64_t at = 0;
  for (; at + 2 * lanes <= depth; at += 2 * lanes)
    weighted_values<ROWS, 2, ADD>(weights, padded, scale, values + at, count, stride, to + at, to_stride);
  for (; at < depth; at += lanes)
    weighted_values<ROWS, 1, ADD>(weights, padded, scale, values + at, count, stride, to + at, to_stride);
}

// ROWS queries from `first` on with a chunk of keys. sums and largest are those of the rows so far.
template <int ROWS>
INLINE void attend_chunk(const Attention& p, int64_t image, int64_t head, int64_t first,
                         int64_t begin, int64_t count, const float* keys, const float* values,
                         float* logits, float* sums, float* largest) {
  const int64_t channels = p.heads * p.depth, offset = head * p.depth;
  const float* const queries = p.queries + (image * p.rows + first) * channels + offset;
  all_logits_of<ROWS>(queries, channels, keys, p.depth, key_chunk, logits);
  float scale[ROWS];
  for (int r = 0; r < ROWS; ++r) {
    float* const row = logits + r * key_chunk;
    const uint8_t* const allowed =
        p.attend ? p.attend + image * p.attend_image + head * p.attend_head +
                       (first + r) * p.attend_row + begin
                 : nullptr;
    Floats most = all(blocked);
    for (int64_t i = 0; i < key_chunk; i += lanes) {
      Floats value = load<lanes>(row + i) * p.scale;
      if (i + lanes <= count) {
        if (allowed) {
          Bytes here;  // in two steps, for which compilers know instructions
          std::memcpy(&here, allowed + i, lanes);
          const Shorts wider = __builtin_convertvector(here, Shorts);
          value = pick(__builtin_convertvector(wider, Ints) != 0, value, all(blocked));
        }
      } else {
        for (int64_t j = 0; j < lanes; ++j)
          if (i + j >= count || (allowed && !allowed[i + j])) value[j] = blocked;
      }
      most = larger(value, most);
      store<lanes>(row + i, value);
    }
    const float before = largest[r], now = largest_lane(larger(most, all(before)));
    Floats sum = {};
    for (int64_t i = 0; i < key_chunk; i += lanes) {
      const Floats power = exp_of(load<lanes>(row + i) - now);
      sum += power;
      store<lanes>(row + i, power);
    }
    scale[r] = now == before ? 1.0f : exp_of(all(before - now))[0];
    largest[r] = now;
    sums[r] = sums[r] * scale[r] + total(sum);
  }
  float* const to = p.out + (image * p.rows + first) * channels + offset;
  all_weighted_values<ROWS, true>(logits, key_chunk, scale, values, count, p.depth, p.depth, to, channels);
}

// Queries first_row to last_row of a head, a chunk of keys after the other (Milakov and Gimelshein,
// Online normalizer calculation for softmax, 2018; Dao et al., FlashAttention, 2022).
inline void attention(const Attention& p, int64_t image, int64_t head, int64_t first_row,
                      int64_t last_row, float* scratch) {
  const int64_t channels = p.heads * p.depth, rows = last_row - first_row;
  float *const keys = scratch, *const values = keys + p.depth * key_chunk;
  float *const logits = values + p.depth * key_chunk;
  float *const sums = logits + together * key_chunk, *const largest = sums + rows;
  float* const out = p.out + (image * p.rows + first_row) * channels + head * p.depth;
  for (int64_t r = 0; r < rows; ++r) {
    sums[r] = 0.0f, largest[r] = blocked;
    std::memset(out + r * channels, 0, p.depth * sizeof(float));
  }
  for (int64_t begin = 0; begin < p.count; begin += key_chunk) {
    const int64_t count = p.count - begin < key_chunk ? p.count - begin : key_chunk;
    for (int64_t d = 0; d < p.depth; ++d) {
      std::memcpy(keys + d * key_chunk,
                  p.keys + (image * channels + head * p.depth + d) * p.count + begin,
                  count * sizeof(float));
      std::memset(keys + d * key_chunk + count, 0, (key_chunk - count) * sizeof(float));
    }
    // Side by side they share no cache lines with other heads.
    for (int64_t n = 0; n < count; ++n)
      std::memcpy(values + n * p.depth,
                  p.values + (image * p.count + begin + n) * channels + head * p.depth,
                  p.depth * sizeof(float));
    in_groups(rows, [&](int64_t row, auto size) {
      attend_chunk<size.value>(p, image, head, first_row + row, begin, count, keys, values, logits,
                               sums + row, largest + row);
    });
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t d = 0; d < p.depth; d += lanes)
      store<lanes>(out + r * channels + d, load<lanes>(out + r * channels + d) / sums[r]);
}

// ---------------------------------------------------------------- windows

// Of two rows, where STEP is a bit of the lane: what becomes the first and what the second one.
template <int STEP, bool SECOND, int... LANE>
INLINE Floats exchanged(Floats a, Floats b, std::integer_sequence<int, LANE...>) {
#if defined(__clang__)
#define LANES_OF(...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LANES_OF(...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif
  return LANES_OF(((LANE & STEP) ? lanes + LANE - (SECOND ? 0 : STEP) : LANE + (SECOND ? STEP : 0))...);
#undef LANES_OF
}

template <int STEP = lanes / 2>
INLINE void transpose(Floats (&rows)[lanes]) {
  const auto every = std::make_integer_sequence<int, lanes>();
  for (int i = 0; i < lanes; ++i) {
    if (i & STEP) continue;
    const Floats a = rows[i], b = rows[i + STEP];
    rows[i] = exchanged<STEP, false>(a, b, every);
    rows[i + STEP] = exchanged<STEP, true>(a, b, every);
  }
  if constexpr (STEP > 1) transpose<STEP / 2>(rows);
}

// Keys [count, depth] (`stride` apart) to [depth, padded], with zeros behind the last one.
INLINE void transpose_keys(const float* from, int64_t stride, int64_t count, int64_t depth,
                           int64_t padded, float* to) {
  for (int64_t n = 0; n < padded; n += lanes)
    for (int64_t d = 0; d < depth; d += lanes) {
      Floats rows[lanes];
      for (int i = 0; i < lanes; ++i)
        rows[i] = n + i < count ? load<lanes>(from + (n + i) * stride + d) : Floats{};
      transpose(rows);
      for (int i = 0; i < lanes; ++i) store<lanes>(to + (d + i) * padded + n, rows[i]);
    }
}

// ROWS queries of one head.
template <int ROWS>
INLINE void attend(const Windows& p, const float* queries, const float* keys, const float* values,
                   int64_t stride, const float* bias, const float* separation, float* logits,
                   float* to, int64_t to_stride) {
  const int64_t count = p.size * p.size, depth = p.qkv.inputs / p.heads, padded = p.padded;
  all_logits_of<ROWS>(queries, stride, keys, depth, padded, logits);
  float scale[ROWS];
  for (int r = 0; r < ROWS; ++r) {
    float* const row = logits + r * padded;
    Floats largest = all(-INFINITY);
    for (int64_t i = 0; i < padded; i += lanes) {
      Floats value = load<lanes>(row + i) * p.scale + load<lanes>(bias + r * padded + i);
      if (separation) value += load<lanes>(separation + r * padded + i);
      largest = larger(largest, value);
      store<lanes>(row + i, value);
    }
    const float most = largest_lane(largest);
    Floats sum = {};
    for (int64_t i = 0; i < padded; i += lanes) {
      const Floats power = exp_of(load<lanes>(row + i) - most);
      sum += power;
      store<lanes>(row + i, power);
    }
    scale[r] = 1.0f / total(sum);
  }
  all_weighted_values<ROWS, false>(logits, padded, scale, values, count, stride, depth, to, to_stride);
}

// One window: qkv [N, 3 channels] to `to` [N, channels].
inline void attend_window(const Windows& p, const float* qkv, int64_t kind, float* keys,
                          float* logits, float* to) {
  const int64_t count = p.size * p.size, channels = p.qkv.inputs, stride = 3 * channels;
  const int64_t depth = channels / p.heads;
  const float* const separation = kind ? p.separation + kind * count * p.padded : nullptr;
  for (int64_t head = 0; head < p.heads; ++head) {
    const float* const queries = qkv + head * depth;
    transpose_keys(queries + channels, stride, count, depth, p.padded, keys);
    const float* const values = queries + 2 * channels;
    const float* const bias = p.bias + head * count * p.padded;
    in_groups(count, [&](int64_t row, auto size) {
      attend<size.value>(p, queries + row * stride, keys, values, stride, bias + row * p.padded,
                         separation ? separation + row * p.padded : nullptr, logits,
                         to + row * channels + head * depth, channels);
    });
  }
}

// Calls visit(token of the window, its row in x or -1 where the map was padded) for all tokens.
template <typename Visit>
INLINE void visit_window(const Windows& p, int64_t window, Visit visit) {
  const int64_t rows = (p.height + p.size - 1) / p.size, columns = (p.width + p.size - 1) / p.size;
  const int64_t column = window % columns, row = window / columns % rows;
  const int64_t image = window / columns / rows;
  for (int64_t i = 0; i < p.size; ++i) {
    const int64_t y = (row * p.size + i + p.shift) % (rows * p.size);
    for (int64_t j = 0; j < p.size; ++j) {
      const int64_t x = (column * p.size + j + p.shift) % (columns * p.size);
      const bool inside = y < p.height && x < p.width;
      visit(i * p.size + j, inside ? (image * p.height + y) * p.width + x : -1);
    }
  }
}

inline void windows(const Windows& p, const Blas& blas, int64_t begin, int64_t end, float* scratch) {
  const int64_t tokens = p.size * p.size, channels = p.qkv.inputs, depth = channels / p.heads;
  const int64_t rows = (p.height + p.size - 1) / p.size, columns = (p.width + p.size - 1) / p.size;
  const int64_t all_tokens = (end - begin) * tokens;
  float *const normed = scratch, *const qkv = normed + all_tokens * channels;
  float *const attended = qkv + all_tokens * p.qkv.outputs;
  float *const keys = attended + all_tokens * channels, *const logits = keys + depth * p.padded;
  for (int64_t window = begin; window < end; ++window) {
    float* const to = normed + (window - begin) * tokens * channels;
    visit_window(p, window, [&](int64_t token, int64_t from) {
      if (from < 0)
        std::memset(to + token * channels, 0, channels * sizeof(float));
      else
        norm_row(p.norm, p.x + from * channels, channels, to + token * channels);
    });
  }
  product(blas, p.qkv, normed, all_tokens, 0.0f, qkv);
  for (int64_t row = 0; p.qkv.bias && row < all_tokens; ++row) {
    float* const to = qkv + row * p.qkv.outputs;
    biased_row(to, p.qkv.bias, p.qkv.outputs, to);
  }
  for (int64_t window = begin; window < end; ++window) {
    const int64_t last_column = window % columns == columns - 1;
    const int64_t last_row = window / columns % rows == rows - 1;
    const int64_t offset = (window - begin) * tokens;
    attend_window(p, qkv + offset * p.qkv.outputs, p.shift ? 2 * last_row + last_column : 0, keys,
                  logits, attended + offset * channels);
  }
  product(blas, p.proj, attended, all_tokens, 0.0f, normed);
  const float *const x = p.x, *const bias = p.proj.bias;
  float* const out = p.out;
  for (int64_t window = begin; window < end; ++window) {
    const float* const from = normed + (window - begin) * tokens * channels;
    visit_window(p, window, [&](int64_t token, int64_t to) {
      if (to < 0) return;
      for (int64_t c = 0; c < channels; c += lanes) {
        Floats value = load<lanes>(from + token * channels + c) + load<lanes>(x + to * channels + c);
        if (bias) value += load<lanes>(bias + c);
        store<lanes>(out + to * channels + c, value);
      }
    });
  }
}

// ---------------------------------------------------------------- samples

// Softmax of neighbouring groups of `length` numbers, in place; `n` is a multiple of both.
INLINE void grouped_softmax(float* row, int64_t n, int64_t length) {
  for (int64_t group = 0; group < n; group += length) {
    float most = row[group];
    for (int64_t i = 1; i < length; ++i) most = row[group + i] > most ? row[group + i] : most;
    for (int64_t i = 0; i < length; ++i) row[group + i] -= most;
  }
  for (int64_t i = 0; i < n; i += lanes) store<lanes>(row + i, exp_of(load<lanes>(row + i)));
  for (int64_t group = 0; group < n; group += length) {
    float sum = 0.0f;
    for (int64_t i = 0; i < length; ++i) sum += row[group + i];
    const float scale = 1.0f / sum;
    for (int64_t i = 0; i < length; ++i) row[group + i] *= scale;
  }
}

inline void samples(const Samples& p, const Blas& blas, int64_t image, int64_t begin, int64_t end,
                    float* scratch) {
  const int64_t rows = end - begin, inputs = p.value_proj.inputs, values = p.value_proj.outputs;
  const int64_t first = image * p.tokens + begin, depth = values / p.heads;
  const int64_t wide = p.offsets.outputs, narrow = p.attention.outputs;
  const int64_t a_level = 2 * p.points, a_head = a_level * p.levels;
  const float* const x = p.x + first * inputs;
  float *const placed = scratch, *const value = placed + rows * inputs;
  float* const reference = value + rows * values;

  product(blas, p.value_proj, x, rows, 0.0f, value);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t head = 0; head < p.heads; ++head) {
      const int64_t to = ((image * p.heads + head) * p.tokens + begin + r) * depth;
      biased_row(value + r * values + head * depth,
                 p.value_proj.bias ? p.value_proj.bias + head * depth : nullptr, depth, p.value + to);
    }

  const float* const pos = p.pos + image * p.pos_stride + begin * inputs;
  for (int64_t i = 0; i < rows * inputs; i += lanes)
    store<lanes>(placed + i, load<lanes>(x + i) + load<lanes>(pos + i));

  float* const weights = p.weights + first * narrow;
  product(blas, p.attention, placed, rows, 0.0f, weights);
  for (int64_t r = 0; r < rows; ++r) {
    float* const row = weights + r * narrow;
    biased_row(row, p.attention.bias, narrow, row);
    grouped_softmax(row, narrow, p.levels * p.points);
  }

  float* const locations = p.locations + first * wide;
  product(blas, p.offsets, placed, rows, 0.0f, locations);
  for (int64_t r = 0; r < rows; ++r) {
    const float* const point =
        p.reference + image * p.reference_batch + (begin + r) * p.reference_token;
    for (int64_t level = 0; level < p.levels; ++level)
      for (int64_t i = 0; i < a_level; i += 2)
        for (int xy = 0; xy < 2; ++xy)
          reference[level * a_level + i + xy] = point[level * p.reference_level + xy];
    for (int64_t i = a_head; i < wide; ++i) reference[i] = reference[i - a_head];
    float* const row = locations + r * wide;
    for (int64_t i = 0; i < wide; i += lanes) {
      Floats offset = load<lanes>(row + i);
      if (p.offsets.bias) offset += load<lanes>(p.offsets.bias + i);
      store<lanes>(row + i, offset * load<lanes>(p.inverse + i) + load<lanes>(reference + i));
    }
  }
}

inline Kernels kernels(DType) { return {perceptron, attention, windows, samples}; }
