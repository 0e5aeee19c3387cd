// Multi-scale deformable attention on one slice of the problem, for one instruction set.
//
// Included by ms_deform_attn_cpu.cpp once per instruction set, inside a namespace of its own, with
// VECTOR_BYTES set to the width of a register. No include guard, on purpose.
//
// Deformable DETR (Zhu et al., 2021), equation 3: for each query and head, a weighted sum of
// bilinear samples of the head's value maps. Vectors run over the channels of a head.

template <typename A, int LANES>
struct VectorOf {
  typedef A type __attribute__((vector_size(LANES * sizeof(A))));
  typedef A unaligned __attribute__((vector_size(LANES * sizeof(A)), aligned(sizeof(A)), may_alias));
};
template <typename A>  // the tail of a head whose depth is no multiple of a vector
struct VectorOf<A, 1> {
  typedef A type;
  typedef A unaligned;
};
template <typename A, int LANES>
using Vector = typename VectorOf<A, LANES>::type;
template <typename A>
constexpr int full_lanes = VECTOR_BYTES / sizeof(A);
// What the channels left over by vectors of `lanes` are done with.
constexpr int narrower(int lanes) { return lanes > 4 ? lanes / 2 : 1; }

// ---------------------------------------------------------------- loads, stores, reductions

template <int LANES>
INLINE Vector<float, LANES> load(const float* from) {
  return *reinterpret_cast<const typename VectorOf<float, LANES>::unaligned*>(from);
}
template <int LANES>
INLINE Vector<double, LANES> load(const double* from) {
  return *reinterpret_cast<const typename VectorOf<double, LANES>::unaligned*>(from);
}

template <int LANES>
INLINE Vector<float, LANES> load(const BFloat16* from) {
  if constexpr (LANES == 1) {
    return bits_to_float(uint32_t(from->bits) << 16);
  } else {
    typedef typename VectorOf<uint16_t, LANES>::unaligned Narrow;
    const Narrow bits = *reinterpret_cast<const Narrow*>(from);
    typedef Vector<uint32_t, LANES> Wide;
    return Vector<float, LANES>(__builtin_convertvector(bits, Wide) << 16);
  }
}

// Bits shifted into place, then 2^112 for the difference of the exponent biases, which also makes
// subnormals right; infinities and NaN get their exponent by hand.
template <int LANES>
INLINE Vector<float, LANES> load(const Float16* from) {
  if constexpr (LANES == 1) {
    const uint32_t bits = from->bits;
    const float magnitude = bits_to_float((bits & 0x7fffu) << 13) * 0x1p112f;
    return bits_to_float(float_to_bits(magnitude) | ((bits & 0x8000u) << 16) |
                         ((bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u));
  } else {
    typedef typename VectorOf<uint16_t, LANES>::unaligned Narrow;
    typedef Vector<uint32_t, LANES> Wide;
    typedef Vector<float, LANES> Float;
    const Wide bits = __builtin_convertvector(*reinterpret_cast<const Narrow*>(from), Wide);
    const Float magnitude = Float((bits & 0x7fffu) << 13) * 0x1p112f;
    return Float(Wide(magnitude) | ((bits & 0x8000u) << 16) |
                 (Wide((bits & 0x7c00u) == 0x7c00u) & 0x7f800000u));
  }
}

template <int LANES>
INLINE void store(float* to, Vector<float, LANES> value) {
  *reinterpret_cast<typename VectorOf<float, LANES>::unaligned*>(to) = value;
}
template <int LANES>
INLINE void store(double* to, Vector<double, LANES> value) {
  *reinterpret_cast<typename VectorOf<double, LANES>::unaligned*>(to) = value;
}
template <int LANES>
INLINE void store(BFloat16* to, Vector<float, LANES> value) {
  float lanes[LANES];
  store<LANES>(lanes, value);
  for (int i = 0; i < LANES; ++i) to[i] = to_bfloat16(lanes[i]);
}
template <int LANES>
INLINE void store(Float16* to, Vector<float, LANES> value) {
  float lanes[LANES];
  store<LANES>(lanes, value);
  for (int i = 0; i < LANES; ++i) to[i] = to_float16(lanes[i]);
}

// Sums of neighbouring lanes: of `a` in the lower half, of `b` in the upper half.
template <typename V, int... LANE>
INLINE V add_pairs(V a, V b, std::integer_sequence<int, LANE...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (2 * LANE)...) +
         __builtin_shufflevector(a, b, (2 * LANE + 1)...);
#else
  typedef decltype(a < b) Mask;
  return __builtin_shuffle(a, b, Mask{(2 * LANE)...}) +
         __builtin_shuffle(a, b, Mask{(2 * LANE + 1)...});
#endif
}

// The sums over all lanes of four vectors.
template <typename A, int LANES>
INLINE void reduce4(const Vector<A, LANES> (&in)[4], A (&out)[4]) {
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

// ---------------------------------------------------------------- where a sample falls

// One bilinear sample. The four corners in the order (y0, x0), (y0, x1), (y1, x0), (y1, x1).
template <typename A>
struct Sample {
  int64_t offset[4];  // of the corner's first channel; only of corners inside the map
  bool inside[4];
  A right, below;  // fractions: distance from x0 and y0, in pixels

  // False if no corner lies inside the map, as for every location that is not finite.
  INLINE bool locate(A x, A y, const Level& level, int64_t row_stride) {
    // Not simplified: rounded as by PyTorch's grid_sample, whose steps these are. At first the
    // samples of a new layer lie on pixel centres exactly, where rounding picks the side from which
    // the slope is taken, so a kernel rounding otherwise would train differently.
    const A column = ((2 * x - 1) + 1) * (A(level.width) / 2) - A(0.5);
    const A row = ((2 * y - 1) + 1) * (A(level.height) / 2) - A(0.5);
    if (!(column > -1 && row > -1 && column < A(level.width) && row < A(level.height)))
      return false;
    const int x0 = floor_to_int(column), y0 = floor_to_int(row);
    right = column - A(x0), below = row - A(y0);
    const bool left_in = x0 >= 0, right_in = x0 + 1 < level.width;
    const bool top_in = y0 >= 0, bottom_in = y0 + 1 < level.height;
    inside[0] = top_in && left_in, inside[1] = top_in && right_in;
    inside[2] = bottom_in && left_in, inside[3] = bottom_in && right_in;
    offset[0] = (level.start + int64_t(y0) * level.width + x0) * row_stride;
    offset[1] = offset[0] + row_stride;
    offset[2] = offset[0] + level.width * row_stride;
    offset[3] = offset[2] + row_stride;
    return true;
  }

  INLINE void weights(A (&out)[4]) const {
    out[0] = (1 - below) * (1 - right), out[1] = (1 - below) * right;
    out[2] = below * (1 - right), out[3] = below * right;
  }

 private:
  INLINE static int floor_to_int(A value) {
    const int truncated = int(value);
    return truncated - (value < A(truncated));
  }
};

// ---------------------------------------------------------------- forward

// out[0 .. N vectors) = sum of weight[i] * rows at offset[i]. Several sums side by side hide the
// latency of the multiply-adds.
template <int LANES, int N, typename T, typename A>
INLINE void weighted_sum(const T* value, const int64_t* offset, const A* weight, int count, T* out) {
  constexpr int chains = N >= 8 ? 1 : 8 / N;
  Vector<A, LANES> sum[chains][N] = {};
  int i = 0;
  for (; i + chains <= count; i += chains)
    for (int chain = 0; chain < chains; ++chain)
      for (int n = 0; n < N; ++n)
        sum[chain][n] += weight[i + chain] * load<LANES>(value + offset[i + chain] + n * LANES);
  for (; i < count; ++i)
    for (int n = 0; n < N; ++n) sum[0][n] += weight[i] * load<LANES>(value + offset[i] + n * LANES);
  for (int n = 0; n < N; ++n) {
    Vector<A, LANES> total = sum[0][n];
    for (int chain = 1; chain < chains; ++chain) total += sum[chain][n];
    store<LANES>(out + n * LANES, total);
  }
}

// The same over any number of channels: as many full vectors as fit, then narrower ones.
template <int LANES, typename T, typename A>
INLINE void weighted_sum_of_channels(const T* value, const int64_t* offset, const A* weight,
                                     int count, T* out, int64_t channels) {
  // 32 channels at once, the usual depth of a head, share the reading of offsets and weights.
  constexpr int most = 32 / LANES;
  if constexpr (most > 1 && LANES > 1) {
    for (; channels >= most * LANES; channels -= most * LANES, value += most * LANES,
                                     out += most * LANES)
      weighted_sum<LANES, most>(value, offset, weight, count, out);
  }
  for (; channels >= LANES; channels -= LANES, value += LANES, out += LANES)
    weighted_sum<LANES, 1>(value, offset, weight, count, out);
  if constexpr (LANES > 1) {
    if (channels)
      weighted_sum_of_channels<narrower(LANES)>(value, offset, weight, count, out, channels);
  }
}

template <typename T>
void forward(const Problem& p, const Slice& slice) {
  typedef typename Accumulator<T>::type A;
  const int64_t samples = p.levels * p.points, row_stride = p.heads * p.depth;
  std::vector<int64_t> offset(4 * samples);
  std::vector<A> weight(4 * samples);
  const T* value = static_cast<const T*>(p.value) + slice.batch * p.positions * row_stride;
  for (int64_t query = slice.query_begin; query < slice.query_end; ++query) {
    for (int64_t head = 0; head < p.heads; ++head) {
      const int64_t index = (slice.batch * p.queries + query) * p.heads + head;
      const A* location = static_cast<const A*>(p.locations) + index * samples * 2;
      const A* attention = static_cast<const A*>(p.attention) + index * samples;
      int count = 0;
      for (int64_t l = 0; l < p.levels; ++l) {
        for (int64_t k = 0; k < p.points; ++k, location += 2, ++attention) {
          Sample<A> sample;
          if (!sample.locate(location[0], location[1], p.level[l], row_stride)) continue;
          A bilinear[4];
          sample.weights(bilinear);
          for (int corner = 0; corner < 4; ++corner) {
            offset[count] = sample.offset[corner];
            weight[count] = bilinear[corner] * *attention;
            count += sample.inside[corner];
          }
        }
      }
      weighted_sum_of_channels<full_lanes<A>>(value + head * p.depth, offset.data(), weight.data(),
                                             count, static_cast<T*>(p.output) + index * p.depth,
                                             p.depth);
    }
  }
}

// ---------------------------------------------------------------- backward

// For the corners of one sample: dot[i] += <grad, value row i>, and grad_value row i += scale[i] *
// grad. FULL: all four corners lie inside the map, which is nearly always so.
template <int LANES, bool FULL, typename T, typename A>
INLINE void corner_gradients(const T* value, A* grad_value, const A* grad, int64_t channels,
                             const Sample<A>& sample, const A (&scale)[4], A (&dot)[4]) {
  if (channels >= LANES) {
    Vector<A, LANES> product[4] = {};
    for (; channels >= LANES;
         channels -= LANES, value += LANES, grad_value += LANES, grad += LANES) {
      const Vector<A, LANES> g = load<LANES>(grad);
      for (int i = 0; i < 4; ++i) {
        if (!FULL && !sample.inside[i]) continue;
        product[i] += g * load<LANES>(value + sample.offset[i]);
        A* target = grad_value + sample.offset[i];
        store<LANES>(target, load<LANES>(target) + scale[i] * g);
      }
    }
    reduce4<A, LANES>(product, dot);
  }
  if constexpr (LANES > 1) {
    if (channels)
      corner_gradients<narrower(LANES), FULL>(value, grad_value, grad, channels, sample, scale, dot);
  }
}

// All gradients of one head and one level (the slice), over all queries: no two slices write the
// same number. Gradients of locations and attention are written, those of values added.
template <typename T>
void backward(const Problem& p, const Slice& slice) {
  typedef typename Accumulator<T>::type A;
  const int64_t samples = p.levels * p.points, row_stride = p.heads * p.depth;
  const int64_t head_offset = slice.batch * p.positions * row_stride + slice.head * p.depth;
  const T* value = static_cast<const T*>(p.value) + head_offset;
  A* grad_value = static_cast<A*>(p.grad_value) + head_offset;
  const Level& level = p.level[slice.level];
  for (int64_t query = slice.query_begin; query < slice.query_end; ++query) {
    const int64_t index = (slice.batch * p.queries + query) * p.heads + slice.head;
    const int64_t first = index * samples + slice.level * p.points;
    const A* location = static_cast<const A*>(p.locations) + first * 2;
    const A* attention = static_cast<const A*>(p.attention) + first;
    A* grad_location = static_cast<A*>(p.grad_locations) + first * 2;
    A* grad_attention = static_cast<A*>(p.grad_attention) + first;
    const A* grad = static_cast<const A*>(p.grad_output) + index * p.depth;
    for (int64_t k = 0; k < p.points; ++k) {
      Sample<A> sample;
      if (!sample.locate(location[2 * k], location[2 * k + 1], level, row_stride)) {
        grad_location[2 * k] = grad_location[2 * k + 1] = grad_attention[k] = 0;
        continue;
      }
      A bilinear[4], scale[4], dot[4] = {};
      sample.weights(bilinear);
      for (int i = 0; i < 4; ++i) scale[i] = bilinear[i] * attention[k];
      if (sample.inside[0] && sample.inside[3])
        corner_gradients<full_lanes<A>, true>(value, grad_value, grad, p.depth, sample, scale, dot);
      else
        corner_gradients<full_lanes<A>, false>(value, grad_value, grad, p.depth, sample, scale, dot);
      const A right = sample.right, below = sample.below;
      grad_attention[k] =
          bilinear[0] * dot[0] + bilinear[1] * dot[1] + bilinear[2] * dot[2] + bilinear[3] * dot[3];
      grad_location[2 * k] = attention[k] * A(level.width) *
                             ((1 - below) * (dot[1] - dot[0]) + below * (dot[3] - dot[2]));
      grad_location[2 * k + 1] = attention[k] * A(level.height) *
                                 ((1 - right) * (dot[2] - dot[0]) + right * (dot[3] - dot[1]));
    }
  }
}

inline Kernels kernels(DType dtype) {
  switch (dtype) {
    case DType::float32: return {forward<float>, backward<float>};
    case DType::float64: return {forward<double>, backward<double>};
    case DType::float16: return {forward<Float16>, backward<Float16>};
    default: return {forward<BFloat16>, backward<BFloat16>};
  }
}
