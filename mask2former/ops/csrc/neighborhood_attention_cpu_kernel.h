// Neighbourhood attention on one slice of the problem, for one instruction set.
//
// Included by neighborhood_attention_cpu.cpp through cpu_instruction_sets.h; see there. No include
// guard, on purpose.
//
// Vectors run over channels. A query is done with at once: the logits of all its neighbours, their
// softmax, the weighted sum. Queries follow each other along a row, so that the keys and values of
// one are still in the core's own cache for the next.

#include "cpu_vectors.h"

// ---------------------------------------------------------------- exponential

// 2^(x / ln 2) by halves: 2^n exactly, from the bits of n, and a polynomial within [-ln 2 / 2,
// ln 2 / 2] (Cephes' expf; 2 units in the last place). Below -87 it stays at e^-87.
template <int LANES>
INLINE Vector<float, LANES> exponential(Vector<float, LANES> x) {
  typedef int32_t Bits __attribute__((vector_size(LANES * 4)));
  typedef Vector<float, LANES> V;
  const V lowest = V{} - 87.0f;
  x = x < lowest ? lowest : x;
  const float shift = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the bits
  const V shifted = x * 1.44269504088896341f + shift, n = shifted - shift;
  const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  V y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  return y * (V)(((Bits)shifted << 23) + (127 << 23));
}
template <int LANES>
INLINE Vector<double, LANES> exponential(Vector<double, LANES> x) {
  for (int i = 0; i < LANES; ++i) x[i] = std::exp(x[i]);
  return x;
}

// ---------------------------------------------------------------- a window of neighbours

// Lane i of the result is the sum over all lanes of in[i]; there are as many as lanes.
template <int COUNT, typename V>
INLINE V fold(const V (&in)[COUNT]) {
  if constexpr (COUNT == 1) {
    return in[0];
  } else {
    constexpr int lanes = sizeof(V) / sizeof(in[0][0]);
    const auto order = std::make_integer_sequence<int, lanes>();
    V half[COUNT / 2];
#pragma GCC unroll 16
    for (int i = 0; i < COUNT / 2; ++i) half[i] = add_pairs(in[2 * i], in[2 * i + 1], order);
    return fold<COUNT / 2>(half);
  }
}

// The neighbours of one query after another at one head of one image, in the order of the bias:
// rows, then columns. Counts are rounded up to full vectors; the surplus repeats the last one.
template <typename A>
struct Neighbours {
  static constexpr int lanes = full_lanes<A>;
  // Vectors in 64 bytes, of which a depth is a multiple; channels are taken by one or two such runs.
  static constexpr int run = 64 / VECTOR_BYTES;
  int64_t kernel, count, padded, depth, step, row_step;  // steps between neighbours, in elements
  std::vector<int64_t> offset;                           // of each neighbour from the first
  std::vector<A> memory;
  A *weight, *slope, *query;

  explicit Neighbours(const Problem& p)
      : kernel(p.kernel), count(p.kernel * p.kernel), depth(p.depth), step(p.dilation * p.depth),
        row_step(p.width * p.dilation * p.depth) {
    padded = (count + lanes - 1) / lanes * lanes;
    for (int64_t n = 0; n < padded; ++n) {
      const int64_t at = n < count ? n : count - 1;
      offset.push_back(at / kernel * row_step + at % kernel * step);
    }
    memory.resize(2 * (padded + lanes) + depth);
    weight = memory.data(), slope = weight + padded + lanes, query = slope + padded + lanes;
  }

  INLINE void take_query(const A* from, A scale) {
    for (int64_t c = 0; c < depth; c += lanes) store<lanes>(query + c, load<lanes>(from + c) * scale);
  }

  // Calls visit(vectors, channel) for runs of channels; `vectors` is a constant.
  template <typename Visit>
  INLINE void for_channels(Visit visit) const {
    int64_t c = 0;
    for (; c + 2 * run * lanes <= depth; c += 2 * run * lanes)
      visit(std::integral_constant<int, 2 * run>(), c);
    if (c < depth) visit(std::integral_constant<int, run>(), c);
  }

  // out[n] = <row, neighbour n>.
  INLINE void products(const A* row, const A* first, A* out) const {
    for_channels([&](auto vectors, int64_t c) INLINE_LAMBDA {
      Vector<A, lanes> x[vectors];
#pragma GCC unroll 16
      for (int i = 0; i < vectors; ++i) x[i] = load<lanes>(row + c + i * lanes);
      for (int64_t n = 0; n < padded; n += lanes) {
        Vector<A, lanes> sum[lanes];  // a vector of sums for each neighbour
#pragma GCC unroll 16
        for (int k = 0; k < lanes; ++k) {
          const A* const other = first + offset[n + k] + c;
          sum[k] = x[0] * load<lanes>(other);
#pragma GCC unroll 16
          for (int i = 1; i < vectors; ++i) sum[k] += x[i] * load<lanes>(other + i * lanes);
        }
        const Vector<A, lanes> folded = fold<lanes>(sum);
        store<lanes>(out + n, c ? load<lanes>(out + n) + folded : folded);
      }
    });
  }

  // weight = logits: products of the query with the keys, plus the bias.
  INLINE void logits(const A* first_key, const A* bias) {
    if (!bias) return products(query, first_key, weight);
    products(query, first_key, slope);
    // In full vectors, of which the next row overwrites what is too much.
    for (int64_t i = 0; i < kernel; ++i)
      for (int64_t j = 0; j < kernel; j += lanes)
        store<lanes>(weight + i * kernel + j,
                     load<lanes>(slope + i * kernel + j) +
                         load<lanes>(bias + i * (2 * kernel - 1) + j));
  }

  // weight = e^(weight - shift); gives their sum.
  INLINE A exponentials(A shift) {
    for (int64_t n = 0; n < padded; n += lanes)
      store<lanes>(weight + n, exponential<lanes>(load<lanes>(weight + n) - shift));
    for (int64_t n = count; n < padded; ++n) weight[n] = 0;
    Vector<A, lanes> sums = {};
    for (int64_t n = 0; n < padded; n += lanes) sums += load<lanes>(weight + n);
    A sum = 0;
    for (int i = 0; i < lanes; ++i) sum += sums[i];
    return sum;
  }

  INLINE A largest_weight() {
    for (int64_t n = count; n < padded; ++n) weight[n] = weight[count - 1];
    Vector<A, lanes> best = load<lanes>(weight);
    for (int64_t n = lanes; n < padded; n += lanes) {
      const Vector<A, lanes> other = load<lanes>(weight + n);
      best = other > best ? other : best;
    }
    A result = best[0];
    for (int i = 1; i < lanes; ++i) result = best[i] > result ? best[i] : result;
    return result;
  }

  // out = scale * the sum of neighbours, each times its number in `by`.
  INLINE void weighted_sum(const A* by, const A* first, A scale, A* out) const {
    for_channels([&](auto vectors, int64_t c) INLINE_LAMBDA {
      // Rows side by side hide the latency of the multiply-adds.
      constexpr int together = vectors >= 8 ? 1 : vectors >= 4 ? 2 : 4;
      Vector<A, lanes> sum[vectors] = {};
      int64_t i = 0;
      for (; i + together <= kernel; i += together)
        add_rows<together>(by + i * kernel, first + i * row_step + c, sum);
      for (; i < kernel; ++i) add_rows<1>(by + i * kernel, first + i * row_step + c, sum);
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) store<lanes>(out + c + v * lanes, sum[v] * scale);
    });
  }

  template <int ROWS, int N>
  INLINE void add_rows(const A* by, const A* first, Vector<A, lanes> (&total)[N]) const {
    Vector<A, lanes> sum[ROWS][N] = {};
    for (int64_t j = 0; j < kernel; ++j, first += step) {
#pragma GCC unroll 16
      for (int row = 0; row < ROWS; ++row) {
        const A weighting = by[row * kernel + j];
#pragma GCC unroll 16
        for (int v = 0; v < N; ++v)
          sum[row][v] += weighting * load<lanes>(first + row * row_step + v * lanes);
      }
    }
#pragma GCC unroll 16
    for (int v = 0; v < N; ++v)
#pragma GCC unroll 16
      for (int row = 0; row < ROWS; ++row) total[v] += sum[row][v];
  }

  // Each neighbour in `to` += its number in `by` times the row.
  INLINE void add_to_each(const A* by, const A* row, A* to) const {
    for_channels([&](auto vectors, int64_t c) INLINE_LAMBDA {
      Vector<A, lanes> x[vectors];
#pragma GCC unroll 16
      for (int i = 0; i < vectors; ++i) x[i] = load<lanes>(row + c + i * lanes);
      for (int64_t i = 0, n = 0; i < kernel; ++i) {
        A* target = to + i * row_step + c;
        for (int64_t j = 0; j < kernel; ++j, ++n, target += step) {
#pragma GCC unroll 16
          for (int v = 0; v < vectors; ++v)
            store<lanes>(target + v * lanes, load<lanes>(target + v * lanes) + by[n] * x[v]);
        }
      }
    });
  }
};

// ---------------------------------------------------------------- walking over queries

// Calls visit(y, x, first, bias) for every query of the slice: its pixel, the index of the first
// pixel of its window in the map, and where the bias of its first neighbour lies in the table. In
// bands of columns, so that the windows of a band's rows stay in the cache.
template <typename Visit>
INLINE void for_each_query(const Problem& p, const Slice& slice, Visit visit) {
  constexpr int64_t band = 64;
  const int64_t rows = p.class_length(p.height, slice.row_class);
  const int64_t columns = p.class_length(p.width, slice.column_class);
  for (int64_t left = 0; left < columns; left += band) {
    const int64_t right = left + band < columns ? left + band : columns;
    for (int64_t i = slice.row_begin; i < slice.row_end; ++i) {
      const int64_t top = p.window_start(i, rows);
      for (int64_t j = left; j < right; ++j) {
        const int64_t start = p.window_start(j, columns);
        const int64_t first = (slice.row_class + top * p.dilation) * p.width +
                              slice.column_class + start * p.dilation;
        const int64_t bias = (top - i + p.kernel - 1) * (2 * p.kernel - 1) + start - j + p.kernel - 1;
        visit(slice.row_class + i * p.dilation, slice.column_class + j * p.dilation, first, bias);
      }
    }
  }
}

template <typename A>
void forward(const Problem& p, const Slice& slice) {
  Neighbours<A> around(p);
  const int64_t plane = slice.batch * p.heads + slice.head, table = 2 * p.kernel - 1;
  const A* const key = static_cast<const A*>(p.key) + plane * p.height * p.width * p.depth;
  const A* const value = static_cast<const A*>(p.value) + plane * p.height * p.width * p.depth;
  const A* const biases =
      p.bias ? static_cast<const A*>(p.bias) + slice.head * table * table : nullptr;
  A* const logsumexp = static_cast<A*>(p.logsumexp) + plane * p.height * p.width;
  for_each_query(p, slice, [&](int64_t y, int64_t x, int64_t first, int64_t bias) INLINE_LAMBDA {
    fetch(p.query.at<A>(slice.batch, slice.head, y, x + 4 * p.dilation), p.depth);
    around.take_query(p.query.at<A>(slice.batch, slice.head, y, x), A(p.scale));
    around.logits(key + first * p.depth, biases ? biases + bias : nullptr);
    const A largest = around.largest_weight();
    const A sum = around.exponentials(largest);
    A* const out = p.output.at<A>(slice.batch, slice.head, y, x);
    around.weighted_sum(around.weight, value + first * p.depth, 1 / sum, out);
    logsumexp[y * p.width + x] = largest + std::log(sum);
  });
}

// Gradients of keys and values are added to; those of queries written; those of the bias added to
// slice.grad_bias, which no other slice uses.
template <typename A>
void backward(const Problem& p, const Slice& slice) {
  Neighbours<A> around(p);
  const int64_t plane = slice.batch * p.heads + slice.head, table = 2 * p.kernel - 1;
  const int64_t map = plane * p.height * p.width;
  const A* const key = static_cast<const A*>(p.key) + map * p.depth;
  const A* const value = static_cast<const A*>(p.value) + map * p.depth;
  A* const grad_key = static_cast<A*>(p.grad_key) + map * p.depth;
  A* const grad_value = static_cast<A*>(p.grad_value) + map * p.depth;
  const A* const biases =
      p.bias ? static_cast<const A*>(p.bias) + slice.head * table * table : nullptr;
  const A* const logsumexp = static_cast<const A*>(p.logsumexp) + map;
  const A* const delta = static_cast<const A*>(p.delta) + map;
  A* const grad_bias = static_cast<A*>(slice.grad_bias);
  for_each_query(p, slice, [&](int64_t y, int64_t x, int64_t first, int64_t bias) INLINE_LAMBDA {
    const int64_t window = first * p.depth, pixel = y * p.width + x;
    fetch(p.query.at<A>(slice.batch, slice.head, y, x + 4 * p.dilation), p.depth);
    fetch(p.grad_output.at<A>(slice.batch, slice.head, y, x + 4 * p.dilation), p.depth);
    const A* const grad = p.grad_output.at<A>(slice.batch, slice.head, y, x);
    around.take_query(p.query.at<A>(slice.batch, slice.head, y, x), A(p.scale));
    around.logits(key + window, biases ? biases + bias : nullptr);
    around.exponentials(logsumexp[pixel]);
    around.products(grad, value + window, around.slope);
    around.add_to_each(around.weight, grad, grad_value + window);
    // From here on `slope` is the gradient of the logits.
    for (int64_t n = 0; n < around.padded; ++n)
      around.slope[n] = around.weight[n] * (around.slope[n] - delta[pixel]);
    if (grad_bias) {
      for (int64_t i = 0; i < p.kernel; ++i)
        for (int64_t j = 0; j < p.kernel; ++j)
          grad_bias[bias + i * table + j] += around.slope[i * p.kernel + j];
    }
    A* const grad_query = p.grad_query.at<A>(slice.batch, slice.head, y, x);
    around.weighted_sum(around.slope, key + window, A(p.scale), grad_query);
    around.add_to_each(around.slope, around.query, grad_key + window);
  });
}

inline Kernels kernels(DType dtype) {
  if (dtype == DType::float64) return {forward<double>, backward<double>};
  return {forward<float>, backward<float>};
}
