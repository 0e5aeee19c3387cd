// Vectors of channels as wide as a register of the instruction set being compiled for.
//
// Included by the kernels' headers, so once per instruction set, inside its namespace, with
// VECTOR_BYTES set to the width of a register. No include guard, on purpose.

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

template <int LANES, typename A>
INLINE Vector<A, LANES> load(const A* from) {
  return *reinterpret_cast<const typename VectorOf<A, LANES>::unaligned*>(from);
}
template <int LANES, typename A>
INLINE void store(A* to, Vector<A, LANES> value) {
  *reinterpret_cast<typename VectorOf<A, LANES>::unaligned*>(to) = value;
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

// Asks for `n` numbers to be brought nearer; their address may lie outside all memory.
template <typename A>
INLINE void fetch(const A* from, int64_t n) {
  const char* const bytes = reinterpret_cast<const char*>(from);
  for (int64_t at = 0; at < n * int64_t(sizeof(A)); at += 64) __builtin_prefetch(bytes + at, 0, 2);
}
