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
  int64_t kernel, count, padded;
  std::vector<int64_t> offset;  // of each neighbour from the first, in elements
  std::vector<A> memory;
  A *weight, *slope, *query;

  explicit Neighbours(const Problem& p) : kernel(p.kernel), count(p.kernel * p.kernel) {
    padded = (count + lanes - 1) / lanes * lanes;
    for (int64_t n = 0; n < padded; ++n) {
      const int64_t at = n < count ? n : count - 1;
      offset.push_back((at / kernel * p.width + at % kernel) * p.dilation * p.depth);
    }
    memory.resize(2 * padded + p.depth);
    weight = memory.data(), slope = weight + padded, query = slope + padded;
  }

  INLINE void take_query(const A* from, int64_t depth, A scale) {
    for (int64_t c = 0; c < depth; ++c) query[c] = from[c] * scale;
  }

  // out[n] = <row, neighbour n>.
  INLINE void products(const A* row, const A* first, int64_t depth, A* out) const {
    for (int64_t n = 0; n < padded; n += lanes)
      store<lanes>(out + n, products_of<lanes>(row, first, offset.data() + n, depth));
  }

  // The products with COUNT neighbours: each a vector of sums at first, which are then folded into
  // one vector of one sum each.
  template <int COUNT>
  static INLINE Vector<A, lanes> products_of(const A* row, const A* first, const int64_t* offset,
                                             int64_t depth) {
    const A* neighbour[COUNT];
    Vector<A, lanes> sum[COUNT];
#pragma GCC unroll 16
    for (int i = 0; i < COUNT; ++i) neighbour[i] = first + offset[i], sum[i] = Vector<A, lanes>{};
    for (int64_t c = 0; c < depth; c += lanes) {
      const Vector<A, lanes> x = load<lanes>(row + c);
#pragma GCC unroll 16
      for (int i = 0; i < COUNT; ++i) sum[i] += x * load<lanes>(neighbour[i] + c);
    }
    return fold<COUNT>(sum);
  }

  // weight = logits: products of the query with the keys, plus the bias.
  INLINE void logits(const A* first_key, int64_t depth, const A* bias) {
    products(query, first_key, depth, weight);
    if (bias) {
      for (int64_t i = 0; i < kernel; ++i)
        for (int64_t j = 0; j < kernel; ++j)
          weight[i * kernel + j] += bias[i * (2 * kernel - 1) + j];
    }
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

  INLINE A largest_weight() const {
    Vector<A, lanes> best = load<lanes>(weight + padded - lanes);
    for (int64_t n = count; n < padded; ++n) best[n - (padded - lanes)] = weight[count - 1];
    for (int64_t n = 0; n < padded - lanes; n += lanes) {
      const Vector<A, lanes> other = load<lanes>(weight + n);
      best = other > best ? other : best;
    }
    A result = best[0];
    for (int i = 1; i < lanes; ++i) result = best[i] > result ? best[i] : result;
    return result;
  }

  // out = scale * the sum of neighbours, each times its number in `by`. Several sums side by side
  // hide the latency of the multiply-adds.
  INLINE void weighted_sum(const A* by, const A* first, int64_t depth, A scale, A* out) const {
    constexpr int chunk = 64 / VECTOR_BYTES;  // depth is a multiple of 64 bytes
    int64_t c = 0;
    for (; c + 2 * chunk * lanes <= depth; c += 2 * chunk * lanes)
      weighted_sum_of<2 * chunk>(by, first + c, scale, out + c);
    for (; c < depth; c += chunk * lanes) weighted_sum_of<chunk>(by, first + c, scale, out + c);
  }

  template <int N>
  INLINE void weighted_sum_of(const A* by, const A* first, A scale, A* out) const {
    constexpr int chains = N >= 8 ? 1 : N >= 4 ? 2 : 4;
    Vector<A, lanes> sum[chains][N] = {};
    int64_t n = 0;
    for (; n + chains <= count; n += chains)
      for (int chain = 0; chain < chains; ++chain)
        for (int i = 0; i < N; ++i)
          sum[chain][i] += by[n + chain] * load<lanes>(first + offset[n + chain] + i * lanes);
    for (; n < count; ++n)
      for (int i = 0; i < N; ++i)
        sum[0][i] += by[n] * load<lanes>(first + offset[n] + i * lanes);
    for (int i = 0; i < N; ++i) {
      for (int chain = 1; chain < chains; ++chain) sum[0][i] += sum[chain][i];
      store<lanes>(out + i * lanes, sum[0][i] * scale);
    }
  }

  // Each neighbour in `to` += its number in `by` times the row.
  INLINE void add_to_each(const A* by, const A* row, int64_t depth, A* first) const {
    constexpr int chunk = 64 / VECTOR_BYTES;
    for (int64_t c = 0; c < depth; c += chunk * lanes) {
      Vector<A, lanes> x[chunk];
      for (int i = 0; i < chunk; ++i) x[i] = load<lanes>(row + c + i * lanes);
      for (int64_t n = 0; n < count; ++n) {
        A* const target = first + offset[n] + c;
        for (int i = 0; i < chunk; ++i)
          store<lanes>(target + i * lanes, load<lanes>(target + i * lanes) + by[n] * x[i]);
      }
    }
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
    around.take_query(p.query.at<A>(slice.batch, slice.head, y, x), p.depth, A(p.scale));
    around.logits(key + first * p.depth, p.depth, biases ? biases + bias : nullptr);
    const A largest = around.largest_weight();
    const A sum = around.exponentials(largest);
    A* const out = p.output.at<A>(slice.batch, slice.head, y, x);
    around.weighted_sum(around.weight, value + first * p.depth, p.depth, 1 / sum, out);
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
    const A* const grad = p.grad_output.at<A>(slice.batch, slice.head, y, x);
    around.take_query(p.query.at<A>(slice.batch, slice.head, y, x), p.depth, A(p.scale));
    around.logits(key + window, p.depth, biases ? biases + bias : nullptr);
    around.exponentials(logsumexp[pixel]);
    around.products(grad, value + window, p.depth, around.slope);
    around.add_to_each(around.weight, grad, p.depth, grad_value + window);
    // From here on `slope` is the gradient of the logits.
    for (int64_t n = 0; n < around.padded; ++n)
      around.slope[n] = around.weight[n] * (around.slope[n] - delta[pixel]);
    if (grad_bias) {
      for (int64_t i = 0; i < p.kernel; ++i)
        for (int64_t j = 0; j < p.kernel; ++j)
          grad_bias[bias + i * table + j] += around.slope[i * p.kernel + j];
    }
    A* const grad_query = p.grad_query.at<A>(slice.batch, slice.head, y, x);
    around.weighted_sum(around.slope, key + window, p.depth, A(p.scale), grad_query);
    around.add_to_each(around.slope, around.query, p.depth, grad_key + window);
  });
}

inline Kernels kernels(DType dtype) {
  if (dtype == DType::float64) return {forward<double>, backward<double>};
  return {forward<float>, backward<float>};
}
