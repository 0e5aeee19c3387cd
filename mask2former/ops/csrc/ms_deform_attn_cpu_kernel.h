// Multi-scale deformable attention on one slice of the problem, for one instruction set.
//
// Included by ms_deform_attn_cpu.cpp once per instruction set, inside a namespace of its own, with
// VECTOR_BYTES set to the width of a register. No include guard, on purpose.
//
// Queries are taken in blocks: first every sample of a block is located, with vectors running over
// samples; then rows of channels are read or added to, with vectors running over channels.

#include "cpu_vectors.h"

// What the channels left over by vectors of `lanes` are done with.
constexpr int narrower(int lanes) { return lanes > 4 ? lanes / 2 : 1; }

// out[i] += the sum over all lanes of in[i].
template <typename A, int LANES>
INLINE void add_sums(const Vector<A, LANES> (&in)[4], A* out) {
  if constexpr (LANES == 1) {
    for (int i = 0; i < 4; ++i) out[i] += in[i];
  } else {
    const auto order = std::make_integer_sequence<int, LANES>();
    const Vector<A, LANES> first = add_pairs(in[0], in[1], order);
    const Vector<A, LANES> second = add_pairs(in[2], in[3], order);
    if constexpr (LANES == 2) {
      out[0] += first[0], out[1] += first[1], out[2] += second[0], out[3] += second[1];
    } else {
      Vector<A, LANES> sums = add_pairs(first, second, order);
      for (int width = 4; width < LANES; width *= 2) sums = add_pairs(sums, sums, order);
      for (int i = 0; i < 4; ++i) out[i] += sums[i];
    }
  }
}

// ---------------------------------------------------------------- where samples fall

// The samples of a block of queries at one head, one array for each property. A sample has four
// corners: 0 (y0, x0), 1 (y0, x1), 2 (y1, x0), 3 (y1, x1).
template <typename A>
struct Samples {
  static constexpr int64_t block = 32;  // queries
  int64_t count;
  std::vector<A> memory;
  std::vector<int32_t> integers;
  A *x, *y, *attention;              // given
  A *right, *below;                  // fractions: distance from x0 and y0, in pixels
  A* weight[4];                      // of the corners: bilinear weight times attention
  int32_t *position, *inside;        // of corner 0 in its map; bit i: corner i lies in the map
  A *width, *height;                 // of the sample's level, the same for every block
  int32_t *columns, *rows, *start;

  // Room for a block of queries at the levels of a slice.
  Samples(const Problem& p, const Slice& slice) {
    const int64_t each = (slice.level_end - slice.level_begin) * p.points;
    count = block * each;
    memory.resize(11 * count), integers.resize(5 * count);
    A** const reals[] = {&x,     &y,      &attention, &right,     &below,    &width,
                         &height, &weight[0], &weight[1], &weight[2], &weight[3]};
    for (int i = 0; i < 11; ++i) *reals[i] = memory.data() + i * count;
    int32_t** const ints[] = {&position, &inside, &columns, &rows, &start};
    for (int i = 0; i < 5; ++i) *ints[i] = integers.data() + i * count;
    for (int64_t s = 0; s < count; ++s) {
      const Level& level = p.level[slice.level_begin + s % each / p.points];
      width[s] = A(columns[s] = level.width), height[s] = A(rows[s] = level.height);
      start[s] = int32_t(level.start);
    }
  }

  // Takes over the samples of `queries` queries, each `step` samples after the one before; and has
  // the next block fetched, whose queries lie too far apart for the hardware to foresee.
  INLINE void take(const A* location, const A* attention_weight, int64_t queries, int64_t step) {
    const int64_t each = count / block;
    for (int64_t q = 0, at = 0; q < queries; ++q, at += each) {
      const A* const place = location + 2 * q * step;
      const A* const weighting = attention_weight + q * step;
      for (int64_t k = 0; k < each; ++k) x[at + k] = place[2 * k], y[at + k] = place[2 * k + 1];
      for (int64_t k = 0; k < each; ++k) attention[at + k] = weighting[k];
      fetch(place + 2 * block * step, 2 * each), fetch(weighting + block * step, each);
    }
  }

  // A sample with no corner inside, as every one that is not finite, gets inside = 0.
  INLINE void locate(int64_t n) {
#pragma GCC ivdep
    for (int64_t s = 0; s < n; ++s) {
      // Not simplified: rounded as by PyTorch's grid_sample, whose steps these are. At first the
      // samples of a new layer lie on pixel centres exactly, where rounding picks the side from
      // which the slope is taken, so a kernel rounding otherwise would train differently.
      A column = ((2 * x[s] - 1) + 1) * (width[s] / 2) - A(0.5);
      A row = ((2 * y[s] - 1) + 1) * (height[s] / 2) - A(0.5);
      const bool any = (column > -1) & (row > -1) & (column < width[s]) & (row < height[s]);
      column = any ? column : A(0), row = any ? row : A(0);
      int32_t x0 = int32_t(column), y0 = int32_t(row);
      x0 -= column < A(x0), y0 -= row < A(y0);  // floor, also below 0
      const A dx = column - A(x0), dy = row - A(y0), a = attention[s];
      right[s] = dx, below[s] = dy;
      weight[0][s] = (1 - dy) * (1 - dx) * a, weight[1][s] = (1 - dy) * dx * a;
      weight[2][s] = dy * (1 - dx) * a, weight[3][s] = dy * dx * a;
      position[s] = start[s] + y0 * columns[s] + x0;
      const int32_t left_in = x0 >= 0 ? 5 : 0, right_in = x0 + 1 < columns[s] ? 10 : 0;
      const int32_t top_in = y0 >= 0 ? 3 : 0, bottom_in = y0 + 1 < rows[s] ? 12 : 0;
      inside[s] = any ? (left_in | right_in) & (top_in | bottom_in) : 0;
    }
  }
};

// ---------------------------------------------------------------- forward

// N vectors of channels of the weighted sum of samples [first, last). Several sums side by side
// hide the latency of the multiply-adds.
template <int LANES, int N, typename A>
INLINE void weighted_sum(const A* value, int64_t row_stride, const Samples<A>& samples,
                         int64_t first, int64_t last, A* out) {
  constexpr int chains = N >= 8 ? 1 : N >= 4 ? 2 : 4;
  Vector<A, LANES> sum[chains][N] = {};
  for (int64_t s = first; s < last; ++s) {
    const int32_t inside = samples.inside[s];
    if (inside == 0) continue;
    const A* top = value + samples.position[s] * row_stride;
    const A* const corner[4] = {top, top + row_stride, top + samples.columns[s] * row_stride,
                                top + (samples.columns[s] + 1) * row_stride};
    if (inside == 15) {  // nearly always
      for (int i = 0; i < 4; ++i)
        for (int n = 0; n < N; ++n)
          sum[i % chains][n] += samples.weight[i][s] * load<LANES>(corner[i] + n * LANES);
    } else {
      for (int i = 0; i < 4; ++i)
        if (inside >> i & 1)
          for (int n = 0; n < N; ++n)
            sum[i % chains][n] += samples.weight[i][s] * load<LANES>(corner[i] + n * LANES);
    }
  }
  for (int n = 0; n < N; ++n) {
    for (int chain = 1; chain < chains; ++chain) sum[0][n] += sum[chain][n];
    store<LANES>(out + n * LANES, sum[0][n]);
  }
}

// The same over any number of channels: 32 at once (the usual depth of a head), then full vectors,
// then narrower ones.
template <int LANES, typename A>
INLINE void weighted_sum_of_channels(const A* value, int64_t row_stride, const Samples<A>& samples,
                                     int64_t first, int64_t last, A* out, int64_t channels) {
  constexpr int most = LANES > 1 ? 32 / LANES : 1;
  if constexpr (most > 1) {
    for (; channels >= 32; channels -= 32, value += 32, out += 32)
      weighted_sum<LANES, most>(value, row_stride, samples, first, last, out);
  }
  for (; channels >= LANES; channels -= LANES, value += LANES, out += LANES)
    weighted_sum<LANES, 1>(value, row_stride, samples, first, last, out);
  if constexpr (LANES > 1) {
    if (channels)
      weighted_sum_of_channels<narrower(LANES)>(value, row_stride, samples, first, last, out,
                                                channels);
  }
}

template <typename A>
void forward(const Problem& p, const Slice& slice) {
  constexpr int64_t block = Samples<A>::block;
  const int64_t each = p.levels * p.points;
  Samples<A> samples(p, slice);
  const A* value = static_cast<const A*>(p.value) + slice.batch * p.batch_stride +
                   slice.head * p.head_stride;
  for (int64_t begin = slice.query_begin; begin < slice.query_end; begin += block) {
    const int64_t queries = begin + block < slice.query_end ? block : slice.query_end - begin;
    const int64_t row = (slice.batch * p.queries + begin) * p.heads + slice.head;
    samples.take(static_cast<const A*>(p.locations) + row * each * 2,
                 static_cast<const A*>(p.attention) + row * each, queries, p.heads * each);
    samples.locate(queries * each);
    A* out = static_cast<A*>(p.output) + row * p.depth;
    for (int64_t q = 0; q < queries; ++q, out += p.heads * p.depth)
      weighted_sum_of_channels<full_lanes<A>>(value, p.row_stride, samples, q * each,
                                              (q + 1) * each, out, p.depth);
  }
}

// ---------------------------------------------------------------- backward

// For the corners of one sample: dot[i] += <grad, value row i>, and grad_value row i +=
// weight[i] * grad. FULL: all four corners lie inside the map, which is nearly always so.
template <int LANES, bool FULL, typename A>
INLINE void corner_gradients(const A* const (&value)[4], A* const (&grad_value)[4], const A* grad,
                             int64_t channel, int64_t channels, const A (&weight)[4],
                             int32_t inside, A* dot) {
  if (channels - channel >= LANES) {
    Vector<A, LANES> product[4] = {};
    for (; channels - channel >= LANES; channel += LANES) {
      const Vector<A, LANES> g = load<LANES>(grad + channel);
      for (int i = 0; i < 4; ++i) {
        if (!FULL && !(inside >> i & 1)) continue;
        product[i] += g * load<LANES>(value[i] + channel);
        A* const target = grad_value[i] + channel;
        store<LANES>(target, load<LANES>(target) + weight[i] * g);
      }
    }
    add_sums<A, LANES>(product, dot);
  }
  if constexpr (LANES > 1) {
    if (channels > channel)
      corner_gradients<narrower(LANES), FULL>(value, grad_value, grad, channel, channels, weight,
                                              inside, dot);
  }
}

// All gradients of one head and some levels over the queries of the slice. Those of locations and
// attention are written, those of values added.
template <typename A>
void backward(const Problem& p, const Slice& slice) {
  constexpr int64_t block = Samples<A>::block;
  const int64_t each = (slice.level_end - slice.level_begin) * p.points;
  const int64_t all = p.levels * p.points, step = p.heads * all;
  Samples<A> samples(p, slice);
  std::vector<A> dots(4 * samples.count);
  const A* value = static_cast<const A*>(p.value) + slice.batch * p.batch_stride +
                   slice.head * p.head_stride;
  A* grad_value = static_cast<A*>(p.grad_value) +
                  ((slice.split * p.batch + slice.batch) * p.heads + slice.head) * p.positions *
                      p.depth;
  for (int64_t begin = slice.query_begin; begin < slice.query_end; begin += block) {
    const int64_t queries = begin + block < slice.query_end ? block : slice.query_end - begin;
    const int64_t row = (slice.batch * p.queries + begin) * p.heads + slice.head;
    const int64_t first = row * all + slice.level_begin * p.points;
    samples.take(static_cast<const A*>(p.locations) + first * 2,
                 static_cast<const A*>(p.attention) + first, queries, step);
    samples.locate(queries * each);

    const A* grad = static_cast<const A*>(p.grad_output) + row * p.depth;
    for (int64_t q = 0; q < queries; ++q, grad += p.heads * p.depth) {
      fetch(grad + block * p.heads * p.depth, p.depth);
      for (int64_t s = q * each; s < (q + 1) * each; ++s) {
        A* const dot = dots.data() + 4 * s;
        for (int i = 0; i < 4; ++i) dot[i] = 0;
        const int32_t inside = samples.inside[s];
        if (inside == 0) continue;
        const A weight[4] = {samples.weight[0][s], samples.weight[1][s], samples.weight[2][s],
                             samples.weight[3][s]};
        const int64_t next_row = samples.columns[s];
        const A* v = value + samples.position[s] * p.row_stride;
        A* g = grad_value + samples.position[s] * p.depth;
        const A* const values[4] = {v, v + p.row_stride, v + next_row * p.row_stride,
                                    v + (next_row + 1) * p.row_stride};
        A* const grads[4] = {g, g + p.depth, g + next_row * p.depth, g + (next_row + 1) * p.depth};
        if (inside == 15)
          corner_gradients<full_lanes<A>, true>(values, grads, grad, 0, p.depth, weight, inside,
                                                dot);
        else
          corner_gradients<full_lanes<A>, false>(values, grads, grad, 0, p.depth, weight, inside,
                                                 dot);
      }
    }

    A* grad_location = static_cast<A*>(p.grad_locations) + first * 2;
    A* grad_attention = static_cast<A*>(p.grad_attention) + first;
    for (int64_t q = 0; q < queries; ++q, grad_location += step * 2, grad_attention += step) {
      for (int64_t k = 0, s = q * each; k < each; ++k, ++s) {
        const A* dot = dots.data() + 4 * s;
        const A dx = samples.right[s], dy = samples.below[s], a = samples.attention[s];
        const A top = dot[0] + dx * (dot[1] - dot[0]), bottom = dot[2] + dx * (dot[3] - dot[2]);
        const A across = (1 - dy) * (dot[1] - dot[0]) + dy * (dot[3] - dot[2]);
        grad_attention[k] = top + dy * (bottom - top);
        grad_location[2 * k] = a * samples.width[s] * across;
        grad_location[2 * k + 1] = a * samples.height[s] * (bottom - top);
      }
    }
  }
}

inline Kernels kernels(DType dtype) {
  if (dtype == DType::float64) return {forward<double>, backward<double>};
  return {forward<float>, backward<float>};
}
