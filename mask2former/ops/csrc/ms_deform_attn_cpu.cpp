// Multi-scale deformable attention on the CPU: a plain C interface, free of torch.
//
// Built by build_ops.py, or by hand:
//   g++ -O3 -std=c++17 -fno-trapping-math -fopenmp -fPIC -shared ms_deform_attn_cpu.cpp -o libms_deform_attn_cpu.so
//
// Deformable DETR (Zhu et al., 2021), equation 3: for each query and head, a weighted sum of
// bilinear samples of the head's value maps. The kernels are compiled for several instruction sets
// and chosen when the library runs, so that a build can be copied to another machine. Threads are
// OpenMP's; loaded after torch the library shares torch's pool.

#include <cstdint>
#include <utility>
#include <vector>

namespace {

enum class DType : int { float32 = 0, float64 = 1 };

struct Level {
  int32_t width, height;
  int64_t start;  // position of its first pixel
};

// Tensors as in ms_deform_attn_op.py, contiguous except for value, whose channels lie together and
// whose other strides are given, in elements. grad_value is [splits, batch, heads, positions,
// depth]: a head's values lie together, so that cache lines next to each other are used together.
struct Problem {
  int64_t batch, positions, heads, depth, queries, levels, points;
  int64_t batch_stride, head_stride, row_stride;
  const Level* level;
  const void *value, *locations, *attention, *grad_output;
  void *output, *grad_value, *grad_locations, *grad_attention;
};

// What one call of a kernel does: some queries at one head and some levels (forward: all of them).
struct Slice {
  int64_t batch, head, query_begin, query_end, level_begin, level_end, split;
};

struct Kernels {
  void (*forward)(const Problem&, const Slice&);
  void (*backward)(const Problem&, const Slice&);
};

#define KERNEL_FILE "ms_deform_attn_cpu_kernel.h"
#include "cpu_instruction_sets.h"

Problem problem_of(const int64_t* sizes, const int64_t* strides, std::vector<Level>& level) {
  Problem p = {};
  p.batch = sizes[0], p.positions = sizes[1], p.heads = sizes[2], p.depth = sizes[3];
  p.queries = sizes[4], p.levels = sizes[5], p.points = sizes[6];
  p.batch_stride = strides[0], p.row_stride = strides[1], p.head_stride = strides[2];
  int64_t start = 0;
  for (int64_t l = 0; l < p.levels; ++l) {
    const int64_t height = sizes[7 + 2 * l], width = sizes[8 + 2 * l];
    level.push_back({int32_t(width), int32_t(height), start});
    start += height * width;
  }
  p.level = level.data();
  return p;
}

// Below this many multiply-adds a second thread costs more than it brings.
int64_t useful_threads(const Problem& p, int64_t threads) {
  constexpr int64_t worth_a_thread = 1 << 17;
  const int64_t work = p.batch * p.queries * p.heads * p.levels * p.points * 4 * p.depth;
  return at_least_one(work / worth_a_thread < threads ? work / worth_a_thread : threads);
}

}  // namespace

// sizes: batch, positions, heads, depth, queries, levels, points; then height and width of each
// level. strides: of value's first three dimensions. The caller has checked all of it.
extern "C" {

int mask2former_cpu_abi() { return 2; }

int mask2former_cpu_instruction_set(int wanted) { return use_instruction_set(wanted); }

void ms_deform_attn_cpu_forward(int dtype, const int64_t* sizes, const int64_t* strides,
                                const void* value, const void* locations, const void* attention,
                                void* output, int threads) {
  std::vector<Level> level;
  Problem p = problem_of(sizes, strides, level);
  p.value = value, p.locations = locations, p.attention = attention, p.output = output;
  const Kernels kernels = choose(DType(dtype));
  const int64_t team = useful_threads(p, threads);
  // Neighbouring queries look at neighbouring values, so long runs of them stay on one core; four
  // runs a thread even out what is left.
  const int64_t runs = at_least_one(4 * team / at_least_one(p.batch * p.heads));
  const int64_t length = at_least_one((p.queries + runs - 1) / runs);
  const int64_t chunks = (p.queries + length - 1) / length;
#pragma omp parallel for schedule(dynamic) num_threads(team) if (team > 1)
  for (int64_t task = 0; task < p.batch * p.heads * chunks; ++task) {
    const int64_t begin = task % chunks * length, head = task / chunks;
    const int64_t end = begin + length < p.queries ? begin + length : p.queries;
    kernels.forward(p, {head / p.heads, head % p.heads, begin, end, 0, p.levels, 0});
  }
}

// grad_value is added to: the caller hands in zeros, for each of the `splits` parts of the queries.
void ms_deform_attn_cpu_backward(int dtype, const int64_t* sizes, const int64_t* strides,
                                 const void* value, const void* locations, const void* attention,
                                 const void* grad_output, void* grad_value, void* grad_locations,
                                 void* grad_attention, int splits, int threads) {
  std::vector<Level> level;
  Problem p = problem_of(sizes, strides, level);
  p.value = value, p.locations = locations, p.attention = attention, p.grad_output = grad_output;
  p.grad_value = grad_value, p.grad_locations = grad_locations;
  p.grad_attention = grad_attention;
  const Kernels kernels = choose(DType(dtype));
  const int64_t team = useful_threads(p, threads);
  const int64_t length = (p.queries + splits - 1) / splits;
  // No two tasks write to the same place: no atomics, and the sums do not depend on timing. Heads
  // are shared out whole where there are enough, else level by level.
  const bool whole = splits * p.batch * p.heads >= 2 * team;
  const int64_t parts = whole ? 1 : p.levels;
  const int64_t tasks = splits * p.batch * p.heads * parts;
#pragma omp parallel for schedule(dynamic) num_threads(team) if (team > 1)
  for (int64_t task = 0; task < tasks; ++task) {
    const int64_t head = task / (parts * splits), split = task / parts % splits;
    const int64_t begin = split * length, part = task % parts;
    const int64_t end = begin + length < p.queries ? begin + length : p.queries;
    kernels.backward(p, {head / p.heads, head % p.heads, begin, end, whole ? 0 : part,
                         whole ? p.levels : part + 1, split});
  }
}

}  // extern "C"
