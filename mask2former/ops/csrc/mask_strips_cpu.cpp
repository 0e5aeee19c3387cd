// Post-processing of masks on the CPU, a strip of rows at a time: a plain C interface, free of torch.
//
// Built by build_ops.py, or by hand:
//   g++ -O3 -std=c++17 -fno-trapping-math -fopenmp -fPIC -shared mask_strips_cpu.cpp -o libmask_strips_cpu.so
//
// What Python does with whole tensors in several passes is done here in one pass each: resizing with
// the few taps that are not zero, to probabilities (MaskFormer, Cheng et al., 2021, section 3.4);
// the statistics of instances; who wins each pixel; and the best class of each pixel. Threads are
// OpenMP's; loaded after torch the library shares torch's pool.

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

namespace {

enum class DType : int { float32 = 0 };

// Rows of resized masks, [masks, rows, width]. Output row r is the sum of `row_taps` source rows
// from row_first[r] on, with row_weights[r]; columns likewise, whose tables are padded with zero
// weights to `padded`, a multiple of 16, and whose weights lie tap by tap, [column_taps, padded].
struct Resize {
  int64_t masks, source_width, rows, width, row_taps, column_taps, padded;
  int64_t mask_stride, row_stride;  // of source, in elements
  const float *source, *row_weights, *column_weights;
  const int32_t *row_first, *column_first;
  float* output;
  bool sigmoid;
};

// Probabilities [*, pixels]; `index` chooses `count` of them.
struct Chosen {
  const float* probs;
  const int64_t* index;
  int64_t count, pixels;
};

// The best of `classes` classes by `weights` [groups, queries, group], classes in the order of
// `names`, padded with -1. After the first `first_groups`, whose last slot holds a bound of what all
// others reach in a pixel, the others are left out where they cannot win.
struct Classes {
  const float *probs, *weights;
  const int32_t* names;
  int64_t queries, pixels, groups, first_groups;
  int16_t* best;
};

constexpr int64_t group = 6;  // classes whose sums are kept in registers at a time

struct Kernels {
  void (*resize)(const Resize&, int64_t mask, int64_t begin, int64_t end);
  void (*foreground)(const float* probs, int64_t pixels, uint8_t* mask, float* area, float* sum);
  void (*winners)(const Chosen&, const float* scores, int64_t begin, int64_t end, int16_t* winner,
                  uint8_t* inside, int64_t* areas);
  void (*best_class)(const Classes&, int64_t begin, int64_t end);
  void (*argmax)(const float* scores, int64_t classes, int64_t pixels, int64_t begin, int64_t end,
                 int16_t* best);
};

#define KERNEL_FILE "mask_strips_cpu_kernel.h"
#include "cpu_instruction_sets.h"

constexpr int64_t worth_a_task = 1 << 13;  // values

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t useful_threads(int64_t values, int64_t threads) {
  return at_least_one(smaller(values / worth_a_task, threads));
}

}  // namespace

// Sizes are in the order of the structures' members. The caller has checked all of it.
extern "C" {

int mask2former_cpu_abi() { return 2; }

int mask2former_cpu_instruction_set(int wanted) { return use_instruction_set(wanted); }

void mask_strips_cpu_resize(const int64_t* sizes, const float* source, const int32_t* row_first,
                            const float* row_weights, const int32_t* column_first,
                            const float* column_weights, float* output, int sigmoid, int threads) {
  const Resize p = {sizes[0], sizes[1], sizes[2],    sizes[3],       sizes[4],  sizes[5],
                    sizes[6], sizes[7], sizes[8],    source,         row_weights, column_weights,
                    row_first, column_first, output, bool(sigmoid)};
  const Kernels kernels = choose(DType::float32);
  const int64_t team = useful_threads(p.masks * p.rows * p.width, threads);
  // A mask is a task; where masks are few, their rows are shared out as well.
  const int64_t parts = smaller(at_least_one(2 * team / at_least_one(p.masks)), at_least_one(p.rows / 8));
  const int64_t length = (p.rows + parts - 1) / parts;
#pragma omp parallel for schedule(dynamic) num_threads(team) if (team > 1)
  for (int64_t task = 0; task < p.masks * parts; ++task) {
    const int64_t begin = task % parts * length;
    kernels.resize(p, task / parts, begin, smaller(begin + length, p.rows));
  }
}

// masks: bool, `mask_stride` apart. areas and sums (of the probabilities inside) are added to.
void mask_strips_cpu_foreground(const int64_t* sizes, const float* probs, const int64_t* index,
                                uint8_t* masks, float* areas, float* sums, int threads) {
  const int64_t count = sizes[0], pixels = sizes[1], mask_stride = sizes[2];
  const Kernels kernels = choose(DType::float32);
  const int64_t team = useful_threads(count * pixels / 4, threads);
#pragma omp parallel for schedule(dynamic) num_threads(team) if (team > 1)
  for (int64_t i = 0; i < count; ++i)
    kernels.foreground(probs + index[i] * pixels, pixels, masks + i * mask_stride, areas + i, sums + i);
}

// areas [3, count] are added to: pixels of the mask, pixels won, and both at once.
void mask_strips_cpu_winners(const int64_t* sizes, const float* probs, const int64_t* index,
                             const float* scores, int16_t* winner, uint8_t* inside, int64_t* areas,
                             int threads) {
  const Chosen chosen = {probs, index, sizes[0], sizes[1]};
  const Kernels kernels = choose(DType::float32);
  constexpr int64_t length = 1024;
  const int64_t team = useful_threads(chosen.count * chosen.pixels / 4, threads);
#pragma omp parallel num_threads(team) if (team > 1)
  {
    std::vector<int64_t> own(3 * chosen.count);
#pragma omp for schedule(dynamic)
    for (int64_t begin = 0; begin < chosen.pixels; begin += length)
      kernels.winners(chosen, scores, begin, smaller(begin + length, chosen.pixels), winner, inside,
                      own.data());
#pragma omp critical
    for (int64_t i = 0; i < 3 * chosen.count; ++i) areas[i] += own[i];
  }
}

void mask_strips_cpu_best_class(const int64_t* sizes, const float* probs, const float* weights,
                                const int32_t* names, int16_t* best, int threads) {
  const Classes p = {probs, weights, names, sizes[0], sizes[1], sizes[2], sizes[3], best};
  const Kernels kernels = choose(DType::float32);
  constexpr int64_t length = 512;
  const int64_t team = useful_threads(p.queries * p.pixels, threads);
#pragma omp parallel for schedule(dynamic) num_threads(team) if (team > 1)
  for (int64_t begin = 0; begin < p.pixels; begin += length)
    kernels.best_class(p, begin, smaller(begin + length, p.pixels));
}

// Of equal scores [classes, pixels] the first wins.
void mask_strips_cpu_argmax(const int64_t* sizes, const float* scores, int16_t* best, int threads) {
  const int64_t classes = sizes[0], pixels = sizes[1];
  const Kernels kernels = choose(DType::float32);
  constexpr int64_t length = 1024;
  const int64_t team = useful_threads(classes * pixels / 4, threads);
#pragma omp parallel for schedule(dynamic) num_threads(team) if (team > 1)
  for (int64_t begin = 0; begin < pixels; begin += length)
    kernels.argmax(scores, classes, pixels, begin, smaller(begin + length, pixels), best);
}

}  // extern "C"
