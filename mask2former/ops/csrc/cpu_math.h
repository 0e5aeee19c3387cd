// Elementary functions of vectors of floats, to a few units in the last place.
//
// Included by the kernels' headers after cpu_vectors.h, so once per instruction set, inside its
// namespace. No include guard, on purpose.

constexpr int lanes = full_lanes<float>;
typedef Vector<float, lanes> Floats;
typedef Vector<int32_t, lanes> Ints;

INLINE Floats all(float value) { return Floats{} + value; }
INLINE Ints bits(Floats value) { return reinterpret_cast<Ints>(value); }
INLINE Floats floats(Ints value) { return reinterpret_cast<Floats>(value); }
// A comparison gives -1 or 0 for each lane.
INLINE Floats pick(Ints yes, Floats a, Floats b) { return yes ? a : b; }
INLINE Ints pick(Ints yes, Ints a, Ints b) { return yes ? a : b; }
INLINE Floats larger(Floats a, Floats b) { return pick(a > b, a, b); }
INLINE Floats absolute(Floats a) { return floats(bits(a) & 0x7fffffff); }

template <typename S, typename V>
INLINE S sum_of_lanes(V value) {
  S sum = 0;
  for (int i = 0; i < lanes; ++i) sum += S(value[i]);
  return sum;
}

#if defined(__clang__)
INLINE float total(Floats value) { return sum_of_lanes<float>(value); }
INLINE float largest_lane(Floats value) {
  float largest = value[0];
  for (int i = 1; i < lanes; ++i) largest = value[i] > largest ? value[i] : largest;
  return largest;
}
#else
// The same lanes, STEP further round.
template <int STEP, int... LANE>
INLINE Floats rotated(Floats value, std::integer_sequence<int, LANE...>) {
  return __builtin_shuffle(value, Ints{(LANE + STEP) % lanes...});
}
// Sum and largest of the lanes, folding halves onto each other.
template <int STEP = lanes / 2>
INLINE float total(Floats value) {
  value += rotated<STEP>(value, std::make_integer_sequence<int, lanes>());
  if constexpr (STEP > 1)
    return total<STEP / 2>(value);
  else
    return value[0];
}
template <int STEP = lanes / 2>
INLINE float largest_lane(Floats value) {
  value = larger(value, rotated<STEP>(value, std::make_integer_sequence<int, lanes>()));
  if constexpr (STEP > 1)
    return largest_lane<STEP / 2>(value);
  else
    return value[0];
}
#endif

// exp(z) for |z| <= 87; above, as there; below, 0 (what is smaller yet would make every product with
// it a denormal number, many times slower). Not a number stays so.
INLINE Floats exp_of(Floats z) {
  // exp(z) = 2^n * exp(r) with |r| <= ln(2) / 2; the polynomial is that of Cephes' expf.
  z = pick(z > all(87.0f), all(87.0f), z);
  const Ints tiny = z < all(-87.0f);
  z = pick(tiny, all(-87.0f), z);
  const Floats shift = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  const Floats shifted = z * 1.44269504088896341f + shift;
  const Floats n = shifted - shift;
  const Floats r = (z - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats power = r * 1.9875691500e-4f + 1.3981999507e-3f;
  power = power * r + 8.3334519073e-3f;
  power = power * r + 4.1665795894e-2f;
  power = power * r + 1.6666665459e-1f;
  power = power * r + 5.0000001201e-1f;
  power = power * (r * r) + r + 1.0f;
  const Floats scale = floats((bits(shifted) - bits(shift) + 127) << 23);
  return pick(tiny, all(0.0f), power * scale);
}

INLINE Floats sigmoid_of(Floats x) { return 1.0f / (1.0f + exp_of(-x)); }

// x * Phi(x), Phi being the normal distribution; the exact GELU (Hendrycks and Gimpel, 2016).
INLINE Floats gelu_of(Floats x) {
  // Phi(-a) = exp(-q(a) * a) / 2 for a = |x|. q is a polynomial fitted for the least error of
  // x * Phi(x), 9e-9, up to a = 6, where the result is 0 or x to float precision. It goes on to
  // grow, so that of large numbers exp makes a tail of 0.
  const Floats a = absolute(x);
  Floats q = a * 1.318440172e-6f - 1.94479729e-5f;
  q = q * a + 9.113235747e-5f;
  q = q * a + 1.885827714e-4f;
  q = q * a - 5.022134388e-3f;
  q = q * a + 3.647867251e-2f;
  q = q * a + 3.182669481e-1f;
  q = q * a + 7.978893752e-1f;
  const Floats tail = 0.5f * exp_of(-q * a);
  return x * pick(x < all(0.0f), tail, 1.0f - tail);
}
