// Post-processing of one strip of masks, for one instruction set: see mask_strips_cpu.cpp.
//
// Included by mask_strips_cpu.cpp once per instruction set, inside a namespace of its own, with
// VECTOR_BYTES set to the width of a register. No include guard, on purpose.

#include "cpu_vectors.h"
#include "cpu_math.h"

typedef int8_t Bytes __attribute__((vector_size(lanes)));
typedef int16_t Shorts __attribute__((vector_size(2 * lanes)));

// ---------------------------------------------------------------- resizing

// A source row to a row as wide as the output. `line` is readable for two vectors past its end.
template <int TAPS>
INLINE void resize_line(const Resize& p, const float* line, float* to) {
  const int taps = TAPS ? TAPS : int(p.column_taps);
  for (int64_t x = 0; x < p.padded; x += lanes) {
    const int32_t* const first = p.column_first + x;  // ascending
    const float* const weights = p.column_weights + x;
    Floats sum = {};
#if !defined(__clang__) && VECTOR_BYTES > 16
    // Neighbours look at the same few values: two registers hold them all, where the output is not
    // much smaller than the source.
    if (first[lanes - 1] - first[0] + taps <= 2 * lanes) {
      const Floats low = load<lanes>(line + first[0]), high = load<lanes>(line + first[0] + lanes);
      const Ints index = load<lanes>(first) - first[0];
      for (int t = 0; t < taps; ++t)
        sum += load<lanes>(weights + t * p.padded) * __builtin_shuffle(low, high, index + t);
      store<lanes>(to + x, sum);
      continue;
    }
#endif
    for (int t = 0; t < taps; ++t) {
      Floats value;
      for (int i = 0; i < lanes; ++i) value[i] = line[first[i] + t];
      sum += load<lanes>(weights + t * p.padded) * value;
    }
    store<lanes>(to + x, sum);
  }
}

// One row of the output from lines as wide.
template <int TAPS>
INLINE void combine_lines(const Resize& p, const float* lines, const float* weights, float* to) {
  const int taps = TAPS ? TAPS : int(p.row_taps);
  for (int64_t x = 0; x < p.width; x += lanes) {
    Floats sum = {};
    for (int t = 0; t < taps; ++t) sum += load<lanes>(lines + t * p.padded + x) * weights[t];
    if (p.sigmoid) sum = sigmoid_of(sum);
    if (x + lanes <= p.width)
      store<lanes>(to + x, sum);
    else
      std::memcpy(to + x, &sum, (p.width - x) * sizeof(float));
  }
}

// Output rows `begin` to `end` of one mask.
inline void resize(const Resize& p, int64_t mask, int64_t begin, int64_t end) {
  if (begin >= end) return;
  const int32_t top = p.row_first[begin];  // ascending
  const int64_t height = p.row_first[end - 1] + p.row_taps - top;
  std::vector<float> line(p.source_width + 2 * lanes), lines(height * p.padded);
  const float* const source = p.source + mask * p.mask_stride + top * p.row_stride;
  for (int64_t y = 0; y < height; ++y) {
    std::memcpy(line.data(), source + y * p.row_stride, p.source_width * sizeof(float));
    float* const to = lines.data() + y * p.padded;
    if (p.column_taps == 3)
      resize_line<3>(p, line.data(), to);
    else if (p.column_taps == 2)
      resize_line<2>(p, line.data(), to);
    else
      resize_line<0>(p, line.data(), to);
  }
  for (int64_t row = begin; row < end; ++row) {
    const float* const from = lines.data() + (p.row_first[row] - top) * p.padded;
    const float* const weights = p.row_weights + row * p.row_taps;
    float* const to = p.output + (mask * p.rows + row) * p.width;
    if (p.row_taps == 3)
      combine_lines<3>(p, from, weights, to);
    else if (p.row_taps == 2)
      combine_lines<2>(p, from, weights, to);
    else
      combine_lines<0>(p, from, weights, to);
  }
}

// ---------------------------------------------------------------- instances

inline void foreground(const float* probs, int64_t pixels, uint8_t* mask, float* area, float* sum) {
  int64_t count = 0;
  double total = 0;
  constexpr int64_t run = 64 * lanes;  // short sums in float, which are exact enough, then double
  int64_t x = 0;
  while (x + lanes <= pixels) {
    Floats part = {};
    Ints inside = {};
    const int64_t end = x + run < pixels ? x + run : pixels;
    for (; x + lanes <= end; x += lanes) {
      const Floats value = load<lanes>(probs + x);
      const Ints yes = value > all(0.5f);
      inside -= yes;
      part += floats(bits(value) & yes);
      const Bytes ones = -__builtin_convertvector(yes, Bytes);
      std::memcpy(mask + x, &ones, lanes);
    }
    count += sum_of_lanes<int64_t>(inside), total += sum_of_lanes<double>(part);
  }
  for (; x < pixels; ++x) {
    const bool yes = probs[x] > 0.5f;
    mask[x] = yes, count += yes, total += yes ? probs[x] : 0;
  }
  *area += float(count), *sum += float(total);
}

// ---------------------------------------------------------------- panoptic

// The pixels of a few vectors: `n` of them are real, the others of probability 0.
constexpr int64_t span = 4;
struct Winners {
  Floats best[span];
  Ints rank[span], inside[span];
};

INLINE void look_at(Winners& found, const float* probs, int32_t rank, float score, Ints& area) {
  for (int v = 0; v < span; ++v) {
    const Floats value = load<lanes>(probs + v * lanes), scored = value * score;
    const Ints better = scored > found.best[v], own = value >= all(0.5f);
    found.best[v] = pick(better, scored, found.best[v]);
    found.rank[v] = pick(better, Ints{} + rank, found.rank[v]);
    found.inside[v] = pick(better, own, found.inside[v]);
    area -= own;
  }
}

inline void winners(const Chosen& chosen, const float* scores, int64_t begin, int64_t end,
                    int16_t* winner, uint8_t* inside, int64_t* areas) {
  constexpr int64_t block = span * lanes;
  std::vector<int32_t> memory(chosen.count * lanes);
  for (int64_t x = begin; x < end; x += block) {
    const int64_t n = x + block < end ? block : end - x;
    Winners found;
    for (int v = 0; v < span; ++v)
      found.best[v] = all(-std::numeric_limits<float>::infinity()), found.rank[v] = found.inside[v] = Ints{};
    for (int64_t i = 0; i < chosen.count; ++i) {
      const float* probs = chosen.probs + chosen.index[i] * chosen.pixels + x;
      float padded[block] = {};
      if (n < block) {
        std::memcpy(padded, probs, n * sizeof(float));
        probs = padded;
      }
      Ints area = load<lanes>(memory.data() + i * lanes);
      look_at(found, probs, int32_t(i), scores[i], area);
      store<lanes>(memory.data() + i * lanes, area);
    }
    int16_t ranks[block];
    int8_t own[block];
    for (int v = 0; v < span; ++v) {
      const Shorts rank = __builtin_convertvector(found.rank[v], Shorts);
      const Bytes ones = -__builtin_convertvector(found.inside[v], Bytes);
      std::memcpy(ranks + v * lanes, &rank, sizeof rank);
      std::memcpy(own + v * lanes, &ones, sizeof ones);
    }
    std::memcpy(winner + x, ranks, n * sizeof(int16_t)), std::memcpy(inside + x, own, n);
    for (int64_t i = 0; i < n; ++i)
      ++areas[chosen.count + ranks[i]], areas[2 * chosen.count + ranks[i]] += own[i];
  }
  for (int64_t i = 0; i < chosen.count; ++i)
    areas[i] += sum_of_lanes<int64_t>(load<lanes>(memory.data() + i * lanes));
}

#include "mask_strips_best_class_cpu_kernel.h"

inline Kernels kernels(DType) { return {resize, foreground, winners, best_class, argmax}; }
