// The best class of each pixel: a matrix product whose result stays in registers.
//
// Included by mask_strips_cpu_kernel.h. No include guard, on purpose.

// As many sums as there are registers for: `group` classes times `wide` vectors of pixels.
constexpr int wide = VECTOR_BYTES == 64 ? 4 : 2;

struct Best {
  Floats score[wide];
  Ints name[wide];
};

// Sums of `group` classes over a block of pixels, packed as [queries, wide * lanes].
INLINE void group_sums(const float* packed, const float* weights, int64_t queries,
                       Floats (&sums)[group][wide]) {
  for (int c = 0; c < group; ++c)
    for (int v = 0; v < wide; ++v) sums[c][v] = Floats{};
  for (int64_t q = 0; q < queries; ++q, packed += wide * lanes, weights += group) {
    Floats value[wide];
    for (int v = 0; v < wide; ++v) value[v] = load<lanes>(packed + v * lanes);
    for (int c = 0; c < group; ++c)
      for (int v = 0; v < wide; ++v) sums[c][v] += value[v] * weights[c];
  }
}

// Of equal scores the lower class wins, in whatever order they come.
INLINE void compare(Best& best, const Floats (&sums)[group][wide], const int32_t* names) {
  for (int c = 0; c < group; ++c) {
    if (names[c] < 0) continue;
    const Ints name = Ints{} + names[c];
    for (int v = 0; v < wide; ++v) {
      const Floats score = sums[c][v];
      const Ints better = (score > best.score[v]) | ((score == best.score[v]) & (name < best.name[v]));
      best.score[v] = pick(better, score, best.score[v]);
      best.name[v] = pick(better, name, best.name[v]);
    }
  }
}

inline void best_class(const Classes& p, int64_t begin, int64_t end) {
  constexpr int64_t block = wide * lanes;
  std::vector<float> packed(p.queries * block);
  for (int64_t x = begin; x < end; x += block) {
    const int64_t n = x + block < end ? block : end - x;
    for (int64_t q = 0; q < p.queries; ++q) {
      const float* const from = p.probs + q * p.pixels + x;
      if (n == block)  // of known size: no call
        std::memcpy(packed.data() + q * block, from, block * sizeof(float));
      else
        std::memcpy(packed.data() + q * block, from, n * sizeof(float));
    }
    Best best;
    for (int v = 0; v < wide; ++v) best.score[v] = all(-1.0f), best.name[v] = Ints{};
    Floats sums[group][wide] = {};
    for (int64_t g = 0; g < p.groups; ++g) {
      if (g == p.first_groups) {
        // 1.0001: more than the rounding of the sums.
        Ints open = {};
        for (int v = 0; v < wide; ++v) open |= best.score[v] <= sums[group - 1][v] * 1.0001f;
        if (sum_of_lanes<int64_t>(open) == 0) break;
      }
      group_sums(packed.data(), p.weights + g * p.queries * group, p.queries, sums);
      compare(best, sums, p.names + g * group);
    }
    int16_t names[block];
    for (int v = 0; v < wide; ++v) {
      const Shorts name = __builtin_convertvector(best.name[v], Shorts);
      std::memcpy(names + v * lanes, &name, sizeof name);
    }
    std::memcpy(p.best + x, names, n * sizeof(int16_t));
  }
}

// The same of scores that are there.
inline void argmax(const float* scores, int64_t classes, int64_t pixels, int64_t begin, int64_t end,
                   int16_t* best) {
  constexpr int64_t block = span * lanes;
  int64_t x = begin;
  for (; x + block <= end; x += block) {
    Floats most[span];
    Ints name[span];
    for (int v = 0; v < span; ++v) most[v] = load<lanes>(scores + x + v * lanes), name[v] = Ints{};
    for (int64_t c = 1; c < classes; ++c)
      for (int v = 0; v < span; ++v) {
        const Floats score = load<lanes>(scores + c * pixels + x + v * lanes);
        const Ints better = score > most[v];
        most[v] = pick(better, score, most[v]);
        name[v] = pick(better, Ints{} + int32_t(c), name[v]);
      }
    for (int v = 0; v < span; ++v) {
      const Shorts names = __builtin_convertvector(name[v], Shorts);
      std::memcpy(best + x + v * lanes, &names, sizeof names);
    }
  }
  for (; x < end; ++x) {
    best[x] = 0;
    for (int64_t c = 1; c < classes; ++c)
      if (scores[c * pixels + x] > scores[best[x] * pixels + x]) best[x] = int16_t(c);
  }
}
