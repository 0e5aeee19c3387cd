// Neighbourhood attention on the CPU: a plain C interface, free of torch.
//
// Built by build_ops.py, or by hand:
//   g++ -O3 -std=c++17 -fno-trapping-math -fopenmp -fPIC -shared neighborhood_attention_cpu.cpp -o libneighborhood_attention_cpu.so
//
// NAT (Hassani et al., CVPR 2023) and DiNAT (Hassani and Shi, 2022): every pixel attends to the
// kernel x kernel pixels around it, taken in steps of the dilation. Pixels whose rows and columns
// agree modulo the dilation form a class: a map of its own, in which windows are dense and clamped
// at the borders.

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace {

enum class DType : int { float32 = 0, float64 = 1 };

// A [batch, heads, height, width, depth] tensor whose channels lie together.
struct Map {
  void* data;
  int64_t batch, head, row, column;  // strides, in elements

  template <typename A>
  A* at(int64_t b, int64_t h, int64_t y, int64_t x) const {
    return static_cast<A*>(data) + b * batch + h * head + y * row + x * column;
  }
};

// Tensors as in neighborhood_attention_op.py. Keys, values and their gradients are contiguous.
struct Problem {
  int64_t batch, heads, height, width, depth, kernel, dilation;
  double scale;
  Map query, output, grad_output, grad_query;
  const void *key, *value, *bias, *delta;
  void *logsumexp, *grad_key, *grad_value, *grad_bias;

  // Rows (or columns) of a class.
  int64_t class_length(int64_t length, int64_t residue) const {
    return (length - residue + dilation - 1) / dilation;
  }
  // First neighbour of number i out of `length`, clamped.
  int64_t window_start(int64_t i, int64_t length) const {
    const int64_t start = i - kernel / 2, last = length - kernel;
    return start < 0 ? 0 : start > last ? last : start;
  }
};

// What one call of a kernel does: some rows of one class of pixels, of one head of one image.
struct Slice {
  int64_t batch, head, row_class, column_class, row_begin, row_end;
  void* grad_bias;  // [2 kernel - 1, 2 kernel - 1], this slice's own
};

struct Kernels {
  void (*forward)(const Problem&, const Slice&);
  void (*backward)(const Problem&, const Slice&);
};

#define INLINE_LAMBDA __attribute__((always_inline))
#define KERNEL_FILE "neighborhood_attention_cpu_kernel.h"
#include "cpu_instruction_sets.h"

Problem problem_of(const int64_t* sizes, double scale) {
  Problem p = {};
  p.batch = sizes[0], p.heads = sizes[1], p.height = sizes[2], p.width = sizes[3];
  p.depth = sizes[4], p.kernel = sizes[5], p.dilation = sizes[6], p.scale = scale;
  return p;
}

Map map_of(const void* data, const int64_t* strides) {
  return {const_cast<void*>(data), strides[0], strides[1], strides[2], strides[3]};
}

// The slices of a problem: classes of every head and image, cut into strips of rows.
std::vector<Slice> slices_of(const Problem& p, int64_t strip) {
  std::vector<Slice> slices;
  for (int64_t plane = 0; plane < p.batch * p.heads; ++plane)
    for (int64_t r = 0; r < p.dilation; ++r)
      for (int64_t c = 0; c < p.dilation; ++c) {
        const int64_t rows = p.class_length(p.height, r), strips = at_least_one(rows / strip);
        for (int64_t s = 0; s < strips; ++s)  // the last one takes what is left
          slices.push_back({plane / p.heads, plane % p.heads, r, c, s * strip,
                            s + 1 < strips ? (s + 1) * strip : rows, nullptr});
      }
  return slices;
}

// Below this many multiply-adds a second thread costs more than it brings.
int64_t useful_threads(const Problem& p, int64_t threads) {
  constexpr int64_t worth_a_thread = 1 << 17;
  const int64_t queries = p.batch * p.heads * p.height * p.width;
  const int64_t work = 2 * queries * p.kernel * p.kernel * p.depth;
  return at_least_one(work / worth_a_thread < threads ? work / worth_a_thread : threads);
}

// grad_bias = the sum over the slices' own, always in the same order.
template <typename A>
void add_up_bias(const Problem& p, const std::vector<Slice>& slices) {
  const int64_t size = (2 * p.kernel - 1) * (2 * p.kernel - 1);
  for (const Slice& slice : slices) {
    A* const to = static_cast<A*>(p.grad_bias) + slice.head * size;
    const A* const from = static_cast<const A*>(slice.grad_bias);
    for (int64_t i = 0; i < size; ++i) to[i] += from[i];
  }
}

}  // namespace

// sizes: batch, heads, height, width, depth, kernel, dilation; depth is a multiple of 64 bytes.
// strides: of each map (see the arguments), batch, head, row, column. The caller has checked it.
extern "C" {

int mask2former_cpu_abi() { return 2; }

// For tests: run a lesser instruction set than the machine has. Gives back the one in use.
int mask2former_cpu_instruction_set(int wanted) { return use_instruction_set(wanted); }

// strides: of query and output. bias may be null; behind its end it has room for 64 bytes that are
// read and not used. logsumexp: [batch, heads, height, width].
void neighborhood_attention_cpu_forward(int dtype, const int64_t* sizes, const int64_t* strides,
                                        double scale, const void* query, const void* key,
                                        const void* value, const void* bias, void* output,
                                        void* logsumexp, int threads) {
  Problem p = problem_of(sizes, scale);
  p.query = map_of(query, strides), p.output = map_of(output, strides + 4);
  p.key = key, p.value = value, p.bias = bias, p.logsumexp = logsumexp;
  const Kernels kernels = choose(DType(dtype));
  const int64_t team = useful_threads(p, threads);
  const std::vector<Slice> slices = slices_of(p, 8);
#pragma omp parallel for schedule(dynamic) num_threads(team) if (team > 1)
  for (int64_t task = 0; task < int64_t(slices.size()); ++task) kernels.forward(p, slices[task]);
}

// strides: of query, grad_output and grad_query. delta: the sum over channels of output times
// grad_output. grad_key, grad_value and grad_bias are added to: the caller hands in zeros.
void neighborhood_attention_cpu_backward(int dtype, const int64_t* sizes, const int64_t* strides,
                                         double scale, const void* query, const void* key,
                                         const void* value, const void* bias,
                                         const void* logsumexp, const void* delta,
                                         const void* grad_output, void* grad_query, void* grad_key,
                                         void* grad_value, void* grad_bias, int threads) {
  Problem p = problem_of(sizes, scale);
  p.query = map_of(query, strides), p.grad_output = map_of(grad_output, strides + 4);
  p.grad_query = map_of(grad_query, strides + 8);
  p.key = key, p.value = value, p.bias = bias, p.delta = delta;
  p.logsumexp = const_cast<void*>(logsumexp);
  p.grad_key = grad_key, p.grad_value = grad_value, p.grad_bias = grad_bias;
  const Kernels kernels = choose(DType(dtype));
  const int64_t team = useful_threads(p, threads);
  // Windows reach kernel / 2 rows beyond a strip (or to row `kernel` of the map). With strips at
  // least that high, every other strip can run at the same time: no atomics, and sums that do not
  // depend on timing or on the number of threads.
  std::vector<Slice> slices = slices_of(p, p.kernel > 16 ? p.kernel : 16);
  const bool wide = DType(dtype) == DType::float64;
  const int64_t table = (2 * p.kernel - 1) * (2 * p.kernel - 1) * (wide ? 8 : 4);
  std::vector<char> biases(grad_bias ? table * slices.size() : 0);
  if (grad_bias)
    for (size_t i = 0; i < slices.size(); ++i) slices[i].grad_bias = biases.data() + table * i;
  std::vector<int64_t> turns[2];
  int64_t number = 0;  // of the strip within its class
  for (int64_t i = 0; i < int64_t(slices.size()); ++i) {
    number = slices[i].row_begin == 0 ? 0 : number + 1;
    turns[number % 2].push_back(i);
  }
  for (const std::vector<int64_t>& turn : turns) {
#pragma omp parallel for schedule(dynamic) num_threads(team) if (team > 1)
    for (int64_t task = 0; task < int64_t(turn.size()); ++task)
      kernels.backward(p, slices[turn[task]]);
  }
  if (grad_bias) wide ? add_up_bias<double>(p, slices) : add_up_bias<float>(p, slices);
}

}  // extern "C"
